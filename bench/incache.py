"""Time of every kernel on one tensor that stays in cache, per target: the lanes are measured, not the memory.

    python bench/incache.py                                     L1 and L2, a few minutes
    python bench/incache.py --quick                             few rounds; a smoke test, not figures
    python bench/incache.py --json bench/results/incache.json

Builds bench/incache.cpp with CMake, with the targets of this machine and, to compare with, the scalar lanes as the
compiler vectorises them at the same flags (plain_avx2, plain_avx512). Targets take turns (A B A B ...); figures are
medians of nanoseconds per 1,000 elements with the spread from the first to the third quartile, on one thread. In a
norm everything is one block of 2,048 elements.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from arguments import integer
from machine import processor

ROOT = Path(__file__).parents[1]
SIZES = {"L1": 16 * 1024, "L2": 256 * 1024}  # bytes of all arrays together: half of the smallest caches in use


def build(folder: Path) -> Path:
    if shutil.which("cmake") is None:
        sys.exit("needs cmake (pip install cmake) and a C++ compiler")
    options = ["-DFUSEDSTEP_PROGRAMS=ON", "-DFUSEDSTEP_PLAIN_LOOPS=ON", "-DSKBUILD_PROJECT_VERSION=0"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *options], check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", folder, "--target", "incache", "--parallel", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "incache"


def show(results: list[dict[str, Any]], cache: str, dtype: str, console: Console) -> None:
    rows = [r for r in results if (r["cache"], r["dtype"]) == (cache, dtype)]
    targets = list(rows[0]["samples"])
    table = Table(title=f"ns per 1,000 elements, {dtype} in {cache}")
    table.add_column("kernel")
    for target in targets:
        table.add_column(target, justify="right")
    for r in rows:
        quartiles = {t: quantiles(r["samples"][t], n=4) for t in targets}
        best = min(q[1] for q in quartiles.values())
        cells = []
        for low, middle, high in quartiles.values():
            text = f"{middle:.0f} ±{(high - low) / 2:.0f}" if middle >= 100 else f"{middle:.1f} ±{(high - low) / 2:.1f}"
            cells.append(f"[bold]{text}[/]" if middle == best else text)
        table.add_row(r["name"], *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caches", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=integer(3, 10**5), default=201)
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--json", type=Path, help="write raw samples and the machine here")
    args = parser.parse_args()
    console = Console(width=140 if not sys.stdout.isatty() else None)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        task = progress.add_task("building", total=None)
        program = build(Path(folder))
        for cache in args.caches:
            progress.update(task, description=cache)
            command = [str(program), str(SIZES[cache]), str(5 if args.quick else args.rounds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    results.append({"cache": cache, **json.loads(line)})
                    progress.update(task, description=f"{cache}, {results[-1]['dtype']}, {results[-1]['name']}")
            if process.returncode != 0:
                sys.exit(f"incache ended with status {process.returncode}")
    for cache in args.caches:
        for dtype in ("float32", "float64"):
            show(results, cache, dtype, console)
    console.print(processor())
    if args.json:
        command_line = "python bench/incache.py " + " ".join(sys.argv[1:])
        args.json.write_text(json.dumps({"processor": processor(), "command": command_line, "results": results}))


if __name__ == "__main__":
    main()
