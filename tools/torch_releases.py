"""The torch tests on real releases of torch, one environment at a time; the table in docs/torch-releases.md.

    python tools/torch_releases.py                # every release in the table
    python tools/torch_releases.py 2.5.1 2.14.1

Run by hand before a release of fusedstep: torch from PyPI brings 3 to 6 GB of CUDA libraries, which take one to three
minutes to install; each environment is removed before the next one is made. The table is written after every release,
so that what has been run is kept. Exits with an error if a test failed. Needs a C++ compiler and pip.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
import venv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "torch-releases.md"
RELEASES = ("2.5.1", "2.6.0", "2.9.1", "2.11.0", "2.13.0", "2.14.1")
TESTS = ("test_layout.py", "test_threads.py", *sorted(p.name for p in (ROOT / "tests").glob("test_torch*.py")))
ASK = """
import numpy, torch
api = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
print(torch.__version__, numpy.__version__, "exchange API" if api else "attributes")
"""
HEAD = """# Tested releases of torch

`python tools/torch_releases.py` installs each release from PyPI into an environment of its own, and runs the tests of
everything that touches torch on the CPU: {tests}.
"Reads tensors by" is how this torch hands them out: DLPack's C exchange API, or the attributes of a tensor.

| torch | NumPy | Python | reads tensors by | passed | failed | skipped | fusedstep | date |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass
class Row:
    release: str
    cells: list[str]
    failed: int
    reasons: Counter[str] = field(default_factory=Counter)


def output(*command: str | Path) -> str:
    return subprocess.run(
        [str(c) for c in command], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


def make_wheel(folder: Path) -> Path:
    output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    return next(folder.glob("fusedstep-*.whl"))


def run_tests(python: Path, report: Path) -> tuple[int, int, Counter[str]]:
    """Passed, failed, and reasons for what was skipped."""
    tests = [f"tests/{name}" for name in TESTS]
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not cuda",
        f"--junitxml={report}",
        *tests,
    ]
    subprocess.run(command, cwd=ROOT, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = Counter(node.get("message", "") for case in cases for node in case.iter("skipped"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    return len(cases) - failed - skipped.total(), failed, skipped


def try_release(release: str, wheel: Path, cache: bool) -> Row:
    commit, today = output("git", "rev-parse", "--short", "HEAD"), time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", *([] if cache else ["--no-cache-dir"])]
        print(f"torch {release}: installing", flush=True)
        try:
            output(*install, f"torch=={release}", "numpy", "pytest>=8", "hypothesis>=6.100", "scikit-learn>=1.4", wheel)
        except subprocess.CalledProcessError as error:
            last = (error.stderr or "").strip().splitlines()[-1:] or ["no message"]
            return Row(release, [release, "", platform.python_version(), f"not installed: {last[0]}", *[""] * 5], 1)
        version, numpy, way = output(python, "-c", ASK).split(" ", 2)
        passed, failed, skipped = run_tests(python, Path(folder) / "report.xml")
    cells = [version.split("+")[0], numpy, platform.python_version(), way, *map(str, (passed, failed, skipped.total()))]
    return Row(release, [*cells, commit, today], failed, skipped)


def kept_rows() -> dict[str, str]:
    """Lines of the table as it is, by release."""
    text = TABLE.read_text() if TABLE.exists() else ""
    return {m[1]: m[0] for m in re.finditer(r"^\| (\d[\w.]*) \|.*\|$", text, re.MULTILINE)}


def write(lines: dict[str, str], reasons: Counter[str]) -> None:
    def order(release: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", release)]

    table = "\n".join(lines[release] for release in sorted(lines, key=order))
    why = "\n".join(f"- {reason}" for reason in sorted(reasons))
    note = f"\nSkipped, in the releases that were run last:\n\n{why}\n" if why else ""
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(HEAD.format(tests=", ".join(f"`{t}`" for t in TESTS)) + table + "\n" + note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", default=RELEASES)
    parser.add_argument("--cache", action="store_true", help="let pip keep what it downloads")
    args = parser.parse_args()
    lines, reasons, failed = kept_rows(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        wheel = make_wheel(Path(folder))
        for release in args.releases:
            row = try_release(release, wheel, args.cache)
            lines[row.cells[0]] = f"| {' | '.join(row.cells)} |"
            reasons += row.reasons
            failed += [release] * bool(row.failed)
            write(lines, reasons)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
