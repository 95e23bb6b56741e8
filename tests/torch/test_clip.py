"""Clipping: folded into the step (``max_norm``, ``clip_value``), and the functions of ``torch.nn.utils``."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers import declared
from tests.helpers.bits import assert_same_bits
from tests.helpers.torch_spec import (
    CASES,
    LAYOUTS,
    REAL,
    SHORT,
    TIGHT,
    assert_close,
    make,
    make_params,
    reals,
    set_grads,
    snapshot,
    specified_norm,
    step_as_specified,
    torch_total_norm,
)

FUNCTIONS = ("clip_grad_norm_", "clip_grad_value_", "get_total_norm", "clip_grads_with_norm_")
BLOCK = reference.NORM_BLOCK
BORDERS = ((1,), (BLOCK - 1,), (BLOCK,), (BLOCK + 1,), (0,), (3, 2003), ())
NO_EMPTY = tuple(s for s in BORDERS if s != (0,))  # torch has no inf norm of nothing
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=["f32", "f64", "c64", "c128"]
)


def with_grads(dtype=torch.float32, shapes=BORDERS, scale=1.0, seed=0):
    params = make_params(dtype, shapes)
    set_grads(params, seed, scale)
    return params


def grads_of(params):
    return [p.grad for p in params]


def clipped_by_torch(params, max_norm=None, clip_value=None):
    if max_norm is not None:
        utils.clip_grad_norm_(params, max_norm)
    if clip_value is not None:
        utils.clip_grad_value_(params, clip_value)


# ------------------------------------------------------------------------------------------------ folded into the step


@pytest.mark.parametrize(("name", "options"), CASES)
@REAL
@pytest.mark.usefixtures("reading")
def test_step_clips_as_specified(name, options, dtype):
    opt = make(name, params := make_params(dtype, BORDERS), max_norm=1.0, clip_value=0.01, **options)
    for seed, scale in enumerate((1.0, 1e-5, 1e4)):
        set_grads(params, seed, scale)
        grads, norm = [p.grad.clone() for p in params], specified_norm(opt)
        step_as_specified(opt)
        assert (opt.total_norm.dtype, opt.total_norm.shape, opt.total_norm.item()) == (torch.float64, (), norm)
        assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize(
    "limits",
    [{"max_norm": 1.0}, {"clip_value": 0.5}, {"max_norm": 20.0, "clip_value": 0.5}],
    ids=["norm", "value", "both"],
)
@pytest.mark.parametrize("maximize", [False, True])
def test_step_clips_as_torch(name, options, limits, maximize):
    options = {**options, "maximize": maximize}
    options |= declared.known(declared.RULES[name], {"weight_decay": 0.1})  # comes after clipping
    ours = make(name, make_params(torch.float64), **options, **limits)
    theirs = make(name, make_params(torch.float64), torch.optim, **options)
    for seed in range(4):
        for opt in (ours, theirs):
            set_grads(opt.param_groups[0]["params"], seed)
        clipped_by_torch(theirs.param_groups[0]["params"], **limits)
        ours.step()
        theirs.step()
    assert_close(ours, theirs, **TIGHT)


def test_groups_that_have_a_limit_are_one_vector():
    """Groups without one are neither counted nor clipped; each group is clipped to its own."""
    params = [with_grads(shapes=[(5,), (7,)], seed=k) for k in range(4)]
    params[1][0].grad = None
    limits = (1.0, None, 2.0, math.inf)
    opt = make("SGD", [{"params": p, "max_norm": m} for p, m in zip(params, limits, strict=True)], lr=1.0)
    starts = [[p.detach().clone() for p in group] for group in params]
    counted = torch.cat([p.grad for k in (0, 2, 3) for p in params[k]]).double()
    step_as_specified(opt)
    norm = counted.norm().item()
    assert opt.total_norm.item() == pytest.approx(norm, rel=1e-12)
    for group, start, limit in zip(params, starts, limits, strict=True):
        factor = min(1, limit / norm) if limit else 1
        for p, before in zip(group, start, strict=True):
            torch.testing.assert_close(before - p, torch.zeros(5) if p.grad is None else p.grad * factor)


def test_limits_can_change_between_steps():
    opt = make("SGD", params := make_params())
    for seed, limit in enumerate((None, 1.0, 0.0, math.inf, 0.5, None)):
        set_grads(params, seed)
        opt.param_groups[0]["max_norm"] = limit
        step_as_specified(opt)
        assert limit is None or opt.total_norm.item() == specified_norm(opt)


def test_total_norm_of_nothing():
    opt = make("Adam", params := make_params(), max_norm=1.0)
    assert opt.total_norm is None
    opt.step()
    assert not opt.state
    assert opt.total_norm.item() == 0.0
    set_grads(params, 0, 0.0)
    step_as_specified(opt)
    assert opt.total_norm.item() == 0.0


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_non_finite_norm(name, options, value):
    ours, theirs = make(name, make_params(), max_norm=1.0, **options), make(name, make_params(), torch.optim, **options)
    for opt in (ours, theirs):
        params = opt.param_groups[0]["params"]
        set_grads(params, 0)
        params[0].grad[1, 2] = value
    clipped_by_torch(params, 1.0)
    step_as_specified(ours)
    theirs.step()
    assert not math.isfinite(ours.total_norm)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert any(t.isnan().any() for p in params for t in (p, *theirs.state[p].values()))  # torch's sign of a NaN is 0


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("steps", [0, 1])
def test_error_if_nonfinite_changes_nothing(name, options, value, steps):
    opt = make(name, params := make_params(), max_norm=1.0, error_if_nonfinite=True, **options)
    for seed in range(steps):
        set_grads(params, seed)
        step_as_specified(opt)
    set_grads(params, steps)
    params[3].grad[2099] = value
    before = snapshot(opt, params)
    with pytest.raises(RuntimeError, match="non-finite"):
        opt.step()
    assert snapshot(opt, params) == before
    set_grads(params, steps)
    step_as_specified(opt)


def test_error_if_nonfinite_of_one_group_counts():
    params = make_params(shapes=[(4,), (4,)])
    groups = [{"params": params[:1]}, {"params": params[1:], "error_if_nonfinite": True}]
    opt = make("SGD", groups, max_norm=1.0)
    set_grads(params, 0)
    params[0].grad[0] = math.nan
    with pytest.raises(RuntimeError, match="non-finite"):
        opt.step()


def test_norm_that_overflows_float32():
    """The squares, and the norm itself, may leave float32's range while every gradient is in it."""
    for scale in (1e25, 3e38):
        p = nn.Parameter(torch.zeros(1000))
        p.grad = torch.full((1000,), scale)
        opt = make("SGD", [p], lr=1.0, max_norm=1.0)
        step_as_specified(opt)
        torch.testing.assert_close(p, torch.full((1000,), -1 / math.sqrt(1000)))
        assert opt.total_norm.item() == pytest.approx(scale * math.sqrt(1000))


# ---------------------------------------------------------------------------------------------------------- functions


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if hasattr(utils, f)])
def test_signatures_are_torchs(function):
    def arguments(module):
        parameters = inspect.signature(getattr(module, function)).parameters
        return [(k, p.kind, p.default) for k, p in parameters.items()]

    ours, added = arguments(fst), ("norm_group", inspect.Parameter.KEYWORD_ONLY, None)
    assert (added in ours) == (function in ("clip_grad_norm_", "get_total_norm"))
    assert [argument for argument in ours if argument != added] == arguments(utils)


@pytest.mark.parametrize("norm_type", [1, 2, 2.0, math.inf, "inf", 3, 0.5])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
@DTYPES
def test_functions_follow_torch(norm_type, max_norm, dtype):
    tolerance = {"rtol": 1e-4 if dtype.to_real() == torch.float32 else 1e-12, "atol": 0}
    ours, theirs = with_grads(dtype, NO_EMPTY), with_grads(dtype, NO_EMPTY)
    total = fst.get_total_norm(grads_of(ours), norm_type)
    torch.testing.assert_close(total, torch_total_norm(grads_of(theirs), norm_type), **tolerance)
    torch.testing.assert_close(
        fst.clip_grad_norm_(ours, max_norm, norm_type), utils.clip_grad_norm_(theirs, max_norm, norm_type), **tolerance
    )
    torch.testing.assert_close(grads_of(ours), grads_of(theirs), **tolerance)
    again = with_grads(dtype, NO_EMPTY)
    assert fst.clip_grads_with_norm_(again, max_norm, total) is None
    torch.testing.assert_close(grads_of(again), grads_of(theirs), **tolerance)


@pytest.mark.parametrize("norm_type", [1, 2, math.inf, 3])
@REAL
@pytest.mark.usefixtures("reading")
def test_functions_equal_the_specification(norm_type, dtype):
    params = with_grads(dtype)
    grads = [reals(g) for g in grads_of(params)]
    norm = reference.total_norm(grads, norm_type)
    total = fst.get_total_norm(grads_of(params), norm_type)
    assert total.dtype == dtype
    if norm_type == 3:  # needs pow: to a few ulp
        torch.testing.assert_close(total.item(), norm, rtol=4 * torch.finfo(dtype).eps, atol=0)
        return
    assert total.item() == torch.tensor(norm, dtype=dtype).item()
    assert fst.clip_grad_norm_(params, 0.75, norm_type).item() == total.item()
    coefficient = reference.clip_coefficient(norm, 0.75)
    for p, g in zip(params, grads, strict=True):
        assert_same_bits(reals(p.grad), *reference.clip(g, clip_coef=coefficient))


@pytest.mark.parametrize("clip_value", [0.5, 0.0, math.inf])
@REAL
@pytest.mark.usefixtures("reading")
def test_clip_value(clip_value, dtype):
    ours, theirs = with_grads(dtype), with_grads(dtype)
    for params in (ours, theirs):
        params[1].grad[:4] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    grads = [reals(g) for g in grads_of(ours)]
    assert fst.clip_grad_value_(ours, clip_value) is None
    utils.clip_grad_value_(theirs, clip_value)
    for p, q, g in zip(ours, theirs, grads, strict=True):
        assert_same_bits(reals(p.grad), *reference.clip(g, clip_value=clip_value))
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0, equal_nan=True)


@REAL
def test_clip_grads_with_norm(dtype):
    """The norm is the caller's; all are scaled by its coefficient, in float64."""
    params = with_grads(dtype)
    grads = [reals(g) for g in grads_of(params)]
    total = torch.tensor(7.3, dtype=dtype)
    fst.clip_grads_with_norm_(params, 3.0, total)
    for p, g in zip(params, grads, strict=True):
        assert_same_bits(reals(p.grad), *reference.clip(g, clip_coef=reference.clip_coefficient(total.item(), 3.0)))


def test_where_torchs_norm_overflows():
    p = nn.Parameter(torch.zeros(100))
    for scale, finite in ((1e30, True), (3e38, False)):
        p.grad = torch.full((100,), scale)
        assert torch_total_norm([p.grad]).isinf()
        norm = fst.clip_grad_norm_(p, 1.0)
        assert norm.dtype == torch.float32
        assert norm.isfinite() == finite
        torch.testing.assert_close(p.grad, torch.full((100,), 0.1))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("norm_type", [1, 2, math.inf, 3])
def test_functions_of_non_finite_gradients(value, norm_type):
    ours, theirs = with_grads(shapes=NO_EMPTY), with_grads(shapes=NO_EMPTY)
    for params in (ours, theirs):
        params[1].grad[3] = value
    with pytest.raises(RuntimeError, match="non-finite"):
        fst.clip_grad_norm_(ours, 1.0, norm_type, True)
    with pytest.raises(RuntimeError, match="non-finite"):
        fst.get_total_norm(grads_of(ours), norm_type, True)
    assert torch.equal(ours[0].grad, theirs[0].grad)
    norms = [m.clip_grad_norm_(p, 1.0, norm_type) for m, p in ((fst, ours), (utils, theirs))]
    torch.testing.assert_close(*norms, equal_nan=True)
    torch.testing.assert_close(grads_of(ours), grads_of(theirs), equal_nan=True)


@pytest.mark.parametrize("parameters", [[], [nn.Parameter(torch.ones(3))]], ids=["none", "without gradient"])
def test_no_gradients(parameters):
    norm = fst.clip_grad_norm_(parameters, 1.0)
    assert (norm.dtype, norm.shape, norm.item()) == (torch.float32, (), 0.0)
    assert torch.equal(fst.get_total_norm([]), torch.tensor(0.0))
    fst.clip_grad_value_(parameters, 1.0)
    fst.clip_grads_with_norm_(parameters, 1.0, norm)


def test_what_parameters_may_be():
    for wrap in (list, tuple, iter, lambda ps: (p for p in ps), lambda ps: dict(enumerate(ps)).values()):
        params = with_grads()
        params[0].grad = None
        fst.clip_grad_norm_(wrap(params), 0.5)
        assert fst.get_total_norm(wrap([p.grad for p in params[1:]])).item() == pytest.approx(0.5, rel=1e-5)
        fst.clip_grad_value_(wrap(params), 0.001)
        assert max(p.grad.abs().max().item() for p in params[1:] if p.numel()) == pytest.approx(0.001)
    single = with_grads()[1]
    assert fst.clip_grad_norm_(single, 0.5, foreach=False) == fst.get_total_norm(with_grads()[1].grad)
    generator = (p for p in ())
    with pytest.warns(UserWarning, match="generator"):
        assert fst.clip_grad_norm_(generator, 1.0).item() == 0.0


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)], ids=str)
def test_norm_of_mixed_dtypes(dtypes):
    ours, theirs = ([p for dt in dtypes for p in with_grads(dt, [(9,)])] for _ in range(2))
    torch.testing.assert_close(fst.clip_grad_norm_(ours, 0.5), utils.clip_grad_norm_(theirs, 0.5), rtol=1e-6, atol=0)
    torch.testing.assert_close(grads_of(ours), grads_of(theirs), rtol=1e-6, atol=0)


MIXED = list(itertools.product([torch.float32, torch.float64, torch.complex64], repeat=2))


@pytest.mark.parametrize("dtypes", MIXED, ids=str)
def test_the_norm_has_the_dtype_of_torchs(dtypes):
    tensors = [torch.full((3,), 2.0, dtype=dtype) for dtype in dtypes]
    assert fst.get_total_norm(tensors).dtype == torch_total_norm(tensors).dtype
    assert fst.get_total_norm(tensors) == pytest.approx(math.sqrt(24.0), rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("reading")
def test_functions_on_any_layout(layout):
    """The same bits as contiguous gradients, written in place and nowhere else."""
    (plain,) = with_grads(shapes=[(3, 5, 4, 37)])
    laid = nn.Parameter(torch.zeros(3, 5, 4, 37))
    grad = laid.grad = LAYOUTS[layout](plain.grad)
    stride = grad.stride()
    assert fst.clip_grad_norm_([plain], 0.5) == fst.clip_grad_norm_([laid], 0.5)
    fst.clip_grad_value_([plain, laid], 0.01)
    assert laid.grad is grad
    assert grad.stride() == stride
    assert torch.equal(grad, plain.grad)
    memory = torch.empty(0).set_(grad.untyped_storage())
    assert memory.isnan().sum() == memory.numel() - grad.numel()


def test_expanded_gradients_are_read_but_not_written():
    p = nn.Parameter(torch.ones(3, 4))
    p.grad = torch.tensor([1.0, -2.0, 3.0, 4.0]).expand(3, 4)
    assert fst.get_total_norm(p.grad).item() == np.float32(math.sqrt(90))
    others = with_grads()
    before = [g.clone() for g in grads_of(others)]
    for call in (fst.clip_grad_norm_, fst.clip_grad_value_):
        with pytest.raises(ValueError, match=rf"{call.__name__}: grads\[{len(others)}\]"):
            call([*others, p], 0.5)
    assert p.grad[0].tolist() == [1, -2, 3, 4]
    assert all(torch.equal(a, b) for a, b in zip(grads_of(others), before, strict=True))


BAD_GRADS = {
    "int16": (lambda: torch.ones(4, dtype=torch.int16), TypeError),
    "float8": (lambda: torch.ones(4).to(torch.float8_e4m3fn), TypeError),
    "sparse": (lambda: torch.ones(4).to_sparse(), (TypeError, ValueError)),
    "meta": (lambda: torch.ones(4, device="meta"), (TypeError, ValueError)),
}


@pytest.mark.parametrize("what", BAD_GRADS)
@pytest.mark.usefixtures("reading")
def test_functions_refuse_a_bad_gradient_and_change_nothing(what):
    bad, error = BAD_GRADS[what]
    first, second = with_grads(shapes=[(3,), (4,)])
    grad = bad()
    second = torch.empty(4, dtype=grad.dtype, device=grad.device)
    second.grad = grad
    before = reals(first.grad)
    calls = {
        "clip_grad_norm_": lambda: fst.clip_grad_norm_([first, second], 0.5),
        "clip_grad_value_": lambda: fst.clip_grad_value_([first, second], 0.5),
        "clip_grads_with_norm_": lambda: fst.clip_grads_with_norm_([first, second], 0.5, torch.tensor(1.0)),
        "get_total_norm": lambda: fst.get_total_norm([first.grad, grad]),
    }
    for label, call in calls.items():
        with pytest.raises(error, match=rf"{label}: \w+\[1\]"):
            call()
    assert_same_bits(reals(first.grad), before)


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        ("clip_grad_norm_", (-1.0,), {}),
        ("clip_grad_norm_", (math.nan,), {}),
        ("clip_grad_norm_", (0.5, -1.0), {}),
        ("clip_grad_norm_", (0.5, math.nan), {}),
        ("clip_grad_norm_", (0.5,), {"foreach": True}),
        ("clip_grad_value_", (-1.0,), {}),
        ("clip_grad_value_", (math.nan,), {}),
        ("clip_grad_value_", (0.5,), {"foreach": True}),
        ("get_total_norm", (0.0,), {}),
        ("get_total_norm", (), {"foreach": True}),
        ("clip_grads_with_norm_", (-1.0, torch.tensor(1.0)), {}),
        ("clip_grads_with_norm_", (0.5, torch.tensor(1.0)), {"foreach": True}),
    ],
)
def test_functions_refuse_bad_arguments(function, arguments, options):
    (p,) = params = with_grads(shapes=[(3,)])
    before = reals(p.grad)
    with pytest.raises(ValueError, match=f"{function}: {next(iter(options), '')}"):
        getattr(fst, function)(params, *arguments, **options)
    assert_same_bits(reals(p.grad), before)


def test_autograd_knows_which_gradients_were_written():
    for clip, written in (
        (lambda p: fst.clip_grad_norm_([p], 0.5), True),
        (lambda p: fst.clip_grad_value_([p], 0.5), True),
        (lambda p: fst.clip_grads_with_norm_([p], 0.5, torch.tensor(1.0)), True),
        (lambda p: fst.get_total_norm([p.grad]), False),
        (lambda p: make("SGD", [p], max_norm=0.5).step(), False),
    ):
        (p,) = with_grads(shapes=[(3,)])
        version = p.grad._version
        clip(p)
        assert (p.grad._version > version) == written


@REAL
def test_subnormals_whatever_the_caller_flushes(dtype):
    tiny = torch.finfo(dtype).smallest_normal
    params = with_grads(dtype, scale=tiny / 4)
    grads = [reals(g) for g in grads_of(params)]
    coefficient = reference.clip_coefficient(reference.total_norm(grads), tiny * 1e-3)
    wanted = [reference.clip(g, clip_coef=coefficient)[0] for g in grads]
    assert torch.set_flush_denormal(True)
    try:
        fst.clip_grad_norm_(params, tiny * 1e-3)
    finally:
        torch.set_flush_denormal(False)
    for p, w in zip(params, wanted, strict=True):
        assert_same_bits(reals(p.grad), w)
