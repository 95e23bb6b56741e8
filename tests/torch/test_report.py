"""What a step tells (norm, coefficient, counts) and leaves out (``nonfinite``), through wrappers and torch.compile."""

import copy
import logging
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers.torch_spec import (
    SHORT,
    assert_is,
    expect,
    make,
    make_params,
    params_of,
    set_grads,
    snapshot,
    specified_norm,
    step_as_specified,
    torch_total_norm,
)

NOT_FINITE = pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])


def report(opt):
    """Norm and coefficient (None stays None), then the counts."""
    numbers = [None if x is None else x.item() for x in (opt.total_norm, opt.clip_coefficient)]
    return (*numbers, opt.clipped_steps.item(), opt.skipped_steps.item())


# ------------------------------------------------------------------------------------------------------------- report


def test_report_of_each_step():
    opt = make("AdamW", params := make_params(), max_norm=1.0)
    assert report(opt) == (None, None, 0, 0)
    clipped = 0
    for seed, scale in enumerate((1.0, 1e-6, 0.0, 1e4)):
        set_grads(params, seed, scale)
        norm = specified_norm(opt)
        step_as_specified(opt)
        coefficient = reference.clip_coefficient(norm, 1.0)
        clipped += coefficient < 1
        assert report(opt) == (norm, coefficient, clipped, 0)
    assert clipped == 2


def test_types_and_snapshots():
    opt = make("SGD", params := make_params(), max_norm=1.0)
    set_grads(params, 0)
    opt.step()
    seen = [opt.total_norm, opt.clip_coefficient, opt.clipped_steps, opt.skipped_steps]
    assert [(t.dtype, t.shape, t.device.type) for t in seen] == [
        (dtype, (), "cpu") for dtype in (torch.float64, torch.float64, torch.int64, torch.int64)
    ]
    before = [t.item() for t in seen]
    set_grads(params, 1, 100.0)
    opt.step()
    assert [t.item() for t in seen] == before
    assert report(opt)[0] != before[0]
    for t in (opt.total_norm, opt.clipped_steps):
        t.fill_(99)
    assert report(opt)[0] != 99
    assert report(opt)[2] == 2


def test_the_smallest_coefficient_of_several_groups():
    params = make_params(shapes=[(5,), (6,), (7,)])
    limits = (2.0, None, 0.25)
    opt = make("SGD", [{"params": [p], "max_norm": m} for p, m in zip(params, limits, strict=True)])
    set_grads(params, 0, 10.0)
    norm = specified_norm(opt)
    step_as_specified(opt)
    assert report(opt) == (norm, reference.clip_coefficient(norm, 0.25), 1, 0)


def test_no_limit_no_norm():
    opt = make("SGD", params := make_params(), max_norm=1.0, clip_value=0.5)
    set_grads(params, 0)
    opt.step()
    opt.param_groups[0]["max_norm"] = None
    opt.step()
    assert report(opt) == (None, None, 1, 0)


def test_nothing_of_it_is_saved():
    opt = make("Adam", params := make_params(), max_norm=0.1)
    set_grads(params, 0)
    opt.step()
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert report(other) == (None, None, 0, 0)
    other = make("Adam", make_params(), max_norm=0.1)
    other.load_state_dict(opt.state_dict())
    assert report(other) == (None, None, 0, 0)
    opt.load_state_dict(opt.state_dict())  # a checkpoint does not reset the counts of the run either
    assert report(opt)[2] == 1


def test_a_wrapper_that_copies_the_dict():
    """As Lightning's and accelerate's: it was made before the first step, or between two."""

    class Wrapper:
        def __init__(self, opt):
            self.__dict__ = {k: v for k, v in opt.__dict__.items() if k not in ("step",)}
            self.__class__ = type("Wrapped", (Wrapper, type(opt)), {})

    opt = make("AdamW", params := make_params(), max_norm=1.0)
    early = Wrapper(opt)
    for seed in range(2):
        set_grads(params, seed, 10.0**seed)
        opt.step()
        assert report(early) == report(opt)
        assert report(Wrapper(opt)) == report(opt)
    assert early._step_supports_amp_scaling
    assert early.norm_group is None
    early._run.lost_norm_group = True
    early.norm_group = None  # set on the wrapper, meant for the optimizer
    opt.step()


# ---------------------------------------------------------------------------------------------------------- nonfinite


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("steps", [0, 2])
@NOT_FINITE
def test_skip_leaves_everything(name, options, steps, value):
    opt = make(name, params := make_params(), max_norm=1.0, nonfinite="skip", **options)
    for seed in range(steps):
        set_grads(params, seed)
        step_as_specified(opt)
    set_grads(params, steps)
    params[3].grad[2099] = value
    before = snapshot(opt, params)
    opt.step()
    assert snapshot(opt, params) == before
    norm, coefficient, clipped, skipped = report(opt)
    assert (math.isnan(norm), math.isinf(norm)) == (math.isnan(value), math.isinf(value))
    assert coefficient == reference.clip_coefficient(norm, 1.0) or math.isnan(coefficient)
    assert (clipped, skipped) == (steps, 1)
    set_grads(params, steps)
    step_as_specified(opt)
    assert report(opt)[3] == 1


def test_skip_in_one_group_is_for_all():
    """The norm is one, and the strictest word about it counts."""
    params = make_params(shapes=[(4,), (4,), (4,)])
    groups = [{"params": [p]} for p in params]
    groups[1]["nonfinite"] = "skip"
    opt = make("SGD", groups, max_norm=1.0)
    set_grads(params, 0)
    params[0].grad[0] = math.nan
    before = snapshot(opt, params)
    opt.step()
    assert snapshot(opt, params) == before
    opt.param_groups[2]["nonfinite"] = "raise"
    with pytest.raises(RuntimeError, match=r"SGD: the total norm is non-finite"):
        opt.step()
    assert snapshot(opt, params) == before
    assert report(opt)[3] == 1


@NOT_FINITE
def test_raise_is_error_if_nonfinite(value):
    for options in ({"nonfinite": "raise"}, {"error_if_nonfinite": True}):
        opt = make("Adam", params := make_params(), max_norm=1.0, **options)
        group = opt.param_groups[0]
        assert (group["nonfinite"], group["error_if_nonfinite"]) == ("raise", True)
        set_grads(params, 0)
        params[0].grad[0, 0] = value
        before = snapshot(opt, params)
        with pytest.raises(RuntimeError, match="non-finite"):
            opt.step()
        assert snapshot(opt, params) == before


def test_max_norm_inf_looks_and_clips_nothing():
    opt, plain = make("SGD", make_params(), max_norm=math.inf, nonfinite="skip"), make("SGD", make_params())
    for each in (opt, plain):
        set_grads(params_of(each), 0, 1e6)
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(params_of(opt), params_of(plain), strict=True))
    params_of(opt)[0].grad[0, 0] = math.nan
    before = snapshot(opt, params_of(opt))
    opt.step()
    assert snapshot(opt, params_of(opt)) == before
    assert report(opt)[1:] != (1.0, 0, 0)
    assert report(opt)[2:] == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonfinite": "skip"}, "nonfinite='skip' without max_norm"),
        ({"nonfinite": "raise"}, "without max_norm"),
        ({"error_if_nonfinite": True}, "error_if_nonfinite .*without max_norm"),
        (
            {"nonfinite": "ignore", "max_norm": 1.0},
            "nonfinite is 'ignore', expected one of 'propagate', 'skip', 'raise'",
        ),
        ({"nonfinite": None, "max_norm": 1.0}, "nonfinite is None, expected"),
        ({"nonfinite": "skip", "error_if_nonfinite": True, "max_norm": 1.0}, "expected one of them"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=f"SGD: .*{message}"):
        make("SGD", make_params(), **options)


def test_a_limit_that_is_taken_away_is_missed():
    opt = make("SGD", params := make_params(), max_norm=1.0, nonfinite="skip")
    set_grads(params, 0)
    opt.param_groups[0]["max_norm"] = None
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match="nonfinite='skip' without max_norm"):
        opt.step()
    assert snapshot(opt, params) == before


# ------------------------------------------------------------------------------------------------------- GradScaler


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_steps_that_found_inf_are_counted(name, options, max_norm):
    opt = make(name, params := make_params(), max_norm=max_norm, **options)
    for seed, overflow in enumerate((1.0, 0.0, 1.0, 1.0)):
        set_grads(params, seed, 4.0)
        opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(overflow)
        if overflow:
            params[0].grad[0, 0] = math.inf
            before = snapshot(opt, params)
            opt.step()
            assert snapshot(opt, params) == before
            assert max_norm is None or opt.total_norm.isinf()
        else:
            expected = expect(opt, grad_scale=4.0)
            opt.step()
            assert_is(expected, opt)
            assert max_norm is None or opt.total_norm.item() == specified_norm(opt, 4.0)
    assert opt.skipped_steps.item() == 3


def test_a_scaler_that_skips_itself_is_not_seen():
    opt = make("SGD", params := make_params())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    set_grads(params, 0)
    params[0].grad[0, 0] = math.nan
    before = [p.detach().clone() for p in params]
    scaler.step(opt)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert scaler.get_scale() == 4.0
    assert report(opt) == (None, None, 0, 0)


# ------------------------------------------------------------------------------------------------------ torch.compile


@pytest.fixture
def quiet(caplog):
    """torch.compile, from nothing; warnings are errors, and Dynamo must log nothing."""
    torch._dynamo.reset()
    logger = logging.getLogger("torch._dynamo")
    before = logger.propagate
    logger.propagate = True
    torch_logger = logging.getLogger("torch")
    torch_before, torch_logger.propagate = torch_logger.propagate, True
    try:
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            yield
    finally:
        logger.propagate, torch_logger.propagate = before, torch_before
        torch._dynamo.reset()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING], caplog.text


def compiled(function):
    return torch.compile(function, backend="eager")


@pytest.mark.parametrize("how", ["step", "function", "resumed"])
@pytest.mark.usefixtures("quiet")
def test_steps_around_which_something_is_compiled(how):
    """Dynamo stays out of the step: the results and the report are those of an eager run."""
    results = []
    for compile_ in (lambda f: f, compiled):
        torch.manual_seed(0)
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(12)])
        opt = fst.AdamW(model.parameters(), lr=1e-2, max_norm=0.5)

        def loss_of(x, model=model):
            return model(x).square().mean()

        def train(x, opt=opt, loss_of=loss_of):
            loss = loss_of(x)
            loss.backward()
            if how == "resumed":
                print(end="")  # a graph break: what follows is compiled anew
            opt.step()
            opt.zero_grad()

        step = compile_(opt.step) if how == "step" else compile_(train)
        norms = []
        for k in range(12):  # more than Dynamo compiles a frame anew
            x = torch.full((4, 8), 1.0 + k)
            if how == "step":
                loss_of(x).backward()
                norm = torch_total_norm([p.grad for p in model.parameters()])
                step()
                assert opt.total_norm.item() == pytest.approx(norm.item(), rel=1e-5)
                opt.zero_grad()
            else:
                step(x)
            norms.append(report(opt))
        results.append((norms, [p.detach().clone() for p in model.parameters()]))
    (eager, eager_params), (others, params) = results
    assert eager == others
    assert all(torch.equal(a, b) for a, b in zip(eager_params, params, strict=True))


@pytest.mark.usefixtures("quiet")
def test_clip_functions_inside_a_compiled_function():
    def clip(p):
        norm = fst.clip_grad_norm_([p], 0.5) + fst.get_total_norm([p.grad])
        fst.clip_grad_value_([p], 0.1)
        fst.clip_grads_with_norm_([p], 0.5, norm)
        return norm * 2

    for function in (clip, compiled(clip)):
        for size in range(3, 15):
            p = nn.Parameter(torch.zeros(size))
            p.grad = torch.arange(float(size))
            norm = function(p)
            q = nn.Parameter(torch.zeros(size))
            q.grad = torch.arange(float(size))
            assert norm == clip(q)
            assert torch.equal(p.grad, q.grad)
