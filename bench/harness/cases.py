"""What is measured: a rule, a set of shapes, dtypes, clipping or not, on which device, threads and instruction set.

Rules come from ``fusedstep.rules``, so that a new one is measured without an edit here.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import fusedstep.rules
from fusedstep import reference

SHAPES = Path(__file__).resolve().parents[1] / "shapes"
DTYPES = ("float32", "float64", "bfloat16", "float16")
COMMON = ("SGD momentum", "RMSprop", "AdamW")
OLDER = ("SGD", "Adagrad", "Adam", "AdamW", "RMSprop")  # measured by the other sets
# What a step does besides, by the options of fusedstep that ask for it.
RIDES: dict[str, dict[str, Any]] = {
    "EMA": {"ema_decay": 0.999},
    "mask": {},  # an array of its own
    "nonzero": {"mask": "nonzero"},
    "L1": {"l1": 0.1},
    "stats": {"stats": True},
}


@dataclass(frozen=True)
class Rule:
    """A declared optimizer with options that select a kernel."""

    label: str  # "RMSprop centered momentum"
    spec: type[fusedstep.rules.Rule]
    chosen: dict[str, Any] = field(hash=False)
    states: tuple[str, ...] = ()

    @property
    def cls(self) -> str:
        return self.spec.__name__

    @property
    def clips_alone(self) -> bool:
        return self.spec is clip_grad_norm_

    @property
    def options(self) -> dict[str, Any]:
        """All of them, defaults included: a peer's own defaults may be others."""
        return {**self.spec.defaults, **self.chosen}

    def step(self, param: Any, grad: Any, state: dict[str, Any], count: int, coef: float = 1.0, **more: Any) -> Any:
        """One step by the specification; the parameter is returned, the state, numbers included, replaced."""
        given = self.options
        common = {"clip_coef": coef, "step": count, **more}
        specified = getattr(reference, self.spec.name())
        new, *states = specified(param, grad, **state, **common, **self.spec.specified(self.cls, given))
        state.update(zip(state, states, strict=True))
        return new


class clip_grad_norm_(fusedstep.rules.Rule):
    """Clipping alone, which moves no parameters and no state: it writes the gradients."""

    has_step = False
    specification = staticmethod(lambda g, p: (g,))


# Where the default would move a parameter by its own size in a few steps.
GENTLE = {"RMSprop": {"lr": 1e-4}}


def labelled(name: str, chosen: dict[str, Any]) -> str:
    return " ".join([name, *(option if value else f"no {option}" for option, value in chosen.items())])


@cache
def rules() -> dict[str, Rule]:
    """Every kernel of every optimizer: the fewest options that select each set of state arrays; and clipping alone."""
    found = [
        Rule(labelled(spec.__name__, chosen), spec, {**GENTLE.get(spec.__name__, {}), **chosen}, states)
        for spec in fusedstep.rules.ALL
        for states, chosen in spec.variants().items()
    ]
    found.append(Rule("clip_grad_norm_", clip_grad_norm_, {}))
    return {rule.label: rule for rule in found}


@dataclass(frozen=True)
class Shapes:
    """The parameters of a model."""

    name: str
    source: str
    tensors: tuple[tuple[int, ...], ...]

    @property
    def elements(self) -> int:
        return sum(math.prod(t) for t in self.tensors)


def read_shapes(name: str) -> Shapes:
    """By the name of a file in ``bench/shapes``, a path, or ``300x1000``; ValueError that says what is wrong."""
    if made := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", name):
        count, size = map(int, made.groups())
        return Shapes(name, f"{count} tensors of {size} elements", ((size,),) * count)
    path = Path(name) if name.endswith(".json") else SHAPES / f"{name}.json"
    if not path.is_file():
        known = ", ".join(shape_names())
        raise ValueError(f"no shape file {name!r}, expected one of {known}, a path to a .json file, or as 300x1000")
    try:
        content = json.loads(path.read_text())
        tensors: list[tuple[int, ...]] = []
        for count, shape in content["tensors"]:
            if not isinstance(count, int) or not all(isinstance(n, int) and n > 0 for n in shape):
                raise ValueError(f"entry {[count, shape]}")
            tensors += [tuple(shape)] * count
        if not tensors:
            raise ValueError("no tensors")
        return Shapes(path.stem, content["source"], tuple(tensors))
    except (ValueError, KeyError, TypeError) as error:
        wanted = '{"source": text, "tensors": [[count, [n, ...]], ...]} with sizes > 0'
        raise ValueError(f"shape file {path.name} is not readable ({error!r}), expected {wanted}") from error


def shape_names() -> list[str]:
    return sorted(path.stem for path in SHAPES.glob("*.json"))


@dataclass(frozen=True)
class Case:
    """One line of the benchmark: everything that contenders share."""

    rule: Rule
    shapes: Shapes
    dtype: str = "float32"  # of parameters and gradients
    clip: bool = False
    device: str = "cpu"
    threads: int | None = None  # as torch has it
    target: str | None = None  # fusedstep's instruction set; None: the preferred one
    state: str | None = None  # dtype of fusedstep's state; None: float64 for float64 parameters, else float32
    ride: str | None = None  # of RIDES

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)

    @property
    def max_norm(self) -> float | None:
        """A tenth of what the norm of gradients 1e-3 * N(0, 1) is: clipping always has work to do."""
        return 1e-4 * math.sqrt(self.shapes.elements) if self.clip else None

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def state_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.state or ("float64" if self.dtype == "float64" else "float32"))
        return dtype

    @property
    def ride_options(self) -> dict[str, Any]:
        return RIDES[self.ride] if self.ride else {}

    @property
    def low(self) -> bool:
        """Whether parameters or states have 16 bits."""
        return min(self.torch_dtype.itemsize, self.state_dtype.itemsize) == 2

    def describe(self) -> dict[str, Any]:
        """As the JSON has it."""
        fields = {k: getattr(self, k) for k in ("dtype", "clip", "device", "threads", "target")}
        if self.low and self.rule.states:
            fields["state"] = str(self.state_dtype).removeprefix("torch.")
        if self.ride:
            fields["ride"] = self.ride
        return {"rule": self.rule.label, "shapes": self.shapes.name, **fields}


def product(
    names: Iterable[str], shapes: Iterable[str], clips: Iterable[bool] = (False, True), **fixed: Any
) -> list[Case]:
    sets = [read_shapes(s) for s in shapes]
    every = itertools.product(sets, names, clips)
    return [Case(rules()[r], s, clip=c, **fixed) for s, r, c in every if c or not rules()[r].clips_alone]


def quick(device: str) -> list[Case]:
    return product(["AdamW"], ["sb3"], device=device) + product(COMMON, ["300x1000", "32M"], device=device)


def sixteen(device: str) -> list[Case]:
    """What storage of 16 bits brings. fusedstep in float32 is a contender of these cases."""
    low: dict[str, Any] = {"dtype": "bfloat16", "device": device}
    cases = product(["AdamW"], ["32M", "300x1000"], state="bfloat16", **low)
    cases += product(["AdamW"], ["32M", "300x1000"], [False], **low)
    cases += product(["SGD momentum", "RMSprop", "Adagrad", "Lion"], ["32M"], [False], state="bfloat16", **low)
    cases += product(["clip_grad_norm_"], ["32M"], [True], **low)
    return cases + product(["AdamW"], ["32M"], [False], dtype="float16", device=device)


def family(device: str) -> list[Case]:
    """The rules that torch has no fused kernel of, beside the packages that have them."""
    names = [name for name, rule in rules().items() if rule.cls not in OLDER and not rule.clips_alone]
    return product(names, ["32M"], [False], device=device)


def rides(device: str) -> list[Case]:
    """What rides along in the pass over memory, beside a pass of its own."""
    return [case.but(ride=ride) for ride in RIDES for case in product(["AdamW"], ["32M"], [False], device=device)]


SETS = {"16bit": sixteen, "family": family, "rides": rides}


def full(device: str, targets: Sequence[str]) -> list[Case]:
    """Every rule on three sets, two rules on every set; and a few cases for each other thing that may differ."""
    large = ["gpt2-xl"] if device == "cuda" else []
    sets = ["gpt2", "resnet50", "lora", "recommender", "sb3", *large]
    cases = quick(device) + product(["SGD momentum", "AdamW"], sets, device=device)
    cases += product(rules(), ["32M", "300x1000", "sb3"], [False], device=device)
    cases += product(["clip_grad_norm_"], ["32M", "300x1000"], [True], device=device)
    cases += product(["SGD momentum", "AdamW"], ["32M"], [False], dtype="float64", device=device)
    cases += product(["SGD momentum", "AdamW"], ["32M"], [False], dtype="bfloat16", device=device)
    counts = [f"{n}x1000" for n in (1, 10, 100, 1000)] + [f"1x{10**k}" for k in (4, 5, 6, 7)]
    cases += product(["AdamW"], counts, [False], device=device)
    if device == "cpu":
        for target in targets[1:]:  # the first is the one that all other cases have
            cases += product(["AdamW"], ["32M", "300x1000"], [True], target=target)
    return list(dict.fromkeys(cases))
