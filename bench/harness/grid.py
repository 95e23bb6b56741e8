"""Which cases a run has: the quick grid, the full one, sweeps, or what is asked for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

from harness.cases import Case, Rule, Shapes, read_shapes, rules

SWEEPS = ("tensors", "size", "threads")
TENSORS = (1, 10, 100, 1000, 10_000)
SIZES = tuple(10**k for k in range(3, 10))


def product(
    names: Iterable[str], shapes: Iterable[str], clips: Iterable[bool] = (False, True), **fixed: Any
) -> list[Case]:
    sets = [read_shapes(s) for s in shapes]
    return [Case(rules()[r], s, clip=c, **fixed) for s, r, c in itertools.product(sets, names, clips)]


def quick(device: str) -> list[Case]:
    return product(["SGD momentum", "RMSprop", "AdamW"], ["32M", "300x1000"], device=device)


def full(device: str, targets: Sequence[str]) -> list[Case]:
    """Every rule on two sets, two rules on every set; and a few cases for each other thing that may differ."""
    large = ["gpt2-xl"] if device == "cuda" else []
    cases = quick(device)
    cases += product(["SGD momentum", "AdamW"], ["gpt2", "resnet50", "lora", "recommender", *large], device=device)
    cases += [c for c in product(rules(), ["32M", "300x1000"], [False], device=device) if c not in cases]
    for dtype in ("float64", "bfloat16"):
        cases += product(["SGD momentum", "AdamW"], ["32M"], [False], dtype=dtype, device=device)
    cases += product(["SGD momentum", "AdamW"], ["300x1000", "lora"], cache="cold", device=device)
    if device == "cpu":
        for target in targets[1:]:  # the first is the one that all other cases have
            cases += product(["AdamW"], ["32M", "300x1000"], [True], target=target)
    return cases


def thread_counts() -> list[int]:
    """1, 2, 4, ... and all of this process's processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({2**k for k in range(cores.bit_length()) if 2**k <= cores} | {cores})


def sweep(kind: str, device: str, rule: Rule | None = None, counts: Sequence[int] | None = None) -> list[Case]:
    """AdamW over the number of tensors of 1,000 elements, the size of one tensor, or the number of threads."""
    rule = rule or rules()["AdamW"]
    if kind == "threads":
        if device != "cpu":
            return []
        sizes = [read_shapes(name) for name in ("32M", "gpt2")]
        return [Case(rule, s, threads=t, sweep=kind) for s in sizes for t in counts or thread_counts()]
    made = "made for a sweep"
    if kind == "tensors":
        sets = [Shapes(f"{n:,} x 1,000", made, ((1000,),) * n) for n in counts or TENSORS]
    else:
        sets = [Shapes(f"1 x {n:,}", made, ((n,),)) for n in counts or SIZES]
    return [Case(rule, s, device=device, sweep=kind) for s in sets]
