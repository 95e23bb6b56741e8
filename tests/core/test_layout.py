"""Strides change nothing: any layout gives the bits of the contiguous arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusedstep import functional, reference
from tests.helpers.bits import BFLOAT16, Array, assert_same_bits
from tests.helpers.declared import KERNELS
from tests.helpers.devices import GPU
from tests.helpers.kernels import COMMON, STORED, dtypes_of, expected, hyper_of, rule_id, step, storages

SHAPE = (6, 5, 70)  # enough for chunks of packed elements to straddle rows


def spread(x: Array) -> Array:
    """Every second element of a larger array along the last axis."""
    big = np.full((*x.shape[:-1], 2 * x.shape[-1]), -7, x.dtype)
    big[..., ::2] = x
    return big[..., ::2]


def backwards(x: Array) -> Array:
    return np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]


def beside(x: Array) -> Array:
    """One element past where memory is aligned."""
    big = np.full(x.size + 2, -7, x.dtype)
    big[1:-1] = x.ravel()
    return big[1:-1].reshape(x.shape)


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "permuted": lambda x: np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1),
    "spread": spread,
    "backwards": backwards,
    "beside": beside,
}


def arrays(dtype: type) -> list[Array]:
    rng = np.random.default_rng(0)
    return [*(rng.standard_normal(SHAPE).astype(dtype) for _ in range(3)), rng.random(SHAPE).astype(dtype)]


@pytest.mark.pairwise("backend", "dtype", "param", "grad", "state")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("param", LAYOUTS)
@pytest.mark.parametrize("grad", LAYOUTS)
@pytest.mark.parametrize("state", LAYOUTS)
def test_step(backend: str, dtype: type, param: str, grad: str, state: str) -> None:
    values = arrays(dtype)
    norm = reference.total_norm([values[1]])
    want = reference.adamw(
        *values, step=2, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1,
        clip_coef=reference.clip_coefficient(norm, 1.0),
    )  # fmt: skip
    p, g, m, v = (LAYOUTS[k](x.copy()) for k, x in zip((param, grad, state, "permuted"), values, strict=True))
    got = functional.adamw(p, g, m, v, step=2, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1, max_norm=1.0)
    assert got == norm
    for a, b in zip((p, m, v), want, strict=True):
        assert_same_bits(a, b)
    assert_same_bits(g, values[1])
    if param == "spread":
        assert (p.base[..., 1::2] == -7).all()


(ADAM,) = (r for r in KERNELS if rule_id(r) == "adam-exp_avg-exp_avg_sq")


def check_layouts(storage: str, layouts: list[Callable[[Array], Array]], common: dict[str, Any], shape: Any) -> None:
    """A step of the core: parameter, gradient and two states, each stored and laid out in some way."""
    rng = np.random.default_rng(3)
    drawn = [rng.standard_normal(shape) for _ in range(3)]
    values = [x.astype(d) for x, d in zip([*drawn, rng.random(shape)], dtypes_of(storage), strict=True)]
    hyper = hyper_of(ADAM, "middle")
    (want,), norm = expected(ADAM, hyper, common, 5, [values[0]], [values[1]], [[x] for x in values[2:]], [3])
    p, g, m, v = (layout(x.copy()) for layout, x in zip(layouts, values, strict=True))
    assert step(ADAM, hyper, common, 5, [p], [g], [[m], [v]], [3]) == norm
    for name, a, b in zip(("param", "exp_avg", "exp_avg_sq"), (p, m, v), want, strict=True):
        assert_same_bits(a, b, name)
    assert_same_bits(g, values[1])
    for a in (p, g, m, v):
        if a.base is not None and a.base.size == 2 * a.size:
            assert (a.base[..., 1::2] == -7).all()


@pytest.mark.pairwise("backend", "storage", "param", "grad", "state")
@pytest.mark.parametrize("storage", storages(ADAM))
@pytest.mark.parametrize("param", LAYOUTS)
@pytest.mark.parametrize("grad", LAYOUTS)
@pytest.mark.parametrize("state", LAYOUTS)
def test_step_of_formats(backend: str, storage: str, param: str, grad: str, state: str) -> None:
    layouts = [LAYOUTS[k] for k in (param, grad, state, "permuted")]
    check_layouts(storage, layouts, COMMON["all"], SHAPE)


def channels_last(x: Array) -> Array:
    """As torch lays out images: the second dimension is the innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize("storage", storages(ADAM))
@pytest.mark.parametrize("layout", [channels_last, np.asfortranarray, spread, backwards, beside])
@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (16, 300, 3, 3), (2, 1, 1, 9)])
def test_all_arrays_laid_out_alike(
    backend: str, storage: str, layout: Callable[[Array], Array], shape: tuple[int, ...]
) -> None:
    """A step takes permuted dense arrays in the order in which they lie. Random numbers do not depend on that."""
    check_layouts(storage, [layout] * 4, {}, shape)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm_type", [1, 2, np.inf])
def test_norm_and_clip(backend: str, layout: str, norm_type: float, dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal((37, 41, 11)).astype(STORED[dtype])
    norm = reference.total_norm([x], norm_type)
    g = LAYOUTS[layout](x.copy())
    assert functional.total_norm(g, norm_type) == norm
    assert functional.clip_grad_norm(g, 0.25, norm_type) == norm
    assert_same_bits(g, reference.clip(x, clip_coef=reference.clip_coefficient(norm, 0.25))[0])
    g = LAYOUTS[layout](x.copy())
    functional.clip_grad_value(g, 0.25)
    assert_same_bits(g, reference.clip(x, clip_value=0.25)[0])


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_interleaved_parameters_of_16_bits(backend: str, dtype: np.dtype[Any]) -> None:
    """Neighbours in one word are two tensors."""
    if backend == "cuda" and GPU:
        pytest.skip("each array is copied to the GPU by itself")
    rng = np.random.default_rng(2)
    both, grads = rng.standard_normal((50, 8)).astype(dtype), rng.standard_normal((50, 8)).astype(dtype)
    want = reference.sgd(both, grads, lr=0.5)[0]
    (rule,) = (r for r in KERNELS if rule_id(r) == "sgd")
    for columns in (slice(0, 3), slice(3, 8)), (slice(0, 8, 2), slice(1, 8, 2)):
        p = both.copy()
        step(rule, {"lr": 0.5}, {}, 1, [p[:, c] for c in columns], [grads[:, c] for c in columns], [])
        assert_same_bits(p, want)


def test_interleaved_parameters() -> None:
    """Columns of one buffer share an address range but no element."""
    rng = np.random.default_rng(2)
    both, grads = rng.standard_normal((50, 8)).astype(np.float32), rng.standard_normal((50, 8)).astype(np.float32)
    want = reference.sgd(both, grads, lr=0.5)[0]
    functional.sgd([both[:, :3], both[:, 3:]], [grads[:, :3], grads[:, 3:]], lr=0.5)
    assert_same_bits(both, want)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1)])
def test_shapes_without_strides_to_speak_of(shape: tuple[int, ...]) -> None:
    p, g = np.full(shape, 2.0), np.full(shape, 3.0)
    want = reference.sgd(p, g, lr=0.1)[0]
    functional.sgd(p, g, lr=0.1, max_norm=1e9)
    assert_same_bits(p, want)
