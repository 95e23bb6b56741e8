"""What an option asks for, said here in numbers: cases made from the declarations take their expectation from there."""

from __future__ import annotations

import numpy as np
import pytest

import fusedstep.numpy
from fusedstep import functional, reference
from tests.helpers.bits import Array, assert_same_bits


def arrays() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(5).astype(np.float32), rng.standard_normal(5).astype(np.float32)


HYPER = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.5}


@pytest.mark.parametrize(
    ("cls", "options", "decoupled"),
    [
        ("Adam", {}, False),
        ("Adam", {"decoupled_weight_decay": True}, True),
        ("AdamW", {}, True),
    ],
)
def test_kind_of_decay(cls: str, options: dict[str, bool], decoupled: bool) -> None:
    p, g = arrays()
    zero = np.zeros_like(p)
    want = reference.adam(p, g, zero, zero, step=1, decoupled=decoupled, **HYPER)
    assert (want[0] != reference.adam(p, g, zero, zero, step=1, decoupled=not decoupled, **HYPER)[0]).any()
    ours = p.copy()
    getattr(fusedstep.numpy, cls)([ours], lr=0.1, weight_decay=0.5, **options).step([g])
    assert_same_bits(ours, want[0])
    m, v = zero.copy(), zero.copy()
    getattr(functional, cls.lower())(p, g, m, v, step=1, lr=0.1, weight_decay=0.5, **options)
    for got, w in zip((p, m, v), want, strict=True):
        assert_same_bits(got, w)


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_where_an_accumulator_starts(start: float) -> None:
    p, g = arrays()
    want = reference.adagrad(p, g, np.full_like(p, start), step=1, lr=0.1, eps=1e-10)
    opt = fusedstep.numpy.Adagrad([p], lr=0.1, initial_accumulator_value=start)
    assert (opt.state[0]["sum"] == start).all()
    opt.step([g])
    assert_same_bits(p, want[0])
    assert_same_bits(opt.state[0]["sum"], want[1])


@pytest.mark.parametrize("lr", [0.5, 0.25])
def test_what_starts_at_the_learning_rate(lr: float) -> None:
    """Step sizes of Rprop and the rate of ASGD; of complex numbers both parts."""
    p, g = arrays()
    moved = p.copy()
    opt = fusedstep.numpy.Rprop([moved], lr=lr)
    assert (opt.state[0]["step_size"] == lr).all()
    opt.step([g])
    assert_same_bits(moved, p - np.float32(lr) * np.sign(g))
    complex_ones = fusedstep.numpy.Rprop([p.astype(np.complex64)], lr=lr)
    assert (complex_ones.state[0]["step_size"] == complex(lr, lr)).all()
    moved = p.copy()
    opt = fusedstep.numpy.ASGD([moved], lr=lr, lambd=0.0)
    assert opt.state[0]["eta"] == lr
    opt.step([g])
    assert_same_bits(moved, p - np.float32(lr) * g)


def test_asgd_averages_after_t0() -> None:
    p, g = arrays()
    moved, path = p.astype(np.float64), []
    opt = fusedstep.numpy.ASGD([moved], lr=0.1, t0=2)
    for t in range(1, 7):
        opt.step([g.astype(np.float64)])
        path.append(moved.copy())
        want = path[-1] if t < 5 else np.mean(path[3:], axis=0)
        np.testing.assert_allclose(opt.state[0]["ax"], want, rtol=1e-14)
