"""What rules may use and no shipped one does: the rules of ``extras/``, which only builds for tests have, replayed.

Their specifications stand here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedstep import _core, reference
from tests.helpers.bits import SPECIAL, Array
from tests.helpers.covering import pairwise
from tests.helpers.formats import near
from tests.helpers.kernels import COMMON, DTYPES, rule_id
from tests.helpers.replays import (
    FORMATS,
    LARGE_LAYOUTS,
    SMALL_LAYOUTS,
    Machine,
    Specification,
    Stream,
    assert_all_equal,
    call_of,
    replay,
    stored_norm,
    stored_step,
    streams_of,
)

pytestmark = pytest.mark.slow


def lane_ops(p: Array, g: Array, a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    largest = np.where((g > p) | np.isnan(g), g, p)
    return largest, np.where(g > p, a, -a), np.where(np.isnan(b) | (b == 0), b, np.sign(b)), np.abs(c)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes(machine: Machine, dtype: type, tmp_path: Path) -> None:
    values = np.array(SPECIAL).astype(dtype)
    p, g = (a.reshape(-1) for a in np.meshgrid(values, values))
    rng = np.random.default_rng(0)
    calls = []
    for size in (p.size, *range(1, 20)):
        arrays = [x[:size] for x in (p, g, *(rng.permutation(p) for _ in range(3)))]
        calls.append(call_of("lane_ops-a-b-c", 1, {}, {}, [[x] for x in arrays], [lane_ops(*arrays)]))
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars(machine: Machine, dtype: type, wide: bool, tmp_path: Path) -> None:
    """A step computes with what is stored, whatever the parameters are."""
    stored = np.float64 if wide else np.float32
    hyper = {"lr": 0.3, "factor": 0.96}
    p, g = np.linspace(-1, 1, 37).astype(dtype), np.linspace(2, -3, 37).astype(dtype)
    product = last = 1.0
    calls = []
    for t in (1, 2, 3):
        before = [product, wide, last, wide]
        product = float(stored(product * hyper["factor"]))
        rate = reference.rounded(hyper["lr"] * product + last, p)
        last = float(stored(t / 3.0))
        want = [(p - rate * g,)]
        calls.append(call_of("product", t, hyper, {}, [[p], [g]], want, scalars=[*before, product, last]))
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_of_a_group(machine: Machine, dtype: type, wide: bool, tmp_path: Path) -> None:
    """They move once a step, however many tensors there are, and before any of these is prepared."""
    stored = np.float64 if wide else np.float32
    rng = np.random.default_rng(6)
    weight_sum = largest = count = 0.0
    calls = []
    for t, lr in ((1, 0.3), (2, 0.7), (3, 0.1)):
        hyper = {"lr": lr, "weight": 1.7}
        before = [weight_sum, wide, largest, wide]
        largest = float(stored(max(largest, lr)))
        weight_sum = float(stored(weight_sum + largest * 1.7))
        count += 1.0
        p, g = ([rng.standard_normal(n).astype(dtype) for n in (5, 0, 37, 20_000)] for _ in range(2))
        rate = reference.rounded(lr * largest / (weight_sum * count), p[0])
        want = [(x - rate * y,) for x, y in zip(p, g, strict=True)]
        numbers = [count - 1.0, False, count, *before, weight_sum, largest]
        calls.append(call_of("shared", t, hyper, {}, [p, g], want, scalars=numbers))
    assert_all_equal(machine, calls, tmp_path)


# ---------------------------------------------------------------------------------------------------------- formats


def trust_ratio(
    p: Array, g: Array, m: Array, stored: Callable[[Array], Array], t: int, *, lr: float, beta: float
) -> tuple[Array, Array]:
    rest = reference.rounded(1.0 - beta, p)
    m = stored(reference.rounded(beta, p) * m + rest * g)
    d = m + rest * p
    squares, products = (reference.tree(reference.block_sums(x, n)) for x, n in ((d, 2.0), (g * p, None)))
    rate = lr * math.sqrt(squares) / (t + products * products / p.size)
    return p - reference.rounded(rate, p) * d, m


TRUST_RATIO = {"name": "trust_ratio", "state": ["m"], "hyper": ["lr", "beta"]}
STORED_RULES = [r for r in _core.rules() if r["name"] in ("sgd", "adam")]
# Those that are computed with as float32.
SINGLE = [name for name in FORMATS if name != "float64"]


def tensors_of(
    rng: np.random.Generator, layouts: Sequence[str], formats: Sequence[str]
) -> list[tuple[str, list[Stream]]]:
    return [(layout, streams_of(rng, layout, formats)) for layout in layouts]


@pytest.mark.parametrize("param", FORMATS)
@pytest.mark.parametrize("rule", STORED_RULES, ids=rule_id)
def test_formats(machine: Machine, rule: dict[str, Any], param: str, tmp_path: Path) -> None:
    """Parameter, gradient and states each in any format, in every layout."""
    rng = np.random.default_rng(0)
    calls = []
    for others in itertools.product(["float64"] if param == "float64" else SINGLE, repeat=2):
        formats = [param, *itertools.islice(itertools.cycle(others), 1 + len(rule["state"]))]
        for common in ("plain", "all"):
            calls.append(stored_step(rule, COMMON[common], 3, tensors_of(rng, SMALL_LAYOUTS, formats)))
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norms_of_formats(machine: Machine, norm_type: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls = []
    for format in FORMATS:
        tensors = [(layout, streams[0]) for layout, streams in tensors_of(rng, SMALL_LAYOUTS, [format])]
        calls.append(stored_norm(norm_type, tensors))
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("threads", range(1, 8))
def test_formats_over_threads(machine: Machine, threads: int, tmp_path: Path) -> None:
    """Enough elements for the pool to be woken."""
    rng = np.random.default_rng(2)
    (rule,) = (r for r in STORED_RULES if rule_id(r) == "adam-exp_avg-exp_avg_sq")
    tensors = tensors_of(rng, LARGE_LAYOUTS, ["bfloat16", "float32", "float16", "bfloat16_stochastic"])
    command, targets = machine
    code, output = replay(command, [stored_step(rule, {}, 3, tensors)], tmp_path, OMP_NUM_THREADS=str(threads))
    assert code == 0, output
    assert output.count(" 0 differences") == len(targets)


@pytest.mark.parametrize("format", ["bfloat16", "float16", "bfloat16_stochastic"])
def test_rounding_of_the_format(machine: Machine, format: str, tmp_path: Path) -> None:
    """Every number, tie and neighbour of these: p - lr * g with p = 0 and lr = 1 stores -g, rounded once."""
    (rule,) = (r for r in STORED_RULES if rule_id(r) == "sgd")
    values, _ = near(format.removesuffix("_stochastic"))
    values = np.append(values, np.float32([math.inf, -math.inf, math.nan]))
    pairs = ((np.zeros_like(values), format), (values, "float32"))
    streams = [Stream(x, f, (0,), 1, False) for x, f in pairs]
    assert_all_equal(machine, [stored_step(rule, {}, 1, [("flat", streams)], {"lr": 1.0})], tmp_path)


def trust_ratios(t: int, hyper: dict[str, float]) -> Specification:
    def specification(lists: list[list[Array]], streams: list[list[Stream]]) -> list[tuple[Array, ...]]:
        arrays = zip(*lists, strict=True)
        return [trust_ratio(*x, s[2].stored, t, **hyper) for x, s in zip(arrays, streams, strict=True)]

    return specification


def two_passes(t: int, tensors: list[tuple[str, list[Stream]]]) -> bytes:
    hyper = {"lr": 0.3, "beta": 0.9}
    return stored_step(TRUST_RATIO, {}, t, tensors, hyper, trust_ratios(t, hyper))


PASSES = [("float64",) * 3, *sorted(pairwise(list(itertools.product(SINGLE, repeat=3))))]


@pytest.mark.parametrize("formats", PASSES, ids="-".join)
def test_two_passes(machine: Machine, formats: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tensors = tensors_of(rng, SMALL_LAYOUTS, formats)
    assert_all_equal(machine, [two_passes(t, tensors) for t in (1, 2)], tmp_path)


@pytest.mark.parametrize("threads", range(1, 8))
@pytest.mark.parametrize("formats", [("float32",) * 3, ("bfloat16", "float32", "bfloat16_stochastic")], ids="-".join)
def test_two_passes_over_threads(machine: Machine, formats: tuple[str, ...], threads: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    call = two_passes(2, tensors_of(rng, LARGE_LAYOUTS, formats))
    command, targets = machine
    code, output = replay(command, [call], tmp_path, OMP_NUM_THREADS=str(threads))
    assert code == 0, output
    assert output.count(" 0 differences") == len(targets)
