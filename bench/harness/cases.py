"""What is measured: a rule, a set of shapes, a dtype, clipping or not, where and how.

Rules come from the package's own table, so a new one is measured without an edit here. Bytes and operations per element
are computed: from the state arrays of the rule, and by running the specification on an array that counts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fusedstep.rules
from fusedstep import reference

SHAPES = Path(__file__).resolve().parents[1] / "shapes"
DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}  # bytes


@dataclass(frozen=True)
class Rule:
    """A class of torch.optim with options that select a kernel."""

    label: str  # "RMSprop centered momentum"
    cls: str
    options: dict[str, Any] = field(hash=False)
    states: tuple[str, ...] = ()

    @property
    def spec(self) -> type[fusedstep.rules.Rule]:
        return next(rule for rule in fusedstep.rules.ALL if rule.__name__ == self.cls)

    def reference(self, param: Any, grad: Any, *states: Any, step: int, clip_coef: float = 1.0) -> tuple[Any, ...]:
        """One step by the specification: the parameter and its state arrays."""
        options = {**self.spec.defaults, **self.options}
        common = {"weight_decay": options["weight_decay"], "clip_coef": clip_coef}
        function = getattr(reference, self.spec.name())
        named = dict(zip(self.states, states, strict=True))  # by position, a momentum buffer would be a grad_avg
        return function(param, grad, **named, step=step, **common, **self.spec.hyper(self.cls, options))


# Where torch's default would move a parameter by its own size in a few steps.
GENTLE = {"RMSprop": {"lr": 1e-4}}


@cache
def rules() -> dict[str, Rule]:
    """Every kernel of every class: the fewest options that select each set of state arrays."""
    found: dict[str, Rule] = {}
    for spec in fusedstep.rules.ALL:
        if spec.numbers or not spec.torch_class:
            continue  # not measured yet: the harness makes arrays alone, and its peers start from torch's class
        cls = spec.__name__
        for states, chosen in spec.variants().items():
            label = " ".join([cls, *chosen])
            found[label] = Rule(label, cls, {**GENTLE.get(cls, {}), **chosen}, states)
    return found


@dataclass(frozen=True)
class Shapes:
    """The parameters of a model, from a file of ``bench/shapes`` or made for a sweep."""

    name: str
    source: str
    tensors: tuple[tuple[int, ...], ...]

    @property
    def elements(self) -> int:
        return sum(math.prod(t) for t in self.tensors)


def read_shapes(name: str) -> Shapes:
    """A shape set by the name of its file, or a path; ValueError that says what is wrong."""
    path = Path(name) if name.endswith(".json") else SHAPES / f"{name}.json"
    if not path.is_file():
        known = ", ".join(shape_names())
        raise ValueError(f"no shape file {name!r}, expected one of {known}, or a path to a .json file")
    try:
        content = json.loads(path.read_text())
        tensors: list[tuple[int, ...]] = []
        for entry in content["tensors"]:  # [count, shape] or a shape
            count, shape = entry if len(entry) == 2 and isinstance(entry[1], list) else (1, entry)
            if not isinstance(count, int) or not all(isinstance(n, int) and n > 0 for n in shape):
                raise ValueError(f"entry {entry}")
            tensors += [tuple(shape)] * count
        if not tensors:
            raise ValueError("no tensors")
        return Shapes(path.stem, content["source"], tuple(tensors))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"shape file {path.name} is not readable ({type(error).__name__}: {error}), expected "
            '{"source": text, "tensors": [[count, [n, ...]], [n, ...], ...]} with sizes > 0'
        ) from error


def shape_names() -> list[str]:
    return sorted(path.stem for path in SHAPES.glob("*.json"))


@dataclass(frozen=True)
class Case:
    """One line of the benchmark: everything that contenders share."""

    rule: Rule
    shapes: Shapes
    dtype: str = "float32"
    clip: bool = False
    device: str = "cpu"
    threads: int | None = None  # as torch has it
    target: str | None = None  # fusedstep's instruction set; None: the preferred one
    cache: str = "warm"  # or "cold": scrubbed before every step
    sweep: str | None = None

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)

    @property
    def max_norm(self) -> float | None:
        """A tenth of what the norm of gradients 1e-3 * N(0, 1) is: clipping always has work to do."""
        return 1e-4 * math.sqrt(self.shapes.elements) if self.clip else None

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype]

    @property
    def bytes_per_element(self) -> int:
        """What a step cannot avoid: param and state read and written, gradient read, once more for its norm."""
        return self.itemsize * (3 + 2 * len(self.rule.states) + self.clip)

    def describe(self) -> dict[str, Any]:
        """As the JSON has it."""
        fields = ("dtype", "clip", "device", "threads", "target", "cache")
        return {"rule": self.rule.label, "shapes": self.shapes.name, **{k: getattr(self, k) for k in fields}}


class _Counting(np.ndarray[Any, Any]):
    """An array that counts the floating-point operations done with it."""

    counted = 0
    FLOPS = (np.add, np.subtract, np.multiply, np.divide, np.sqrt)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, _Counting) else x for x in inputs]
        if ufunc in self.FLOPS:
            _Counting.counted += 1
        return getattr(ufunc, method)(*plain, **kwargs).view(_Counting)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, _Counting) else x for x in args]
        return function(*plain, **kwargs).view(_Counting)  # np.where: comparison and selection are not counted


def flops_per_element(case: Case) -> int:
    """``+ - * / sqrt`` of the specification of one step per element, the sum of squares of the norm included."""
    arrays = [np.ones(1, np.float32).view(_Counting) for _ in range(2 + len(case.rule.states))]
    _Counting.counted = 0
    case.rule.reference(*arrays, step=2)
    return _Counting.counted + 2 * case.clip
