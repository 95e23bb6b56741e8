"""Gradient release on a CPU: how much memory a training step takes above parameters and state, and how long it lasts.

python bench/release.py                          16 layers of 1024 x 1024, and 150 of 32 x 32
python bench/release.py --shapes 8x2048 --rounds 5

Linux alone. Each way of training runs in processes of its own. One is asked for the most memory that it had resident
in a step, less what was resident before: gradients, activations and whatever an optimizer needs beside them. Tensors
of 64 KB and more are given back to the system there when they are freed (MALLOC_MMAP_THRESHOLD_), so that nothing is at
hand that no statistic shows. That takes time, so times are of another process, with the allocator as it is. The
processes take turns, in an order that is drawn anew for each round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fusedstep.torch
from machine import command, describe, versions

Step = Callable[[], Any]
WARM_UP = 3  # steps that make state, and whatever else is made once


class Layers(torch.nn.Module):
    """Whose activations and gradients neither grow nor vanish."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x) / len(self.layers)
        return x


def without(model: torch.nn.Module) -> Step:
    """No update: what the others add to."""

    def step() -> None:
        for p in model.parameters():
            p.grad = None

    return step


def ordinary(model: torch.nn.Module) -> Step:
    opt = fusedstep.torch.AdamW(model.parameters())

    def step() -> None:
        opt.step()
        opt.zero_grad()

    return step


def release(model: torch.nn.Module) -> Step:
    opt = fusedstep.torch.AdamW(model.parameters())
    fusedstep.torch.release_gradients(model, opt)
    return opt.step


def torchs(model: torch.nn.Module, fused: bool) -> Step:
    from torch.distributed.optim import _apply_optimizer_in_backward

    _apply_optimizer_in_backward(torch.optim.AdamW, model.parameters(), {"fused": fused})
    return lambda: None


def optimis(model: torch.nn.Module) -> Step:
    import optimi

    opt = optimi.AdamW(model.parameters(), lr=1e-3, gradient_release=True)
    optimi.prepare_for_gradient_release(model, opt)

    def step() -> None:
        opt.step()
        opt.zero_grad()

    return step


CONTENDERS: dict[str, Callable[[torch.nn.Module], Step]] = {
    "no update": without,
    "fusedstep, ordinary step": ordinary,
    "fusedstep.torch.release_gradients": release,
    "torch _apply_optimizer_in_backward": lambda model: torchs(model, fused=False),
    "torch _apply_optimizer_in_backward, fused": lambda model: torchs(model, fused=True),
    "optimi gradient release": optimis,
}


def resident(key: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` the most since the last ``forget()``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def child(name: str, layers: int, width: int, seconds: float, threads: int) -> list[float]:
    """Of one process: memory of each of some steps above what was there before, in bytes; or times, with ``seconds``
    above 0."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Layers(layers, width)
    batch = torch.randn(8, width)
    update = CONTENDERS[name](model)

    def step() -> None:
        model(batch).square().mean().backward()
        update()

    for _ in range(WARM_UP):
        step()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        if seconds:
            start = time.perf_counter()
            step()
            found.append(time.perf_counter() - start)
        else:
            forget()
            before = resident("VmRSS")
            step()
            found.append(resident("VmHWM") - before)
    return found


ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(layers: int, width: int, rounds: int, seconds: float, threads: int) -> dict[str, dict[str, Any]]:
    """By contender: the median of memory over all rounds, median and shortest of the times; or what went wrong."""
    found: dict[str, dict[float, list[float]]] = {name: {0.0: [], seconds: []} for name in CONTENDERS}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
            for asked, environment in ((0.0, {**os.environ, **ALLOCATOR}), (seconds, {**os.environ})):
                words = [sys.executable, __file__, "--child", name, "--shapes", f"{layers}x{width}"]
                words += ["--seconds", str(asked), "--threads", str(threads)]
                done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    failed[name] = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
                    break
                found[name][asked] += json.loads(done.stdout)
    return {
        name: {"failed": failed[name]}
        if name in failed
        else {
            "memory_mb": statistics.median(figures[0.0]) / 1e6,
            "median_ms": statistics.median(figures[seconds]) * 1e3,
            "shortest_ms": min(figures[seconds]) * 1e3,
        }
        for name, figures in found.items()
    }


def table(layers: int, width: int, results: dict[str, dict[str, Any]]) -> list[str]:
    count = layers * width * (width + 1)
    lines = [
        "",
        f"{layers} layers of {width} x {width}: {2 * layers} parameters, gradients of {4 * count / 1e6:.1f} MB",
    ]
    lines += ["", "| | memory of a step | time, median | shortest |", "|---|---:|---:|---:|"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"| {name} | {result['failed']} | | |")
        else:
            times = f"{result['median_ms']:.2f} ms | {result['shortest_ms']:.2f} ms"
            lines.append(f"| {name} | {result['memory_mb']:.1f} MB | {times} |")
    return lines


def shape(text: str) -> tuple[int, int]:
    layers, width = text.split("x")
    return int(layers), int(width)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=shape, nargs="+", default=[(16, 1024), (150, 32)], metavar="LAYERSxWIDTH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="that each process measures times for")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, *args.shapes[0], args.seconds, args.threads)))
        return 0
    results = {f"{n}x{width}": measure(n, width, args.rounds, args.seconds, args.threads) for n, width in args.shapes}
    about = {"command": command("bench/release.py"), "machine": describe(), "versions": versions("torch-optimi")}
    print(f"{about['machine']['processor']}, {args.threads} threads; {about['versions']}")
    for (n, width), result in zip(args.shapes, results.values(), strict=True):
        print("\n".join(table(n, width, result)))
    if args.json:
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
