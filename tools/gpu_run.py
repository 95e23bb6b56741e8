"""What gpu_correctness.py and gpu_speed.py share: cases that run one by one, each saved when it ends."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 350.0  # seconds of one call: below 6 minutes


@dataclass(frozen=True)
class Case:
    """A command that has to end with status 0; ``{out}`` in it is the folder of results."""

    name: str
    about: str
    command: tuple[str, ...]
    limit: float = 120.0  # seconds
    env: Mapping[str, str] = field(default_factory=dict)
    program: str = ""  # that it needs on the PATH
    module: str = ""  # and in Python

    def lacks(self) -> str:
        """What is not installed here that the case needs."""
        if self.program and shutil.which(self.program) is None:
            return self.program
        return self.module if self.module and find_spec(self.module) is None else ""


def run(case: Case, out: Path, limit: float) -> dict[str, Any]:
    """Run a case, its output into a log; its status, 124 where its time was up."""
    command = [part.replace("{out}", str(out)) for part in case.command]
    log, start = out / f"{case.name}.log", time.perf_counter()
    with log.open("w") as file:
        try:
            environment = {**os.environ, **case.env}
            done = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=limit, check=False
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = 124
    return {"command": command, "code": code, "seconds": round(time.perf_counter() - start, 1), "log": log.name}


def run_all(cases: list[Case], out: Path, budget: float, again: bool) -> int:
    """Those that have not passed yet, until the time is up; 0 if all that can run here have passed."""
    out.mkdir(parents=True, exist_ok=True)
    file, start = out / "cases.json", time.perf_counter()
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    open_cases = []
    for case in cases:
        left = budget - (time.perf_counter() - start)
        if not again and results.get(case.name, {}).get("code") == 0:
            print(f"{case.name}: passed before", flush=True)
            continue
        if lacks := case.lacks():
            results[case.name] = {"lacks": lacks}
            print(f"{case.name}: not run, {lacks} is not installed", flush=True)
        elif left < 1:
            open_cases.append(case.name)
            print(f"{case.name}: not run, the time is up", flush=True)
        else:
            results[case.name] = run(case, out, min(case.limit, left))
            code = results[case.name]["code"]
            print(f"{case.name}: {'passed' if code == 0 else f'status {code}'}", flush=True)
            if code:
                open_cases.append(case.name)
                print((out / f"{case.name}.log").read_text(errors="replace")[-1500:], flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    if open_cases:
        print(f"to be run again: --cases {' '.join(open_cases)}")
    return int(bool(open_cases))


def main(doc: str, cases: list[Case], out: Path) -> int:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in cases]
    parser.add_argument("--list", action="store_true", help="say which cases there are, and run none")
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--again", action="store_true", help="run what has passed before, too")
    args = parser.parse_args()
    chosen = [case for case in cases if case.name in args.cases]
    if args.list:
        for case in chosen:
            print(f"{case.name:18} {case.about}")
        return 0
    return run_all(chosen, args.out.resolve(), args.budget, args.again)


def python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)
