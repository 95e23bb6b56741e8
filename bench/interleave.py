"""A fusedstep step between torch matrix products, as in training: whose threads run it, and what it costs both.

    python bench/interleave.py
    python bench/interleave.py --elements 300000 --rounds 50

Each order of imports gets a fresh interpreter. "threads" is how many the process has after the products alone and how
many the steps added to them: a second team that spins beside torch's would show there, and as products that slow down.
"step" is the time of torch's fused AdamW divided by that of fusedstep's, "product" the time of a product after torch's
step divided by that of one after fusedstep's; both medians of turns A B A B, in which only ratios mean something.
Exit status 1 if the steps did not run on torch's team or added threads to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from arguments import integer

ORDERS = ["torch, fusedstep", "fusedstep, torch", "fusedstep, a step, torch"]


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def measure(order: str, elements: int, size: int, rounds: int) -> dict[str, Any]:
    if order == "torch, fusedstep":
        import torch
    import numpy as np

    import fusedstep
    from fusedstep import _core

    if order == "fusedstep, a step, torch":
        arrays = [np.ones(2**20, np.float32) for _ in range(2)]
        fusedstep.functional.sgd(*arrays, lr=0.1)  # large enough for the pool's threads to start
    import torch

    import fusedstep.torch

    a = torch.randn(size, size)
    for _ in range(3):
        a @ a
    before = threads()
    contenders = {}
    for name, cls, flags in (
        ("torch", torch.optim.AdamW, {"fused": True}),
        ("fusedstep", fusedstep.torch.AdamW, {}),
    ):
        p = torch.nn.Parameter(torch.randn(elements))
        p.grad = torch.randn(elements)
        contenders[name] = cls([p], **flags)
    times: dict[str, list[float]] = {f"{kind} {name}": [] for name in contenders for kind in ("step", "product")}
    for r in range(rounds + 2):
        for name, optimizer in contenders.items():
            a @ a
            start = time.perf_counter()
            optimizer.step()
            middle = time.perf_counter()
            a @ a
            end = time.perf_counter()
            if r >= 2:
                times[f"step {name}"].append(middle - start)
                times[f"product {name}"].append(end - middle)
    return {
        "order": order,
        "elements": elements,
        "backend": _core.thread_backend(),
        "threads": before,
        "added": threads() - before,
        "step": median(times["step torch"]) / median(times["step fusedstep"]),
        "product": median(times["product torch"]) / median(times["product fusedstep"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", nargs="+", type=integer(1, 10**9), default=[30_000, 300_000, 3_000_000])
    parser.add_argument("--size", type=integer(1, 20_000), default=512, help="of the square matrices")
    parser.add_argument("--rounds", type=integer(1, 10**6), default=100)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--order", choices=ORDERS, help=argparse.SUPPRESS)  # in the fresh interpreter
    args = parser.parse_args()
    if sys.platform != "linux":
        parser.error("counts threads in /proc, which only Linux has")
    if args.order:
        print(json.dumps([measure(args.order, n, args.size, args.rounds) for n in args.elements]))
        return

    console = Console(width=110 if not sys.stdout.isatty() else None)
    rows: list[dict[str, Any]] = []
    for order in ORDERS:
        with console.status(order):
            command = [sys.executable, __file__, *sys.argv[1:], "--order", order]
            rows += json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    table = Table(title="AdamW between matrix products; ratios above 1: better than torch's fused step")
    for column in ("imported", "elements", "step on", "threads", "added", "step", "product"):
        table.add_column(column, justify="left" if column in ("imported", "step on") else "right")
    for r in rows:
        table.add_row(
            r["order"], f"{r['elements']:,}", r["backend"], str(r["threads"]), str(r["added"]),
            f"{r['step']:.2f}", f"{r['product']:.2f}",
        )  # fmt: skip
    console.print(table)
    if args.json:
        args.json.write_text(
            json.dumps({"command": "python bench/interleave.py " + " ".join(sys.argv[1:]), "rows": rows})
        )
    if any(r["backend"] != "openmp" or r["added"] for r in rows):
        sys.exit("the steps did not run on torch's threads alone")


if __name__ == "__main__":
    main()
