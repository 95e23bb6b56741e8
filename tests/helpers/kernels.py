"""A call of the compiled core beside the specification: the kernels that there are, options, sizes, values, and
:func:`check_case`, which runs one case and compares every bit that it may write and every byte around it.

The kernels come from the declarations (:data:`tests.helpers.declared.KERNELS`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusedstep import _core, reference
from fusedstep._rule import STEPS
from tests.helpers import declared
from tests.helpers.bits import BFLOAT16, SPECIAL, Array, Guarded, assert_same_bits
from tests.helpers.covering import pairwise

# What rules compute in.
DTYPES = [np.float32, np.float64]
# What arrays may be stored as.
STORED = {"float32": np.dtype("f4"), "float64": np.dtype("f8"), "bfloat16": BFLOAT16, "float16": np.dtype("f2")}
# What the random numbers of every call here come from.
SEED = 0xFEDCBA9876543210
COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2": {"weight_decay": 0.1},
    "decoupled": {"weight_decay": 0.1, "decoupled": True},
    "maximize": {"maximize": True, "weight_decay": 0.01},
    "scaled": {"grad_scale": 3.0},
    "clip_value": {"clip_value": 0.5},
    "max_norm": {"max_norm": 0.7, "grad_scale": 2.0},
    "all": {"max_norm": 0.7, "grad_scale": 2.0, "clip_value": 0.01, "maximize": True, "weight_decay": 0.1},
}
# Whatever a rule calls its numbers, about: the middle of the range, none, nearly one.
HYPER = {"middle": 0.3, "zero": 0.0, "one": 0.999}
# 0 to 4 lanes of the widest target and one more; a norm block and a chunk, one less and one more.
SMALL = [*range(66), 127, 1000]
LARGE = [2047, 2048, 2049, 16383, 16384, 16385, 32767, 3 * 16384 + 1, 100_003]
# The orders of norms that are specified to the bit, and sizes around the norm's lanes, blocks and chunks.
NORMS = [1.0, 2.0, math.inf]
NORM_SIZES = [0, 1, 31, 32, 33, 63, 2047, 2048, 2049, 4096, 16383, 16384, 16385, 5 * 16384 + 7, 200_001]


def rule_id(rule: dict[str, Any]) -> str:
    return "-".join([rule["name"], *rule["state"]])


def storages(rule: dict[str, Any]) -> list[str]:
    """How parameter, gradient and state arrays may be stored, as names of dtypes: all float32, all float64, all
    bfloat16, and so many of the others that every pair of formats of two arrays occurs."""
    small = ("float32", "bfloat16", "float16")
    states = [("float32",) if kind == "exact" else small[:2] for kind in declared.roundings(rule)]
    drawn = pairwise(list(itertools.product(small, small, *states)))
    count = 2 + len(rule["state"])
    same = [("float32",) * count, ("float64",) * count, ("bfloat16", "bfloat16", *(s[-1] for s in states))]
    return ["-".join(map(str, s)) for s in [*same, *sorted(drawn - set(same))]]


def dtypes_of(storage: str) -> list[np.dtype[Any]]:
    return [STORED[name] for name in storage.split("-")]


# Each kernel with each of these; to parametrize tests with.
STORED_KERNELS = [(rule, storage) for rule in declared.KERNELS for storage in storages(rule)]
STORED_KERNEL_IDS = [f"{rule_id(rule)}-{storage}" for rule, storage in STORED_KERNELS]


def hyper_of(rule: dict[str, Any], kind: str) -> dict[str, float]:
    """The learning rate is small, and a number of steps such that ``kind`` is in the midst of them or beyond. No two
    numbers are equal, but for zeros, so that one which is taken for another is found; they grow, as betas do."""
    options = {n: o for d in declared.RULES.values() if d.kernel == rule["name"] for n, o in d.own.items()}
    near = {name: 1 - k / 1024 for k, name in enumerate(reversed(rule["hyper"]))}
    found = {name: 0.01 if name == "lr" else HYPER[kind] * near[name] for name in rule["hyper"]}
    for name in found.keys() & options.keys():
        o = options[name]
        if kind == "zero" and o.none is not None:
            found[name] = o.none
        elif STEPS in o.ranges:
            found[name] *= 1e4
    return found


def apart(hyper: dict[str, float], common: dict[str, Any]) -> dict[str, float]:
    """Decay is a part of a rule's direction or comes before it: where a call has some before, none is in the rule."""
    if "weight_decay" in hyper and common.get("weight_decay"):
        return {**hyper, "weight_decay": 0.0}
    return hyper


def step(
    rule: dict[str, Any],
    hyper: dict[str, float],
    common: dict[str, Any],
    step: int | list[int],
    params: list[Array],
    grads: list[Array],
    states: list[list[Array]],
    tensors: list[int] | None = None,
) -> Any:
    common = dict(common)
    grad_scale = common.pop("grad_scale", 1.0)
    own = {
        "label": rule["name"],
        "rule": rule["name"],
        "states": rule["state"],
        "state_args": [*rule["state"], *rule["scalars"]],
        "hyper": apart(hyper, common),
        "has_step": True,
        "weight_decay": 0.0,
        "decoupled": False,
        "maximize": False,
        "max_norm": None,
        "clip_value": None,
        "rounding": declared.roundings(rule),
        "seed": SEED,
        **common,
    }
    group = (_core.Group(**own), params, grads, states, step, None, tensors)
    return _core.step_arrays([group], grad_scale=grad_scale, norm_type=2.0, per_tensor=False, nonfinite="propagate")


def expected(
    rule: dict[str, Any],
    hyper: dict[str, float],
    common: dict[str, Any],
    step: int,
    params: list[Array],
    grads: list[Array],
    states: list[list[Array]],
    tensors: list[int] | None = None,
) -> tuple[list[tuple[Array, ...]], float | None]:
    common = {"decoupled": False, "seed": SEED, **common}
    norm = None
    if (max_norm := common.pop("max_norm", None)) is not None:
        norm = reference.total_norm(grads) / common.get("grad_scale", 1.0)
        common["clip_coef"] = reference.clip_coefficient(norm, max_norm)
    function = getattr(reference, rule["name"])
    # The kernel is told every number of its family. The specification refuses one whose state is not there.
    every = [s for d in declared.RULES.values() if d.kernel == rule["name"] for s in d.states]
    hyper = {n: v for n, v in hyper.items() if n not in {s.when for s in every if s.name not in rule["state"]}}
    if "weight_decay" in hyper:
        common["decay_inside"] = not common.get("weight_decay")
        hyper = {**hyper, "weight_decay": common.pop("weight_decay", 0.0) or hyper["weight_decay"]}
    names = [*rule["state"], *rule["scalars"]]
    results = [
        function(p, g, **dict(zip(names, s, strict=True)), step=step, tensor=tensor, **hyper, **common)
        for tensor, p, g, *s in zip(tensors or range(len(params)), params, grads, *states, strict=True)
    ]
    return results, norm


def random_arrays(rng: np.random.Generator, sizes: list[int], dtypes: Sequence[Any]) -> list[list[Array]]:
    """A list of arrays for each dtype; the last lists are state, whose second moments must not be negative."""
    arrays = []
    for k, dtype in enumerate(dtypes):
        values = [rng.standard_normal(n) * 10.0 ** rng.integers(-6, 3 if dtype == np.float16 else 6, n) for n in sizes]
        arrays.append([(np.abs(v) if k > 2 else v).astype(dtype) for v in values])
    return arrays


def scalars_of(rule: dict[str, Any], count: int) -> list[list[Array]]:
    """States of one number for so many tensors, float32 and float64 in turn."""
    return [[np.array(0.75 - 0.25 * k, DTYPES[i % 2]) for i in range(count)] for k in range(len(rule["scalars"]))]


def check_case(
    rule: dict[str, Any],
    hyper: dict[str, float],
    common: dict[str, Any],
    t: int,
    lists: list[list[Array]],
    offset: int,
    tensors: list[int] | None = None,
) -> None:
    guarded = [[Guarded(a, offset) for a in arrays] for arrays in lists]
    scalars = scalars_of(rule, len(lists[0]))
    want, norm = expected(rule, hyper, common, t, *lists[:2], [*lists[2:], *scalars], tensors)
    params, grads, *states = [*([g.array for g in arrays] for arrays in guarded), *scalars]
    got_norm = step(rule, hyper, common, t, params, grads, states, tensors)
    assert got_norm == norm or (norm is not None and math.isnan(norm) and math.isnan(got_norm))
    for i, results in enumerate(want):
        names = ["param", *rule["state"], *rule["scalars"]]
        for name, array, result in zip(names, [params[i], *(s[i] for s in states)], results, strict=True):
            assert_same_bits(array, result, f"{name} of tensor {i}, {array.size} elements")
        assert_same_bits(grads[i], lists[1][i], f"grad {i}")
    for arrays in guarded:
        for g in arrays:
            g.assert_intact()


# The largest number, the smallest normal and subnormal ones, and what is no tie but near one, in formats of 16 bits.
OF_16_BITS = {"bfloat16": [0x7F7F, 0x0080, 0x8001, 0x3F81], "float16": [0x7BFF, 0x0400, 0x8001, 0x3C01]}


def special_values(dtype: Any) -> Array:
    dtype = np.dtype(dtype)
    with np.errstate(over="ignore"):
        values = np.array(SPECIAL).astype(dtype)
    return np.concatenate([values, np.array(OF_16_BITS.get(dtype.name, []), np.uint16).view(dtype)])


def special_lists(rule: dict[str, Any], dtypes: Sequence[Any]) -> Iterator[list[list[Array]]]:
    """All pairs of special parameter and gradient: with each special state, then with states that differ."""
    values = [special_values(dtype) for dtype in dtypes]
    p, g = np.repeat(values[0], values[1].size), np.tile(values[1], values[0].size)
    for k in range(max(v.size for v in values[2:]) if rule["state"] else 1):
        yield [[p], [g], *([np.full(p.size, v[k % v.size], v.dtype)] for v in values[2:])]
    if len(rule["state"]) > 1:
        rng = np.random.default_rng(0)
        yield [[np.tile(p, 10)], [np.tile(g, 10)], *([rng.choice(v, 10 * p.size)] for v in values[2:])]


SPECIAL_COMMON = ("plain", "l2", "decoupled", "clip_value", "max_norm")
