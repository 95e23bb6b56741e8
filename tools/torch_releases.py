"""The torch tests on real releases of torch, one environment at a time; the table in docs/torch-releases.md.

    python tools/torch_releases.py                # every release in the table
    python tools/torch_releases.py 2.5.1 2.14.1

Run by hand before a release of fusedstep: torch from PyPI brings 3 to 6 GB of CUDA libraries, which take one to three
minutes to install; each environment is removed before the next one is made. They are made where TMPDIR says. The table
is written after every release, so that what has been run is kept. Exits with an error if a test failed. Needs a C++
compiler and pip.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "torch-releases.md"
RELEASES = ("2.5.1", "2.6.0", "2.9.1", "2.11.0", "2.13.0", "2.14.1")
TESTS = ("torch", "distributed", "core/test_layout.py", "core/test_threads.py")  # of tests/
# The extra "test" with another torch.
BESIDE = ("numpy", "filelock>=3.12", "hypothesis>=6.100", "pytest>=8", "scikit-learn>=1.4")
LIMIT = 3600  # seconds for the tests of one release
ASK = """
import numpy, torch
api = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
print(torch.__version__, numpy.__version__, "exchange API" if api else "attributes")
"""
HEAD = """# Tested releases of torch

`python tools/torch_releases.py` installs each release from PyPI into an environment of its own, and runs the tests of
everything that touches torch on the CPU:

{tests}

"Reads tensors by" is how this torch hands them out: DLPack's C exchange API, or the attributes of a tensor. "And
changes" beside a commit of fusedstep: not all that was tested is in it.

| torch | NumPy | Python | reads tensors by | passed | failed | skipped | fusedstep | date |
|---|---|---|---|---|---|---|---|---|
"""
REASONS = "\nSkipped:\n\n"


def output(*command: str | Path) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def commit() -> str:
    """What is tested, marked where it is not what was committed."""
    changed = output("git", "status", "--porcelain", "--", "csrc", "python", "tests", "CMakeLists.txt")
    return output("git", "rev-parse", "--short=7", "HEAD") + " and changes" * bool(changed)


def make_wheel(folder: Path) -> Path:
    output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    return next(folder.glob("fusedstep-*.whl"))


def run_tests(python: Path, report: Path) -> tuple[int, int, Counter[str]]:
    """Passed, failed, and reasons for what was skipped."""
    options = ["-q", "-p", "no:cacheprovider", "--full", "-m", "not cuda", f"--junitxml={report}"]
    command = [str(python), "-m", "pytest", *options, *(f"tests/{name}" for name in TESTS)]
    try:
        status = subprocess.run(command, cwd=ROOT, check=False, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        status = 124
    if not report.exists():  # the process crashed or hung
        print(f"pytest ended with status {status} and no report", flush=True)
        return 0, 1, Counter()
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = Counter(node.get("message", "") for case in cases for node in case.iter("skipped"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    return len(cases) - failed - skipped.total(), failed + (status not in (0, 1)), skipped


def try_release(release: str, wheel: Path, cache: bool) -> tuple[list[str], bool, Counter[str]]:
    """The cells of its row, whether all went well, and reasons for what was skipped."""
    tested = [commit(), time.strftime("%Y-%m-%d")]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "-q", *([] if cache else ["--no-cache-dir"])]
        print(f"torch {release}: installing", flush=True)
        try:
            output(*install, f"torch==={release}", *BESIDE, wheel)  # ===: no other build of the same release
        except subprocess.CalledProcessError as error:
            print(error.stderr, f"pip ended with status {error.returncode}", flush=True)
            why = "no wheel for this Python" if "No matching distribution" in error.stderr else "does not install"
            return [release, "", platform.python_version(), why, "", "", "", *tested], False, Counter()
        version, numpy, way = output(python, "-c", ASK).split(" ", 2)
        passed, failed, skipped = run_tests(python, Path(folder) / "report.xml")
    counts = map(str, (passed, failed, skipped.total()))
    return [version, numpy, platform.python_version(), way, *counts, *tested], not failed, skipped


def kept() -> tuple[dict[str, str], dict[str, str]]:
    """Lines of the table as it is and of what was skipped, by release."""
    text = TABLE.read_text() if TABLE.exists() else ""
    rows = re.finditer(r"^\| (\d[\w.]*)(\+\w+)? \|.*\|$", text, re.MULTILINE)
    reasons = re.finditer(r"^- (\d[\w.]*): .*$", text, re.MULTILINE)
    return {m[1]: m[0] for m in rows}, {m[1]: m[0] for m in reasons}


def write(rows: dict[str, str], reasons: dict[str, str]) -> None:
    def ordered(lines: dict[str, str]) -> str:
        return "\n".join(lines[r] for r in sorted(lines, key=lambda r: [int(n) for n in re.findall(r"\d+", r)])) + "\n"

    TABLE.parent.mkdir(exist_ok=True)
    head = HEAD.format(tests=textwrap.fill(", ".join(f"`tests/{t}`" for t in TESTS), 120))
    TABLE.write_text(head + ordered(rows) + (REASONS + ordered(reasons) if reasons else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", default=RELEASES)
    parser.add_argument("--cache", action="store_true", help="let pip keep what it downloads")
    args = parser.parse_args()
    (rows, reasons), failed = kept(), []
    with tempfile.TemporaryDirectory() as folder:
        wheel = make_wheel(Path(folder))
        for release in args.releases:
            cells, good, skipped = try_release(release, wheel, args.cache)
            rows[release] = f"| {' | '.join(cells)} |"
            reasons.pop(release, None)
            if skipped:
                why = "; ".join(f"{reason} ({count})" for reason, count in skipped.most_common())
                reasons[release] = f"- {release}: {why}"
            failed += [release] * (not good)
            write(rows, reasons)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
