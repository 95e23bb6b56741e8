"""One optimizer step of fusedstep beside what one would use instead, and beside what the machine can do.

Measures every contender that is installed, in turns, on the same memory, and prints times, ratios, bandwidth and the
share of the memory limit. bench/README.md explains the method and how to read the figures.

Examples:
  python bench/compare.py --quick                                   under two minutes
  python bench/compare.py --json results/mine.json                  everything, under 15 minutes on two cores
  python bench/compare.py --rules AdamW RMSprop --shapes gpt2 --clip on --dtypes float32 float64
  python bench/compare.py --shapes my-model.json --peers "torch fused" "torch default"
  python bench/compare.py --sweeps tensors --rules AdamW
  python bench/compare.py --quick --against results/zen4.json       what got worse since; exit status 1 if anything
  python bench/compare.py --load new.json --against old.json        the same of two results, without measuring
  python bench/plot.py results/mine.json                            pictures of a result
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import fusedstep
from arguments import integer
from harness import against, grid, limits, report, results
from harness.cases import DTYPES, Case, read_shapes, rules, shape_names
from harness.peers import Unavailable, all_peers
from harness.run import Runner, first_line
from machine import describe, versions

BENCH = Path(__file__).resolve().parent
QUICK_SECONDS, FULL_SECONDS = 90.0, 780.0
SLOW_TO_SET_UP = ("torch compiled", "torchao 8-bit", "torchao 4-bit", "torchao fp8")  # compile for each case


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    many: dict[str, Any] = {"nargs": "+", "default": None}
    parser.add_argument("--quick", action="store_true", help="three rules, two sets of shapes, without what compiles")
    parser.add_argument("--rules", **many, metavar="RULE", help="of: " + ", ".join(rules()))
    parser.add_argument("--shapes", **many, metavar="SET", help=f"of: {', '.join(shape_names())}; or a .json file")
    parser.add_argument("--dtypes", **many, metavar="DTYPE", help=f"of: {', '.join(DTYPES)}; default float32")
    parser.add_argument("--clip", choices=["both", "on", "off"], default="both", help="to a global norm")
    parser.add_argument("--threads", **many, type=integer(1, 4096), metavar="N", help="default: as torch has it")
    parser.add_argument("--targets", **many, metavar="TARGET", help="of: " + ", ".join(fusedstep.targets()))
    parser.add_argument("--devices", **many, choices=["cpu", "cuda"], help="default: cuda too where there is one")
    parser.add_argument("--cache", choices=["warm", "cold", "both"], default="warm", help="cold: scrubbed each time")
    parser.add_argument("--peers", **many, metavar="PEER", help="of: " + ", ".join(all_peers()))
    parser.add_argument("--sweeps", nargs="*", choices=grid.SWEEPS, help="default: all in a full run, else none")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of measuring; shared by the cases")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result here; a name alone: bench/results")
    parser.add_argument("--load", type=Path, metavar="PATH", help="show this result, measure nothing")
    parser.add_argument("--against", type=Path, metavar="PATH", help="an older result: name what got worse")
    args = parser.parse_args()
    for option, known in (
        ("rules", list(rules())),
        ("dtypes", list(DTYPES)),
        ("peers", list(all_peers())),
        ("targets", fusedstep.targets()),
    ):
        for value in getattr(args, option) or ():
            if value not in known:
                parser.error(
                    f"argument --{option}: unknown {option[:-1]} {value!r}, expected one of: {', '.join(known)}"
                )
    try:
        args.sets = [read_shapes(name) for name in args.shapes] if args.shapes else None
        args.before = results.load(found(args.against)) if args.against else None
        args.loaded = results.load(found(args.load)) if args.load else None
    except ValueError as error:
        parser.error(str(error))
    if args.json is not None:
        args.json = BENCH / "results" / args.json if args.json.parent == Path() else args.json
        if not args.json.parent.is_dir():
            parser.error(f"argument --json: no folder {str(args.json.parent)!r}")
    if args.devices is None:
        args.devices = ["cpu", "cuda"] if gpu() else ["cpu"]
    elif "cuda" in args.devices and not gpu():
        parser.error("argument --devices: no CUDA device here, or a build of fusedstep without CUDA")
    return args


def found(path: Path) -> Path:
    """As named, or in bench/, so that ``results/X.json`` works from anywhere."""
    return path if path.exists() else BENCH / path


def gpu() -> bool:
    return torch.cuda.is_available() and bool(fusedstep._core.cuda) and fusedstep._core.cuda_devices() > 0


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases of this run, sweeps last."""
    targets = [fusedstep.active_target(), *(t for t in fusedstep.targets() if t != fusedstep.active_target())]
    asked = any(getattr(args, k) for k in ("rules", "shapes", "dtypes", "threads", "targets")) or args.sweeps
    wide = not args.quick and not asked
    cases: list[Case] = []
    for device in args.devices:
        if args.sweeps and not (args.rules or args.shapes):
            pass  # sweeps alone
        elif wide:
            cases += grid.full(device, targets)
        elif not asked:
            cases += grid.quick(device)
        else:
            names = args.rules or (["SGD momentum", "RMSprop", "AdamW"] if args.quick else list(rules()))
            sets = args.sets or [read_shapes(name) for name in ("32M", "300x1000")]
            cases += [
                Case(rules()[r], s, dtype, clip, device, threads, target)
                for dtype in args.dtypes or ["float32"]
                for threads in (args.threads or [None] if device == "cpu" else [None])
                for target in (args.targets or [None] if device == "cpu" else [None])
                for s in sets
                for r in names
                for clip in {"both": (False, True), "on": (True,), "off": (False,)}[args.clip]
            ]
        if args.cache != "warm":
            cold = [c.but(cache="cold") for c in cases if c.cache == "warm" and c.device == device]
            cases = [*cases, *cold] if args.cache == "both" else [c for c in cases if c.device != device] + cold
        for kind in args.sweeps if args.sweeps is not None else grid.SWEEPS if wide else ():
            rule = rules()[args.rules[0]] if args.rules else None
            cases += grid.sweep(kind, device, rule)
    return cases


def measure(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], bool]:
    """The result, and whether it is whole."""
    peers = args.peers or [p for p in all_peers() if not (args.quick and p in SLOW_TO_SET_UP)]
    peers = list(dict.fromkeys(["fusedstep", *peers]))
    cases = chosen(args)
    budget = args.budget or (QUICK_SECONDS if args.quick else FULL_SECONDS)
    result: dict[str, Any] = {
        "schema": results.SCHEMA,
        "command": shlex.join(["python", "bench/compare.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": {**describe(), "load": round(os.getloadavg()[0], 2)},
        "versions": {},
        "missing": {},
        "limits": {},
        "cases": [],
        "training": [],
    }
    columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn()
    whole = False
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("preparing the peers", total=len(cases))
        start = time.perf_counter()
        try:
            runner = Runner(peers, least=3 if args.quick else 5, setup=10 if args.quick else 30)
            result["missing"] = runner.missing
            for device in args.devices:
                try:
                    result["limits"][device] = limits.roofs(device)
                except Unavailable as error:
                    result["missing"]["limit"] = str(error)
            for number, case in enumerate(cases):
                name = f"{case.rule.label}, {case.shapes.name}, {case.dtype}{' + clip' * case.clip}"

                def tell(text: str, name: str = name) -> None:
                    progress.update(bar, description=f"{name}: {text}")

                runner.tell = tell
                left = max(0.0, budget - (time.perf_counter() - start))
                try:
                    # About half of a case's time goes into setting up, checking and host overhead.
                    without = SLOW_TO_SET_UP if case.sweep and not args.peers else ()
                    result["cases"].append(runner.run(case, 0.5 * left / (len(cases) - number), without))
                except Exception as error:  # of ours, or out of memory outside of any contender: the rest goes on
                    progress.console.print(f"[red]{name}[/]: {first_line(error)}", highlight=False)
                progress.advance(bar)
            whole = True
        except KeyboardInterrupt:
            progress.console.print("interrupted: showing what was measured")
    taking_part = [peer for name, peer in all_peers().items() if name in peers and name not in result["missing"]]
    result["versions"] = versions(*(p.distribution for p in taking_part if p.distribution))
    result["versions"] |= {p.name: str(p.version) for p in taking_part if hasattr(p, "version")}
    return result, whole


def main() -> int:
    args = parse()
    console = Console(width=220 if not sys.stdout.isatty() else None)
    warnings.simplefilter("ignore")  # of the peers' own making, as are torch's log messages
    logging.getLogger("torch").setLevel(logging.ERROR)
    result, whole = (args.loaded, True) if args.loaded else measure(args, console)
    report.show(result, console)
    if args.json is not None:
        if args.json.exists() and not args.loaded:
            try:  # the training runs of bench/train.py stay
                result["training"] = results.load(args.json).get("training", [])
            except ValueError:
                console.print(f"{args.json} was no result, and is replaced")
        args.json.write_text(json.dumps(result, separators=(",", ":")) + "\n")
        console.print(f"result: {args.json}")
    if args.before is None:
        return 0 if whole else 130
    worse, notes = against.compare(args.before, result)
    for line in notes:
        console.print(line, highlight=False)
    for line in worse:
        console.print(f"[red]slower than before[/] {line}", highlight=False)
    if not worse:
        console.print("nothing got slower beyond the noise")
    return 1 if worse else 0 if whole else 130


if __name__ == "__main__":
    raise SystemExit(main())
