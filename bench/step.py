"""Time of one optimizer step against torch's own implementations and the machine's memory limit.

    python bench/step.py                    all cases, about ten minutes on two cores
    python bench/step.py --quick            smaller tensors and fewer rounds, under a minute; a smoke test, not figures
    python bench/step.py --rules AdamW --shapes 32M --json adamw.json

Contenders take turns (A B C A B C ...), so that noise hits all alike; times are medians, and only ratios within one run
mean something. All update the same parameters and state: memory and caches are the same for all, and warmer than in
training where a model fits them. Before timing, one step is compared with torch's. "stream" reads and writes as many
arrays as the rule and computes next to nothing: the memory limit. Rows with "+ clip" clip to a global norm: torch with
clip_grad_norm_, fusedstep within the step.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fusedstep
import fusedstep.torch as fs
from arguments import integer
from machine import processor

RULES: dict[str, tuple[str, dict[str, Any], int]] = {  # class, options, state arrays
    "SGD": ("SGD", {"lr": 1e-3}, 0),
    "SGD momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}, 1),
    "Adagrad": ("Adagrad", {}, 1),
    "RMSprop": ("RMSprop", {"lr": 1e-4}, 1),
    "RMSprop centered momentum": ("RMSprop", {"lr": 1e-4, "centered": True, "momentum": 0.9}, 3),
    "Adam": ("Adam", {}, 2),
    "AdamW": ("AdamW", {}, 2),
}
# GPT-2 small (openai-community/gpt2, config.json: 12 layers, width 768, 50,257 tokens, 1,024 positions).
GPT2 = [(50257, 768), (1024, 768), (768,), (768,)] + 12 * [
    (768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)
]  # fmt: skip
SHAPES: dict[str, list[tuple[int, ...]]] = {"32M": [(32 * 2**20,)], "300x1000": [(1000,)] * 300, "GPT-2": GPT2}
QUICK: dict[str, list[tuple[int, ...]]] = {"32M": [(2**20,)], "300x1000": [(1000,)] * 300, "GPT-2": GPT2[1:16]}

# Section 9 of the first milestone: case, which contender fusedstep is measured against, least ratio.
GOALS = [
    ("AdamW", "32M", False, "fused", 0.95),
    ("AdamW", "32M", False, "stream", 0.88),
    ("AdamW", "300x1000", False, "fused", 15.0),
    ("AdamW", "GPT-2", True, "fused", 1.5),
    ("RMSprop", "32M", False, "fastest", 5.0),
    ("Adagrad", "32M", False, "default", 5.0),
    ("RMSprop", "32M", False, "default", 5.0),
    ("Adam", "32M", False, "default", 5.0),
    ("AdamW", "32M", False, "default", 5.0),
    ("SGD", "32M", False, "default", 1.0),
    ("SGD momentum", "32M", False, "default", 1.0),
]


def load_stream() -> Callable[..., int] | None:
    """Compiles stream.cpp; None without a compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    library = Path(tempfile.mkdtemp()) / "stream.so"
    source = Path(__file__).with_name("stream.cpp")
    flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).stream_arrays
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int]
    return function


def make_params(shapes: list[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 1e-3
    return params


def clone(params: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    for c, p in zip(copies, params, strict=True):
        c.grad = p.grad.clone()
    return copies


def contenders(
    rule: str, params: list[torch.nn.Parameter], clip: bool, stream: Callable[..., int] | None
) -> dict[str, Callable[[], Any]]:
    name, options, states = RULES[rule]
    ours = getattr(fs, name)(params, **options, max_norm=1.0 if clip else None)
    ours.step()  # creates its state
    out: dict[str, Callable[[], Any]] = {"fusedstep": ours.step}
    for kind, flags in (("default", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
        if kind == "fused" and name == "RMSprop":
            continue  # torch has none
        theirs = getattr(torch.optim, name)(params, **options, **flags)
        # The same state tensors for all: where an allocation lands in memory can change a time by half.
        theirs.state = ours.state

        def step(theirs: torch.optim.Optimizer = theirs, foreach: bool = kind == "foreach") -> None:
            if clip:
                torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=foreach or None)
            theirs.step()

        out[kind] = step
    if stream is not None and not clip and len(params) == 1:
        arrays = [torch.zeros_like(params[0]) for _ in range(2 + states)]
        pointers = (ctypes.c_void_p * len(arrays))(*(a.data_ptr() for a in arrays))
        threads = torch.get_num_threads()

        def run(keep: list[torch.Tensor] = arrays) -> None:
            assert stream(pointers, 2 + states, 1 + states, keep[0].numel(), threads) == 0

        out["stream"] = run
    return out


def check(rule: str, shapes: list[tuple[int, ...]], clip: bool) -> None:
    """One step of both from the same start, before anything is timed."""
    a = make_params([s for s in shapes if torch.Size(s).numel() < 10**6] or [(10**5,)])
    b = clone(a)
    name, options, _ = RULES[rule]
    if clip:
        torch.nn.utils.clip_grad_norm_(b, 1.0)
    getattr(fs, name)(a, **options, max_norm=1.0 if clip else None).step()
    getattr(torch.optim, name)(b, **options, foreach=False).step()
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def measure(entries: dict[str, Callable[[], Any]], seconds: float, least: int) -> dict[str, list[float]]:
    for step in entries.values():  # state is created in the first step
        step()
        step()
    samples: dict[str, list[float]] = {name: [] for name in entries}
    start = time.perf_counter()
    while len(samples["fusedstep"]) < least or time.perf_counter() - start < seconds:
        for name, step in entries.items():
            begin = time.perf_counter()
            step()
            samples[name].append(time.perf_counter() - begin)
    return samples


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table(title="One step, milliseconds (median); x: times the time of fusedstep")
    for column in ("case", "fusedstep", "torch fused", "torch foreach", "torch default", "stream", "fastest torch"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for r in results:
        ms = {k: median(v) * 1e3 for k, v in r["samples"].items()}
        ours = ms["fusedstep"]
        cells = [f"{ms[k]:.3g} ({ms[k] / ours:.2f}x)" if k in ms else "-" for k in ("fused", "foreach", "default")]
        limit = f"{ms['stream']:.3g} ({ms['stream'] / ours:.2f}x)" if "stream" in ms else "-"
        table.add_row(label(r), f"{ours:.3g}", *cells, limit, f"{fastest(ms) / ours:.2f}x")
    console.print(table)


def label(r: dict[str, Any]) -> str:
    return f"{r['rule']}, {r['shapes']}{' + clip' if r['clip'] else ''}"


def fastest(ms: dict[str, float]) -> float:
    return min(v for k, v in ms.items() if k in ("fused", "foreach", "default"))


def show_goals(results: list[dict[str, Any]], console: Console) -> None:
    table = Table(title="Goals: time of the other / time of fusedstep")
    for column in ("case", "against", "goal", "measured", ""):
        table.add_column(column)
    by_case = {(r["rule"], r["shapes"], r["clip"]): r for r in results}
    for rule, shapes, clip, against, goal in GOALS:
        r = by_case.get((rule, shapes, clip))
        if r is None:
            continue
        ms = {k: median(v) for k, v in r["samples"].items()}
        if against != "fastest" and against not in ms:
            continue
        ratio = (fastest(ms) if against == "fastest" else ms[against]) / ms["fusedstep"]
        table.add_row(label(r), against, f">= {goal:g}", f"{ratio:.2f}", "" if ratio >= goal else "falls short")
    slower = []
    for r in results:
        ms = {k: median(v) for k, v in r["samples"].items()}
        if fastest(ms) < 0.97 * ms["fusedstep"]:
            slower.append(f"{label(r)} ({fastest(ms) / ms['fusedstep']:.2f})")
    console.print(table)
    console.print("Slower than torch's fastest by more than 3%: " + (", ".join(slower) or "none"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--clip", choices=["both", "on", "off"], default="both")
    parser.add_argument("--threads", type=integer(1, 4096), default=None, help="default: torch's own choice")
    parser.add_argument("--seconds", type=float, default=6.0, help="measuring time per case")
    parser.add_argument("--quick", action="store_true", help="small tensors, few rounds")
    parser.add_argument("--json", type=Path, help="write raw samples, machine and versions here")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    console = Console(width=140 if not sys.stdout.isatty() else None)
    stream = load_stream()
    seconds, least = (0.2, 3) if args.quick else (args.seconds, 7)
    clips = {"both": [False, True], "on": [True], "off": [False]}[args.clip]
    cases = [(r, s, c) for s in args.shapes for r in args.rules for c in clips]
    results: list[dict[str, Any]] = []
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("", total=len(cases))
            for rule, shapes, clip in cases:
                progress.update(task, description=f"{rule}, {shapes}{' + clip' if clip else ''}")
                list_of_shapes = (QUICK if args.quick else SHAPES)[shapes]
                check(rule, list_of_shapes, clip)
                entries = contenders(rule, make_params(list_of_shapes), clip, stream)
                samples = measure(entries, seconds, least)
                results.append({"rule": rule, "shapes": shapes, "clip": clip, "samples": samples})
                progress.advance(task)
    except KeyboardInterrupt:
        console.print("interrupted: showing what was measured")
    show(results, console)
    show_goals(results, console)
    machine = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "target": fusedstep.active_target(),
        "versions": {"fusedstep": fusedstep.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "command": "python bench/step.py " + " ".join(sys.argv[1:]),
    }
    console.print(machine)
    if args.json:
        args.json.write_text(json.dumps({**machine, "results": results}))


if __name__ == "__main__":
    main()
