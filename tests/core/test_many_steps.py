"""Step counts far from the start: of a training that goes on for long, in each class that counts by itself."""

from __future__ import annotations

import numpy as np
import pytest

import fusedstep.numpy
from fusedstep import _core, reference
from tests.helpers.bits import Array, assert_same_bits

HYPER = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
# Where a count of 8 or 16 bits would end, and a few steps that a short test never reaches.
STARTS = [0, 98, 126, 254, 998, 32_766, 65_534, 2**24 - 3]
STEPS = 4


def arrays() -> list[Array]:
    rng = np.random.default_rng(0)
    m, v, p, g = (rng.standard_normal(5).astype(np.float32) for _ in range(4))
    return [p, g, m, np.abs(v)]


def specified(start: int, p: Array, g: Array, m: Array, v: Array) -> list[Array]:
    for t in range(start + 1, start + STEPS + 1):
        p, m, v = reference.adamw(p, g, m, v, step=t, decoupled=True, **HYPER)
    return [p, m, v]


@pytest.mark.parametrize("start", [*STARTS, 2**31 - 2, 2**32 - 2, 2**40, _core.most_steps - STEPS - 1])
def test_numpy(start: int) -> None:
    p, g, m, v = arrays()
    want = specified(start, p, g, m, v)
    opt = fusedstep.numpy.AdamW([p], lr=0.01)
    opt.state[0].update(step=start, exp_avg=m, exp_avg_sq=v)
    for k in range(STEPS):
        opt.step([g])
        assert opt.state[0]["step"] == start + k + 1
    for got, w in zip((p, m, v), want, strict=True):
        assert_same_bits(got, w)


@pytest.mark.parametrize("start", STARTS)
def test_torch(start: int) -> None:
    torch = pytest.importorskip("torch")
    import fusedstep.torch

    p, g, m, v = arrays()
    want = specified(start, p, g, m, v)
    param = torch.from_numpy(p).requires_grad_()
    param.grad = torch.from_numpy(g)
    opt = fusedstep.torch.AdamW([param], lr=0.01)
    opt.state[param] = {"step": torch.tensor(float(start)), "exp_avg": torch.from_numpy(m)}
    opt.state[param]["exp_avg_sq"] = torch.from_numpy(v)
    for k in range(STEPS - 1):
        opt.step()
        assert opt.state[param]["step"].item() == start + k + 1
    opt.step()
    # A float32 count cannot go beyond 2^24, in torch as here.
    assert opt.state[param]["step"].item() == min(start + STEPS, 2**24)
    for got, w in zip((p, m, v), want, strict=True):
        assert_same_bits(got, w)


def test_a_training_of_many_steps() -> None:
    """One that counts from the first step on."""
    p, g, *_ = arrays()
    m, v = np.zeros_like(p), np.zeros_like(p)
    ours = p.copy()
    opt = fusedstep.numpy.AdamW([ours], lr=0.01)
    for t in range(1, 301):
        opt.step([g])
        p, m, v = reference.adamw(p, g, m, v, step=t, decoupled=True, **HYPER)
    assert opt.state[0]["step"] == 300
    assert_same_bits(ours, p)
