"""Everything to be checked where there is a GPU: builds, tests, measures, and writes JSON.

    python tools/gpu_check.py --out bench/results

Works offline, given the build requirements, torch with CUDA, pytest, hypothesis and rich. Runs ``pytest -m cuda``, the
CPU tests, ``compute-sanitizer`` (memcheck, racecheck, synccheck) on short runs where it is installed, and
``bench/compare.py`` on the GPU and on the CPU. Ends with an error if anything failed, after running the rest.
``--only`` and ``--skip`` split it where a command may not take long; ``--limit`` ends each step, ``--budget`` the
measuring, ``--jobs`` spreads the tests over processes (pytest-xdist).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SANITIZED = "(equals_the_cpu and float32) or layouts or clipping"  # of tests/test_gpu.py
STEPS = ["build", "cuda", "cpu", "memcheck", "racecheck", "synccheck", "bench", "cpu-bench"]


def run(command: list[str], log: Path, limit: float | None, **env: str) -> dict[str, Any]:
    print("$", " ".join(command), flush=True)
    start = time.perf_counter()
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env}) as process,
    ):
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            code = 124
    tail = log.read_text()[-1500:]
    print(tail, flush=True)
    return {"command": command, "code": code, "seconds": round(time.perf_counter() - start, 1), "tail": tail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder for JSON and logs")
    parser.add_argument("--quick", action="store_true", help="the short benchmarks")
    parser.add_argument("--only", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--skip", nargs="+", default=[], choices=STEPS)
    parser.add_argument("--budget", type=float, help="seconds that each benchmark measures")
    parser.add_argument("--limit", type=float, help="seconds that a step may take")
    parser.add_argument("--jobs", type=int, default=0, help="test processes; needs pytest-xdist")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    compare = [python, "bench/compare.py", *(["--quick"] if args.quick else [])]
    compare += ["--budget", str(args.budget)] if args.budget else []
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    parallel = ["-n", str(args.jobs), "-p", "no:benchmark"] if args.jobs else []
    sanitizer = shutil.which("compute-sanitizer")
    commands: dict[str, list[str]] = {
        "build": [
            *(python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--force-reinstall", "."),
            *("-C", "cmake.define.FUSEDSTEP_CUDA=ON", "-C", "cmake.define.CMAKE_CUDA_ARCHITECTURES=native"),
        ],
        "cuda": [*pytest, *parallel, "-m", "cuda"],
        "cpu": [*pytest, *parallel, "-m", "not cuda"],
        "bench": [*compare, "--devices", "cuda", "--json", str(args.out.resolve() / "cuda.json")],
        "cpu-bench": [*compare, "--devices", "cpu", "--json", str(args.out.resolve() / "cpu.json")],
    }
    for tool in ("memcheck", "racecheck", "synccheck"):
        if sanitizer:
            commands[tool] = [sanitizer, "--tool", tool, "--error-exitcode", "9", *pytest, "tests/test_gpu.py"]
            commands[tool] += ["-k", SANITIZED]
    # Without torch's cache every tensor is an allocation of its own, whose ends memcheck knows.
    env = {"memcheck": {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}}
    wanted = [name for name in STEPS if name in args.only and name not in args.skip and name in commands]
    results = {name: run(commands[name], args.out / f"{name}.log", args.limit, **env.get(name, {})) for name in wanted}
    if "cuda" in results and not re.search(r"[1-9]\d* passed", results["cuda"]["tail"]):
        results["cuda"]["code"] = results["cuda"]["code"] or 1  # all skipped is no success
    (args.out / "gpu_check.json").write_text(json.dumps({"sanitizer": sanitizer or "not installed", "steps": results}))
    failed = [name for name, r in results.items() if r["code"] != 0]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
