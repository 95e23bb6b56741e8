"""What a step on a CUDA device reports and leaves out, decided there: non-finite norms, counts, other ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import fusedstep.torch as fst
from fusedstep import functional, reference
from fusedstep.torch import _ranks
from tests.helpers.devices import HOST, torch_pretending
from tests.helpers.torch_spec import (
    SHORT,
    assert_is,
    expect,
    make,
    make_params,
    params_of,
    set_grads,
    specified_norm,
)

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not HOST, reason="needs the build that runs CUDA on the CPU")]


def values(opt: Any) -> list[Any]:
    """Parameters and state, as bytes."""
    tensors = [*params_of(opt), *(t for p in params_of(opt) for t in opt.state.get(p, {}).values())]
    return [t.detach().numpy().tobytes() for t in tensors]


@pytest.fixture
def host() -> Iterator[Any]:
    with torch_pretending(True) as host:
        yield host


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_skip_is_decided_by_the_kernels(host: Any, name: str, options: dict[str, Any], value: float) -> None:
    opt = make(name, make_params(), max_norm=0.5, nonfinite="skip", **options)
    set_grads(params_of(opt), 0)
    opt.step()
    host.synchronize()
    clipped = 1
    for seed, bad in enumerate([True, False, True, True, False], 1):
        set_grads(params_of(opt), seed)
        want = expect(opt)
        if bad:
            params_of(opt)[-1].grad[2099] = value
        before = values(opt)
        opt.step()
        host.synchronize()
        norm = specified_norm(opt)
        assert opt.total_norm.item() == norm or (math.isnan(norm) and opt.total_norm.isnan())
        if bad:
            assert values(opt) == before
            continue
        assert_is(want, opt)
        clipped += 1
        assert opt.clip_coefficient.item() == reference.clip_coefficient(norm, 0.5) < 1
        assert opt.clipped_steps.item() == clipped
    assert opt.skipped_steps.item() == 3


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_a_first_step_that_is_skipped(host: Any, name: str, options: dict[str, Any]) -> None:
    """State is as if it had not been: SGD's first momentum is the gradient itself."""
    options = {**options, **({"dampening": 0.5} if name == "SGD" else {})}
    opt, other = (make(name, make_params(), max_norm=0.5, nonfinite="skip", **options) for _ in range(2))
    set_grads(params_of(opt), 0)
    params_of(opt)[0].grad[1, 1] = math.nan
    before = [p.detach().clone() for p in params_of(opt)]
    opt.step()
    host.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(params_of(opt), before, strict=True))
    assert opt.skipped_steps.item() == 1
    for seed in (1, 2):
        for each in (opt, other):
            set_grads(params_of(each), seed)
            each.step()
        host.synchronize()
        assert values(opt) == values(other)
    assert (opt.skipped_steps.item(), other.skipped_steps.item()) == (1, 0)


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
def test_found_inf_is_counted(
    host: Any, name: str, options: dict[str, Any], max_norm: float | None, scaled: bool
) -> None:
    opt, unskipped = (make(name, make_params(), max_norm=max_norm, **options) for _ in range(2))
    scale = 8.0 if scaled else 1.0
    for each in (opt, unskipped):
        each.grad_scale = torch.tensor(scale) if scaled else None
        each.found_inf = torch.tensor(0.0)
    for seed, overflow in enumerate([True, False, True, True, False]):
        opt.found_inf = torch.tensor(float(overflow))
        for each in (opt, unskipped):
            set_grads(params_of(each), seed)
        before, want = values(opt), expect(opt, scale)
        opt.step()
        if not overflow:
            unskipped.step()
        host.synchronize()
        if overflow:  # the first one makes state, which the next step then shows to be as new
            assert values(opt)[: len(before)] == before
        else:
            assert_is(want, opt)
            assert values(opt) == values(unskipped)
    assert opt.skipped_steps.item() == 3
    assert (opt.total_norm is None) == (max_norm is None)
    if max_norm is not None:
        assert opt.total_norm.item() == specified_norm(opt, scale)
        assert opt.clipped_steps.item() == (opt.clip_coefficient.item() < 1) * 2


def test_steps_without_a_gradient_and_without_a_limit(host: Any) -> None:
    opt = make("Adam", make_params(), max_norm=1.0)
    opt.step()
    host.synchronize()
    assert (opt.total_norm.item(), opt.clip_coefficient.item(), opt.clipped_steps.item()) == (0.0, 1.0, 0)
    set_grads(params_of(opt), 0)
    opt.param_groups[0]["max_norm"] = None
    opt.step()
    assert opt.total_norm is None
    opt.param_groups[0]["max_norm"] = 1e-3
    opt.step()
    host.synchronize()
    assert opt.clipped_steps.item() == 1


def test_functional_skip(host: Any) -> None:
    p, g = np.ones(5000), np.ones(5000)
    out = np.zeros(1)
    for bad in (False, True):
        g[4999] = math.inf if bad else 1.0
        before = p.copy()
        functional.sgd(p, g, lr=0.1, max_norm=1.0, nonfinite="skip", norm_out=out)
        host.synchronize()
        assert (p == before).all() == bad
        assert math.isinf(out[0]) == bad
    with pytest.raises(ValueError, match="nonfinite='skip' with per_tensor"):
        functional.sgd(p, g, lr=0.1, max_norm=1.0, nonfinite="skip", per_tensor=True)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "raise"])
def test_sums_of_other_ranks(host: Any, monkeypatch: pytest.MonkeyPatch, nonfinite: str) -> None:
    """As if this were rank 1 of two."""
    elsewhere = [4.0, 0.25, 0.0]
    opt = make("AdamW", make_params(), max_norm=0.5, nonfinite=nonfinite)
    monkeypatch.setattr(_ranks.Exchange, "_run", lambda self, sums, failed: [elsewhere, list(sums.values())])
    opt._run.norm_group = "a group"
    for seed in range(2):
        set_grads(params_of(opt), seed)
        sums = [reference.total_norm([p.grad.numpy()]) for p in params_of(opt)]
        own = [float(reference.tree(reference.block_sums(p.grad.numpy(), 2.0))) for p in params_of(opt)]
        assert [math.sqrt(s) for s in own] == sums
        norm = reference.norm_over_ranks([elsewhere, own])
        opt.step()
        host.synchronize()
        assert opt.total_norm.item() == norm
        assert opt.clip_coefficient.item() == reference.clip_coefficient(norm, 0.5)
    out = fst.clip_grad_norm_([params_of(opt)[3]], 1.0)
    assert out.item() == np.float32(sums[3])


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_the_report_is_on_a_device_without_gradients(host: Any, max_norm: float | None) -> None:
    """It is where the first parameter is; the step is elsewhere."""
    params = make_params(shapes=[(3,), (50,)])
    opt = make("SGD", params, max_norm=max_norm)
    params[1].grad = torch.ones(50)
    for tensor in (params[1], params[1].grad):
        host.place(tensor.data_ptr(), 200, 1)
    opt.grad_scale = None
    for overflow in (1.0, 0.0, 1.0):
        opt.found_inf = torch.tensor(overflow)
        before = params[1].detach().clone()
        opt.step()
        host.synchronize()
        assert torch.equal(params[1], before) == bool(overflow)
    assert opt.skipped_steps.item() == 2
    assert max_norm is None or opt.total_norm.item() == reference.total_norm([np.ones(50, np.float32)])
