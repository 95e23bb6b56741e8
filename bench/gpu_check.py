"""Everything to be checked where there is a GPU: builds, tests, measures, and writes JSON.

    python bench/gpu_check.py --out bench/results

Works offline, given the build requirements, torch with CUDA, pytest, hypothesis and rich. Runs ``pytest -m cuda``, the
CPU tests, ``compute-sanitizer`` (memcheck, racecheck) on short runs where it is installed, ``bench/cuda_step.py`` and
``bench/step.py``. Ends with an error if anything failed, after running the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SANITIZED = "equals_the_cpu and float32 or replays or layouts or clipping"  # of tests/test_gpu.py


def run(command: list[str], log: Path) -> dict[str, Any]:
    print("$", " ".join(command), flush=True)
    start = time.perf_counter()
    with log.open("w") as out:
        code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    tail = log.read_text()[-1500:]
    print(tail, flush=True)
    return {"command": command, "code": code, "seconds": round(time.perf_counter() - start, 1), "tail": tail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder for JSON and logs")
    parser.add_argument("--quick", action="store_true", help="small benchmarks")
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=["build", "cuda", "cpu", "sanitizer", "bench", "cpu-bench"]
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    python, quick = sys.executable, ["--quick"] if args.quick else []
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    steps: dict[str, list[str]] = {}
    if "build" not in args.skip:
        steps["build"] = [
            *(python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--force-reinstall", "."),
            *("-C", "cmake.define.FUSEDSTEP_CUDA=ON", "-C", "cmake.define.CMAKE_CUDA_ARCHITECTURES=native"),
        ]
    if "cuda" not in args.skip:
        steps["cuda"] = [*pytest, "-m", "cuda"]
    if "cpu" not in args.skip:
        steps["cpu"] = [*pytest, "-m", "not cuda"]
    sanitizer = shutil.which("compute-sanitizer")
    if "sanitizer" not in args.skip and sanitizer:
        for tool in ("memcheck", "racecheck"):
            steps[tool] = [
                sanitizer,
                "--tool",
                tool,
                "--error-exitcode",
                "9",
                *pytest,
                "tests/test_gpu.py",
                "-k",
                SANITIZED,
            ]
    if "bench" not in args.skip:
        steps["bench"] = [python, "bench/cuda_step.py", *quick, "--json", str(args.out / "cuda_step.json")]
    if "cpu-bench" not in args.skip:
        steps["cpu-bench"] = [python, "bench/step.py", *quick, "--seconds", "1", "--json", str(args.out / "step.json")]
    results = {name: run(command, args.out / f"{name}.log") for name, command in steps.items()}
    if "cuda" in results and not re.search(r"[1-9]\d* passed", results["cuda"]["tail"]):
        results["cuda"]["code"] = results["cuda"]["code"] or 1  # all skipped is no success
    (args.out / "gpu_check.json").write_text(json.dumps({"sanitizer": sanitizer or "not installed", "steps": results}))
    failed = [name for name, r in results.items() if r["code"] != 0]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
