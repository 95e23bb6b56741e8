"""Norms in the fixed shape of the contract."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fusedstep import _core, functional, reference
from tests.helpers.bits import BFLOAT16, SPECIAL, Array, assert_same_bits
from tests.helpers.kernels import NORM_SIZES, NORMS, STORED, special_values
from tests.helpers.properties import examples


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def random(n: int, dtype: Any, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-3, 3, n)).astype(dtype)


def test_constants() -> None:
    assert (_core.norm_block, _core.norm_lanes) == (reference.NORM_BLOCK, reference.NORM_LANES)
    assert _core.chunk % _core.norm_block == 0


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("norm_type", NORMS)
def test_every_size(backend: str, norm_type: float, dtype: str) -> None:
    arrays = [random(n, STORED[dtype], n) for n in NORM_SIZES]
    each = functional.total_norm(arrays, norm_type, per_tensor=True)
    assert each == [reference.total_norm([a], norm_type) for a in arrays]
    for k in range(len(arrays) + 1):
        assert functional.total_norm(arrays[:k], norm_type) == reference.total_norm(arrays[:k], norm_type)


@pytest.mark.parametrize("norm_type", NORMS)
def test_special_values(backend: str, norm_type: float) -> None:
    for value in SPECIAL:
        for at in (0, 31, 32, 2048, 2999):
            x = random(3000, np.float32)
            x[at] = value
            assert same(functional.total_norm(x, norm_type), reference.total_norm([x], norm_type)), (value, at)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("norm_type", NORMS)
def test_special_values_of_16_bits(backend: str, norm_type: float, dtype: str) -> None:
    for value in special_values(STORED[dtype]):
        for at in (0, 31, 2048, 2999):
            x = random(3001, STORED[dtype])[1:]
            x[at] = value
            assert same(functional.total_norm(x, norm_type), reference.total_norm([x], norm_type)), (value, at)


@pytest.mark.parametrize("norm_type", NORMS)
def test_arrays_of_several_formats(backend: str, norm_type: float) -> None:
    """A norm of 16-bit gradients is that of the numbers they hold: no range and no precision of theirs limits it."""
    arrays = [random(3000, dtype, k) for k, dtype in enumerate(STORED.values()) if dtype != np.float64]
    arrays.append(np.full(3000, 60_000, np.float16))
    plain = [a.astype(np.float32) for a in arrays]
    norms = [functional.total_norm(x, norm_type) for x in (arrays, plain)]
    assert norms[0] == norms[1]
    assert norms[0] > 60_000 - 1
    assert norms[0] == reference.total_norm(arrays, norm_type) == reference.total_norm(plain, norm_type)


@examples(200)
@given(hnp.arrays(np.uint16, st.integers(0, 100)), st.sampled_from(NORMS), st.sampled_from([np.float16, BFLOAT16]))
def test_any_values_of_16_bits(codes: Array, norm_type: float, dtype: Any) -> None:
    x = codes.view(dtype)
    assert same(functional.total_norm(x, norm_type), reference.total_norm([x], norm_type))


@examples(200)
@given(hnp.arrays(np.float32, st.integers(0, 100), elements=st.floats(width=32)), st.sampled_from(NORMS))
def test_any_values(x: Array, norm_type: float) -> None:
    assert same(functional.total_norm(x, norm_type), reference.total_norm([x], norm_type))


@pytest.mark.parametrize("norm_type", [0.5, 1.5, 3.0, 4.0, 10.0])
def test_other_orders_to_a_few_ulp(norm_type: float) -> None:
    arrays = [random(n, dtype, n) for n, dtype in ((5, np.float16), (3000, np.float32), (40_000, BFLOAT16))]
    want = reference.total_norm(arrays, norm_type)
    assert functional.total_norm(arrays, norm_type) == pytest.approx(want, rel=1e-13)
    each = functional.total_norm(arrays, norm_type, per_tensor=True)
    assert each == pytest.approx([reference.total_norm([a], norm_type) for a in arrays], rel=1e-13)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, 100.0, math.inf])
def test_overflows_nowhere_in_float32(norm_type: float) -> None:
    """torch's float32 sum of squares overflows at 1.8e19."""
    x = np.full(1000, 3e38, np.float32)
    want = 3e38 * 1000.0 ** (1 / norm_type)
    assert functional.total_norm(x, norm_type) == pytest.approx(want, rel=1e-6)
    small = np.full(1000, 1e-44, np.float32)
    assert functional.total_norm(small, norm_type) == pytest.approx(float(small[0]) * 1000 ** (1 / norm_type), rel=1e-9)


def test_the_specification_sums_right() -> None:
    """Against exact rational arithmetic, so that the tree itself is not only compared with itself."""
    x = random(5000, np.float32)
    exact = sum(Fraction(float(v)) ** 2 for v in x)
    assert reference.total_norm([x]) == pytest.approx(math.sqrt(exact), rel=1e-15)
    assert reference.total_norm([x], 1) == pytest.approx(float(sum(abs(Fraction(float(v))) for v in x)), rel=1e-15)
    assert reference.total_norm([x], math.inf) == np.abs(x).max()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
def test_complex(dtype: type, norm_type: float) -> None:
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((70, 50)) + 1j * rng.standard_normal((70, 50))).astype(dtype)
    want = float(np.sum(np.abs(z.astype(np.complex128)) ** norm_type) ** (1 / norm_type))
    if norm_type == math.inf:
        want = float(np.abs(z.astype(np.complex128)).max())
    for layout in (z, np.asfortranarray(z)):
        assert functional.total_norm(layout, norm_type) == pytest.approx(want, rel=1e-12)
    assert functional.total_norm(z) == reference.total_norm([z.view(z.real.dtype)])


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("per_tensor", [False, True])
def test_clip(backend: str, per_tensor: bool, dtype: str) -> None:
    arrays = [random(n, STORED[dtype], n) for n in (5, 3000, 40_000)]
    grads = [a.copy() for a in arrays]
    norms = functional.clip_grad_norm(grads, 1.0, per_tensor=per_tensor)
    each = norms if per_tensor else [norms] * 3
    for g, a, norm in zip(grads, arrays, each, strict=True):
        assert_same_bits(g, reference.clip(a, clip_coef=reference.clip_coefficient(norm, 1.0))[0])
    assert functional.total_norm(grads, per_tensor=True)[2] == pytest.approx(1.0, rel=0.1 if per_tensor else 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_clip_value_of_16_bits(backend: str, dtype: str) -> None:
    """Also to a bound that the format cannot hold: it is rounded as everything that is stored."""
    arrays = [special_values(STORED[dtype]), *(random(n, STORED[dtype], n) for n in (5, 40_001))]
    for bound in (0.0, 0.1, 1.0, 1e30):
        grads = [a.copy() for a in arrays]
        functional.clip_grad_value(grads, bound)
        for g, a in zip(grads, arrays, strict=True):
            assert_same_bits(g, reference.clip(a, clip_value=bound)[0], f"bound {bound}")


def test_a_norm_within_the_limit_changes_no_bit() -> None:
    g = np.float32([0.25, -0.0, 0.5])
    assert functional.clip_grad_norm(g, 1.0) == reference.total_norm([g])
    assert g.tobytes() == np.float32([0.25, -0.0, 0.5]).tobytes()


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_folded_into_the_step(norm_type: float, per_tensor: bool) -> None:
    params, grads = [random(n, np.float32, n) for n in (5, 70)], [random(n, np.float32, n + 1) for n in (5, 70)]
    want_norms = functional.total_norm(grads, norm_type, per_tensor=per_tensor)
    each = want_norms if per_tensor else [want_norms] * 2
    want = [
        reference.sgd(p, g, lr=0.1, clip_coef=reference.clip_coefficient(n, 0.5))[0]
        for p, g, n in zip(params, grads, each, strict=True)
    ]
    before = [g.copy() for g in grads]
    norms = functional.sgd(params, grads, lr=0.1, max_norm=0.5, norm_type=norm_type, per_tensor=per_tensor)
    assert norms == want_norms
    for p, g, w, b in zip(params, grads, want, before, strict=True):
        assert np.array_equal(p, w)
        assert np.array_equal(g, b)
