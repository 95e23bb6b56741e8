"""Instructions of every kernel and of a step over small tensors, counted by Callgrind and compared with a baseline.

    python bench/instructions.py                               compare, under half a minute
    python bench/instructions.py --update                      make it this compiler's baseline; growth needs its entry

Builds bench/instructions.cpp with CMake and runs it under valgrind (apt-get install valgrind). Counts are the same from
run to run and machine to machine, where times are not, so that a change of a few percent shows. They depend on the
compiler: bench/results/instructions.json has a baseline for each. Valgrind has no AVX-512, so that target is not
counted.

A case fails that grew by more than 10%, unless the newest section of CHANGELOG.md has an entry with the word
"instructions" and the name of the case's rule ("norm" for norms), and so does one that the baseline lacks or has alone.
Status: 0 all compared and well, 1 a case failed, 2 not counted, 3 nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
TARGETS = ("avx2", "neon", "scalar")  # what valgrind can run, where the machine has it
LIMIT = 0.10

Counts = dict[str, int]


class Change(NamedTuple):
    case: str
    before: int | None
    now: int | None
    kind: Literal["same", "shrunk", "grown", "explained", "new", "gone", "no target", "no baseline"]


def rule_of(case: str) -> str:
    """The changelog's name for it: without the target, and the state arrays of the variant."""
    return case.split()[1].split("-")[0]


def target_of(case: str) -> str:
    return case.split()[0]


def explained_rules(changelog: str, rules: set[str]) -> set[str]:
    """Those that an entry of the newest section names beside the word "instructions" (this script's name is none)."""
    newest = re.split(r"^## ", changelog, flags=re.M)[1:2]
    entries = re.split(r"^[-*] ", "".join(newest), flags=re.M)[1:]
    words = [set(re.findall(r"\w+", entry.lower().replace("instructions.py", ""))) for entry in entries]
    return {rule for rule in rules if any({"instructions", rule} <= entry for entry in words)}


def compare(baseline: Counts | None, counts: Counts, changelog: str) -> list[Change]:
    """In the order counted, then what is only in the baseline; None: there is none for this compiler."""
    if baseline is None:
        return [Change(case, None, now, "no baseline") for case, now in counts.items()]
    explained = explained_rules(changelog, {rule_of(c) for c in counts})
    counted = {target_of(c) for c in counts}
    changes = []
    for case, now in counts.items():
        before = baseline.get(case)
        if before is None:
            changes.append(Change(case, None, now, "new"))
        elif now > before * (1 + LIMIT):
            changes.append(Change(case, before, now, "explained" if rule_of(case) in explained else "grown"))
        else:
            changes.append(Change(case, before, now, "shrunk" if now < before * (1 - LIMIT) else "same"))
    for case, before in baseline.items():
        if case not in counts:
            changes.append(Change(case, before, None, "gone" if target_of(case) in counted else "no target"))
    return changes


UPDATE = "Run bench/instructions.py --update and commit the baseline."
ADVICE = {
    "grown": 'If it has to grow: an entry in CHANGELOG.md with the word "instructions" and the name of the rule.',
    "new": UPDATE,
    "gone": UPDATE,
    "shrunk": f"What shrank by more than {LIMIT:.0%} passes: --update makes it the new measure.",
    "explained": "What grew as CHANGELOG.md says passes: --update makes it the new measure.",
    "no target": "This machine lacks an instruction set of the baseline.",
    "no baseline": "Nothing to compare with: no baseline for this compiler.",
}


def verdict(changes: list[Change]) -> tuple[int, list[str]]:
    """The exit status, and what there is to say."""
    kinds = {c.kind for c in changes}
    lines = [
        f"{c.kind}: {c.case}" + (f", {c.now / c.before - 1:+.1%} to {c.now:,}" if c.before and c.now else "")
        for c in changes
        if c.kind not in ("same", "no target", "no baseline")
    ]
    lines += dict.fromkeys(text for kind, text in ADVICE.items() if kind in kinds)
    return (1 if kinds & {"grown", "new", "gone"} else 3 if kinds & {"no target", "no baseline"} else 0), lines


def give_up(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    raise SystemExit(2)


def run(*command: str | Path, **env: str) -> str:
    # What the caller's shell sets must not change what is counted.
    inherited = {k: v for k, v in os.environ.items() if k not in ("CXXFLAGS", "LDFLAGS", "FUSEDSTEP_TARGET")}
    result = subprocess.run(command, env={**inherited, **env}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        give_up(f"{' '.join(map(str, command))}\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return result.stdout


def build(folder: Path, root: Path = ROOT) -> Path:
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for programs in (["valgrind"], ["cmake"], compilers):
        if not any(map(shutil.which, programs)):
            give_up(f"needs {' or '.join(programs)} (apt-get install valgrind cmake g++)")
    options = ["-DFUSEDSTEP_PROGRAMS=ON", "-DSKBUILD_PROJECT_VERSION=0", "-DCMAKE_BUILD_TYPE=Release"]
    run("cmake", "-S", root, "-B", folder, *options)
    run("cmake", "--build", folder, "--target", "instructions", "--parallel", "2")
    return folder / "instructions"


def count(program: Path) -> tuple[str, Counts]:
    """The compiler, and the instructions of each case."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        stdout = run(
            "valgrind", "--command-line-only=yes", "--quiet", "--tool=callgrind", "--toggle-collect=counted",
            "--dump-after=counted", "--combine-dumps=yes", f"--callgrind-out-file={parts}", program, *TARGETS,
            LD_BIND_NOW="1",
        )  # fmt: skip
        compiler, *cases = stdout.splitlines()
        found = re.findall(r"^desc: Trigger: --dump-after=counted$.*?^summary: (\d+)$", parts.read_text(), re.M | re.S)
    if not cases or len(found) != len(cases) or "0" in found:
        give_up(f"{len(cases)} cases were run and {len(found) - found.count('0')} counted")
    return compiler, dict(zip(cases, map(int, found), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, default=ROOT / "bench/results/instructions.json")
    parser.add_argument("--update", action="store_true", help="write the baseline of this compiler")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compiler, counts = count(build(Path(folder)))
    baselines: dict[str, Counts] = json.loads(args.baseline.read_text()) if args.baseline.exists() else {}
    known = baselines.get(compiler)
    changes = compare(known, counts, (ROOT / "CHANGELOG.md").read_text())
    if args.update:
        grown = [c for c in changes if c.kind == "grown"]
        status, lines = verdict(grown)
        if not grown:
            gone = {c.case for c in changes if c.kind == "gone"}
            kept = {case: n for case, n in (known or {}).items() if case not in gone}
            new = dict(sorted({**baselines, compiler: {**kept, **counts}}.items()))
            args.baseline.write_text(json.dumps(new, indent=1) + "\n")
            lines = [f"{len(counts)} cases are the baseline of {compiler} now."]
    else:
        status, lines = verdict(changes)
    print("\n".join(lines or [f"{compiler}: {len(counts)} cases, none grew by more than {LIMIT:.0%}."]))
    return status


if __name__ == "__main__":
    sys.exit(main())
