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
from tests.helpers.kernels import COMMON, DTYPES, expected, hyper_of, rule_id
from tests.helpers.replays import Machine, assert_all_equal, call_of, header, replay, rule_part

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


def upper16(x: Array) -> Array:
    """The upper half of a float32, to nearest, ties to even; of a float64 rounded once."""
    if x.dtype == np.float64:
        with np.errstate(over="ignore"):
            near = x.astype(np.float32)
        bits = near.view(np.uint32)
        cut = near.astype(np.float64) != x
        x = np.where(cut, (bits - (np.abs(near.astype(np.float64)) > np.abs(x))) | 1, bits).astype(np.uint32).view("f4")
    bits = x.view(np.uint32)
    return np.where(np.isnan(x), 0x7FC0, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


# In the order of formats/all.h: what is stored, decoded to float32 or float64, encoded from there.
FORMATS: list[tuple[type, Callable[[Array, type], Array], Callable[[Array], Array]]] = [
    (np.float32, lambda x, dtype: x.astype(dtype), lambda x: x.astype(np.float32)),
    (np.float64, lambda x, dtype: x.astype(dtype), lambda x: x.astype(np.float64)),
    (np.uint16, lambda x, dtype: (x.astype(np.uint32) << 16).view(np.float32).astype(dtype), upper16),
]

# Shape, then the order in which dimensions lie in memory and the gap between neighbours, in turn for the streams.
Layout = tuple[tuple[int, ...], Sequence[tuple[tuple[int, ...], int]]]
LAYOUTS: dict[str, Layout] = {
    "flat": ((1537,), [((0,), 1)]),
    "lane": ((3,), [((0,), 1)]),
    "rows": ((30, 65), [((0, 1), 1)]),
    "gaps": ((700,), [((0,), 2), ((0,), 1), ((0,), 3)]),
    "transposed": ((40, 33), [((0, 1), 1), ((1, 0), 1), ((0, 1), 2)]),
    "short": ((5, 60, 3), [((0, 1, 2), 1), ((2, 0, 1), 1), ((1, 2, 0), 2)]),
    "large": ((600_001,), [((0,), 1)]),
    "large transposed": ((301, 203), [((0, 1), 1), ((1, 0), 1)]),
}
SMALL_LAYOUTS = [name for name in LAYOUTS if not name.startswith("large")]
LARGE_LAYOUTS = [name for name in LAYOUTS if name.startswith("large")]
FLAT = ("flat", "lane", "large")


class Stream:
    """An array in memory of its own, stored in a format, and what a step makes of it."""

    def __init__(self, values: Array, fmt: int, order: tuple[int, ...], gap: int, padded: bool) -> None:
        _, self.decode, self.encode = FORMATS[fmt]
        self.fmt, self.shape, self.strides = fmt, values.shape, [0] * values.ndim
        for d in reversed(order):
            self.strides[d] = gap
            gap = gap * values.shape[d] + 3 * (padded and d == order[-1])
        self.items = 1 + sum(s * (n - 1) for s, n in zip(self.strides, values.shape, strict=True))
        self.memory = self.written(values, np.arange(self.items).astype(FORMATS[fmt][0]))

    def view(self, memory: Array) -> Array:
        return np.lib.stride_tricks.as_strided(memory, self.shape, [s * memory.itemsize for s in self.strides])

    def written(self, values: Array, memory: Array) -> Array:
        memory = memory.copy()
        self.view(memory)[...] = self.encode(values)
        return memory

    def decoded(self, dtype: type) -> Array:
        return self.decode(np.ascontiguousarray(self.view(self.memory)), dtype)

    def stored(self, values: Array) -> Array:
        return self.decode(self.encode(values), values.dtype.type)

    def part(self, strided: bool, after: Array) -> bytes:
        head = [self.fmt, *(self.strides if strided else ()), self.items]
        return np.array(head, np.int64).tobytes() + self.memory.tobytes() + after.tobytes()


def streams_of(rng: np.random.Generator, layout: str, formats: Sequence[int], dtype: type) -> list[Stream]:
    shape, walks = LAYOUTS[layout]
    out = []
    for k, fmt in enumerate(formats):
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, shape)
        order, gap = walks[k % len(walks)]
        out.append(Stream((np.abs(values) if k > 2 else values).astype(dtype), fmt, order, gap, layout == "rows"))
    return out


def layout_part(layout: str) -> bytes:
    shape = LAYOUTS[layout][0]
    is_strided = layout not in FLAT
    return np.array([is_strided, len(shape) * is_strided, *(shape if is_strided else ())], np.int64).tobytes()


def stored_step(rule: dict[str, Any], common: dict[str, Any], t: int, tensors: dict[str, list[Stream]]) -> bytes:
    """One step over tensors of several layouts, its results encoded; it reads states as they are stored."""
    dtype = DTYPES[max(s[0].fmt == 1 for s in tensors.values())]
    hyper = hyper_of(rule, "middle")
    lists = [[s.decoded(dtype) for s in streams] for streams in zip(*tensors.values(), strict=True)]
    norm = None
    if rule["name"] == "trust_ratio":
        hyper = {"lr": 0.3, "beta": 0.9}
        stored = [s[2].stored for s in tensors.values()]
        results = [trust_ratio(*x, store, t, **hyper) for *x, store in zip(*lists, stored, strict=True)]
    else:
        results, norm = expected(rule, hyper, common, t, *lists[:2], lists[2:])
    parts = [header(2, dtype, lists[0]), rule_part(rule_id(rule), t, hyper, common, norm)]
    for (layout, (p, g, *states)), (new_p, *new_states) in zip(tensors.items(), results, strict=True):
        parts += [layout_part(layout), p.part(layout not in FLAT, p.written(new_p, p.memory))]
        parts.append(g.part(layout not in FLAT, g.memory))
        parts += [s.part(layout not in FLAT, s.written(x, s.memory)) for s, x in zip(states, new_states, strict=True)]
    return b"".join(parts)


def stored_norm(norm_type: float, tensors: dict[str, Stream]) -> bytes:
    arrays = [s.decoded(np.float64 if s.fmt == 1 else np.float32) for s in tensors.values()]
    norms = [*(reference.total_norm([a], norm_type) for a in arrays), reference.total_norm(arrays, norm_type)]
    parts = [header(3, np.float32, arrays), np.float64(norm_type).tobytes()]
    for layout, s in tensors.items():
        parts += [layout_part(layout), s.part(layout not in FLAT, s.memory)]
    return b"".join([*parts, np.array(norms).tobytes()])


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


@pytest.mark.parametrize("param", range(len(FORMATS)), ids=["float32", "float64", "upper16"])
@pytest.mark.parametrize("rule", STORED_RULES, ids=rule_id)
def test_formats(machine: Machine, rule: dict[str, Any], param: int, tmp_path: Path) -> None:
    """Parameter, gradient and states each in any format, in every layout."""
    rng = np.random.default_rng(0)
    dtype = DTYPES[param == 1]
    calls = []
    for others in itertools.product(range(len(FORMATS)), repeat=2):
        formats = [param, *itertools.islice(itertools.cycle(others), 1 + len(rule["state"]))]
        for common in ("plain", "all"):
            tensors = {layout: streams_of(rng, layout, formats, dtype) for layout in SMALL_LAYOUTS}
            calls.append(stored_step(rule, COMMON[common], 3, tensors))
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norms_of_formats(machine: Machine, norm_type: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls = []
    for fmt in range(len(FORMATS)):
        calls.append(
            stored_norm(norm_type, {layout: streams_of(rng, layout, [fmt], np.float64)[0] for layout in SMALL_LAYOUTS})
        )
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("threads", range(1, 8))
def test_formats_over_threads(machine: Machine, threads: int, tmp_path: Path) -> None:
    """Enough elements for the pool to be woken."""
    rng = np.random.default_rng(2)
    (rule,) = (r for r in STORED_RULES if rule_id(r) == "adam-exp_avg-exp_avg_sq")
    tensors = {layout: streams_of(rng, layout, [2, 0, 1, 2], np.float32) for layout in LARGE_LAYOUTS}
    command, targets = machine
    code, output = replay(command, [stored_step(rule, {}, 3, tensors)], tmp_path, OMP_NUM_THREADS=str(threads))
    assert code == 0, output
    assert output.count(" 0 differences") == len(targets)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_of_the_format(machine: Machine, dtype: type, tmp_path: Path) -> None:
    """Ties and what lies beside them, the ends of the exponent."""
    (rule,) = (r for r in STORED_RULES if rule_id(r) == "sgd")
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 0x7F80, 400).astype(np.uint16)
    below = FORMATS[2][1](codes, np.float64)
    middle = (below + FORMATS[2][1](codes + 1, np.float64)) / 2
    down, up = np.nextafter(middle, 0), np.nextafter(middle, math.inf)
    for wanted, x in ((codes + codes % 2, middle), (codes, down), (codes + 1, up)):
        assert (upper16(x) == wanted).all()
    near = [middle, down, up, np.float64([1e-45, 1e-40, 3.4e38, 1e300])]
    values = np.concatenate([*near, -middle])
    values = values[np.abs(values) < (math.inf if dtype is np.float64 else 3.4e38)].astype(dtype)
    # p - lr * g with p = 0 and lr = 1 stores -g: rounded once.
    zero = np.zeros_like(values)
    p, g = (Stream(x, f, (0,), 1, False) for x, f in ((zero, 2), (values, DTYPES.index(dtype))))
    hyper = {"lr": 1.0}
    (want,) = reference.sgd(zero, values, **hyper)
    parts = [header(2, dtype, [values]), rule_part("sgd", 1, hyper, {}), np.zeros(2, np.int64).tobytes()]
    parts += [p.part(False, p.written(want, p.memory)), g.part(False, g.memory)]
    assert rule["hyper"] == ["lr"]
    assert_all_equal(machine, [b"".join(parts)], tmp_path)


@pytest.mark.parametrize("formats", [*itertools.product(range(3), repeat=3)])
def test_two_passes(machine: Machine, formats: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    dtype = DTYPES[formats[0] == 1]
    tensors = {layout: streams_of(rng, layout, formats, dtype) for layout in SMALL_LAYOUTS}
    assert_all_equal(machine, [stored_step(TRUST_RATIO, {}, t, tensors) for t in (1, 2)], tmp_path)


@pytest.mark.parametrize("threads", range(1, 8))
@pytest.mark.parametrize("formats", [(0, 0, 0), (2, 0, 2)])
def test_two_passes_over_threads(machine: Machine, formats: tuple[int, ...], threads: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    tensors = {layout: streams_of(rng, layout, formats, np.float32) for layout in LARGE_LAYOUTS}
    command, targets = machine
    code, output = replay(command, [stored_step(TRUST_RATIO, {}, 2, tensors)], tmp_path, OMP_NUM_THREADS=str(threads))
    assert code == 0, output
    assert output.count(" 0 differences") == len(targets)
