"""One optimizer step of fusedstep beside what one would use instead, and beside what the machine can do.

Measures every contender that is installed, in turns, on the same memory, and prints times, ratios, bandwidth and the
share of the memory limit. bench/README.md explains the method and how to read the figures.

Examples:
  python bench/compare.py --quick                                   under two minutes
  python bench/compare.py --set 16bit --threads 2                   bfloat16 and float16 beside float32 and the peers
  python bench/compare.py --set family --threads 2                  rules without fused kernels in torch, and packages
  python bench/compare.py --set rides --threads 2                   EMA, masks, L1, statistics: in the step, after it
  python bench/compare.py --json results/mine.json                  everything, under 15 minutes on two cores
  python bench/compare.py --rules AdamW RMSprop --shapes gpt2 sb3 --clip on --dtypes float32 float64
  python bench/compare.py --rules AdamW --shapes 1x1000 10x1000 my-model.json --peers "torch fused" numpy
  python bench/compare.py --quick --against results/zen4.json       what got worse since; exit status 1 if anything
  python bench/compare.py --load new.json --against old.json        the same of two results, without measuring
  python bench/plot.py results/mine.json                            pictures of a result
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

import fusedstep
from harness import cases as grid
from harness import report, results
from harness.cases import DTYPES, Case, read_shapes, rules, shape_names
from harness.peers import all_peers
from harness.results import label
from harness.run import Runner
from machine import command, describe, versions

BENCH = Path(__file__).resolve().parent
QUICK_SECONDS, FULL_SECONDS = 85.0, 660.0
STARTING = 5.0  # seconds before the first case: imports of peers
LATE = 0.08  # of the budget: how far the last cases may exceed it before they are left out


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    many: dict[str, Any] = {"nargs": "+", "default": None}
    parser.add_argument("--quick", action="store_true", help="a few rules and sets of shapes, without what compiles")
    parser.add_argument("--set", choices=grid.SETS, help="cases that are listed in harness/cases.py")
    parser.add_argument("--rules", **many, choices=rules(), metavar="RULE", help="of: " + ", ".join(rules()))
    parser.add_argument("--shapes", **many, metavar="SET", help=f"{', '.join(shape_names())}, 300x1000, a .json file")
    parser.add_argument("--dtypes", **many, choices=DTYPES, help="default: float32")
    parser.add_argument("--states", **many, choices=DTYPES, help="dtypes of fusedstep's state; default: its default")
    parser.add_argument("--clip", choices=["both", "on", "off"], default="both", help="to a global norm")
    parser.add_argument("--threads", **many, type=int, choices=range(1, 1025), metavar="N", help="default: torch's")
    parser.add_argument("--targets", **many, choices=fusedstep.targets(), help="default: the preferred one")
    parser.add_argument("--devices", **many, choices=["cpu", "cuda"], help="default: cuda too where there is one")
    parser.add_argument("--peers", **many, choices=all_peers(), metavar="PEER", help="of: " + ", ".join(all_peers()))
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of measuring; shared by the cases")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result here; a name alone: bench/results")
    parser.add_argument("--load", type=Path, metavar="PATH", help="show this result, measure nothing")
    parser.add_argument("--against", type=Path, metavar="PATH", help="an older result: name what got worse")
    args = parser.parse_args()
    args.selectors = any((args.rules, args.shapes, args.dtypes, args.states, args.targets, args.clip != "both"))
    if args.set and (args.selectors or args.quick):
        parser.error("argument --set: its cases are listed, so --quick, --rules and the like select nothing")
    try:
        args.sets = [read_shapes(name) for name in args.shapes or ("32M", "300x1000")]
        args.before = results.load(found(args.against)) if args.against else None
        args.loaded = results.load(found(args.load)) if args.load else None
        if args.json is not None:
            args.json = BENCH / "results" / args.json if args.json.parent == Path() else found(args.json)
            if not args.json.parent.is_dir():
                raise ValueError(f"argument --json: no folder {str(args.json.parent)!r}")
            if args.json.exists():
                results.load(args.json)  # another file is not written over
    except ValueError as error:
        parser.error(str(error))
    if args.budget is not None and not 0 < args.budget < 1e6:
        parser.error(f"argument --budget: {args.budget} is not between 0 and 1,000,000")
    args.budget = args.budget or (QUICK_SECONDS if args.quick else FULL_SECONDS)
    if args.devices is None:
        args.devices = ["cpu", "cuda"] if gpu() else ["cpu"]
    elif "cuda" in args.devices and not gpu():
        parser.error("argument --devices: no CUDA device here, or a build of fusedstep without CUDA")
    return args


def found(path: Path) -> Path:
    """As named, or in bench/, so that ``results/X.json`` works from anywhere."""
    return path if path.exists() or not (BENCH / path).parent.is_dir() else BENCH / path


def gpu() -> bool:
    built = fusedstep._core.cuda not in ("", "host")
    return torch.cuda.is_available() and built and fusedstep._core.cuda_devices() > 0


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases of this run."""
    targets = [fusedstep.active_target(), *(t for t in fusedstep.targets() if t != fusedstep.active_target())]
    cases: list[Case] = []
    for device in args.devices:
        if args.set:
            cases += [case.but(threads=n) for n in args.threads or [None] for case in grid.SETS[args.set](device)]
            continue
        if not args.selectors and not args.threads:
            cases += grid.quick(device) if args.quick else grid.full(device, targets)
            continue
        names = args.rules or (grid.COMMON if args.quick else list(rules()))
        clips = {"both": (False, True), "on": (True,), "off": (False,)}[args.clip]
        on_cpu = device == "cpu"
        every = itertools.product(
            args.dtypes or ["float32"], args.states or [None], (on_cpu and args.threads) or [None],
            (on_cpu and args.targets) or [None], args.sets, names, clips,
        )  # fmt: skip
        new = [Case(rules()[r], s, dt, clip, device, n, target, st) for dt, st, n, target, s, r, clip in every]
        cases += [c.but(state=None) if c.rule.clips_alone else c for c in new if c.clip or not c.rule.clips_alone]
    return list(dict.fromkeys(cases))


def left_out(name: str, quick: bool) -> str | None:
    """Why a peer takes part only if it is named."""
    peer = all_peers()[name]
    if getattr(peer, "compiled", False):
        return "left out: compiles for each case; name it in --peers"
    built = not quick or getattr(peer, "is_built", lambda: True)()
    return None if built else "left out of --quick: is not built, which takes minutes"


def part(path: Path) -> Path:
    """Where a result is until it is whole."""
    return path.with_name(path.name + ".part")


def save(result: dict[str, Any], path: Path) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    new.replace(path)


def measure(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], int]:
    """The result, and the exit status: 0 if it is whole, 1 if cases were left out, 130 if it was interrupted."""
    begun = time.perf_counter()
    peers = list(dict.fromkeys(["fusedstep", *(args.peers or all_peers())]))
    absent = {p: why for p in peers if not args.peers and (why := left_out(p, args.quick))}
    least, setup = (3, 10) if args.quick else (5, 30)
    runner = Runner([p for p in peers if p not in absent], least=least, setup=setup)
    cases, here = chosen(args), [p for p in runner.peers if p not in runner.missing]
    expected = datetime.timedelta(seconds=round(args.budget + STARTING))
    console.print(f"{len(cases)} cases, {len(here)} contenders and the limit: takes about {expected}", highlight=False)
    taking_part = [all_peers()[name] for name in here]
    result: dict[str, Any] = {
        "schema": results.SCHEMA,
        "command": command("bench/compare.py"),
        "date": datetime.date.today().isoformat(),
        "machine": {**describe(), "load": round(os.getloadavg()[0], 2)},
        "versions": versions(*(p.distribution for p in taking_part if p.distribution))
        | {p.name: str(p.version) for p in taking_part if hasattr(p, "version")},
        "missing": {**runner.missing, **absent},
        "cases": [],
    }
    status, start = 0, time.perf_counter()
    try:
        # Not refreshed by a thread of its own, which would run beside the steps.
        for number, case in enumerate(track(cases, "measuring", console=console, auto_refresh=False)):
            left = args.budget - (time.perf_counter() - start)
            if left < -LATE * args.budget:
                result["left_out"] = [label(case.describe()) for case in cases[number:]]
                console.print(f"[red]out of time[/]: {len(cases) - number} cases were not measured")
                status = 1
                break
            # About half of a case's time goes into setting up, checking and the host's part.
            result["cases"].append(runner.run(case, max(0.0, 0.5 * left / (len(cases) - number))))
            if args.json:  # a run that is killed leaves what it had
                save(result, part(args.json))
    except KeyboardInterrupt:
        console.print("interrupted: showing what was measured")
        status = 130
    console.print(f"took {datetime.timedelta(seconds=round(time.perf_counter() - begun))}", highlight=False)
    return result, status


def main() -> int:
    args = parse()
    console = Console(width=220 if not sys.stdout.isatty() else None)
    warnings.simplefilter("ignore")  # of the peers' own making, as are torch's log messages
    logging.getLogger("torch").setLevel(logging.ERROR)
    result, status = (args.loaded, 0) if args.loaded else measure(args, console)
    if args.json is not None and (args.loaded or status == 0 or not args.json.exists()):
        save(result, args.json)
        part(args.json).unlink(missing_ok=True)
    report.show(result, console)
    if args.json is not None:
        kept = args.json if not part(args.json).exists() else f"{part(args.json)}, since {args.json.name} is whole"
        console.print(f"result: {kept}")
    if args.before is None:
        return status
    worse, notes, common = results.against(args.before, result)
    for line in notes:
        console.print(line, highlight=False)
    for line in worse:
        console.print(f"[red]slower than before[/] {line}", highlight=False)
    if not common:
        console.print("[red]nothing to compare[/]: the results have no case with times in common")
    elif not worse:
        console.print("nothing got slower beyond the noise")
    return 1 if worse else 3 if not common else status


if __name__ == "__main__":
    raise SystemExit(main())
