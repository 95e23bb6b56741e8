"""``fusedstep.torch``: the step itself, against torch.optim and, bit for bit, against the specification."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim import swa_utils
from torch.optim.optimizer import register_optimizer_step_post_hook

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers import declared
from tests.helpers.torch_spec import (
    CASES,
    IN_TORCH,
    LAYOUTS,
    NAMES,
    OURS,
    REAL,
    SHORT,
    TIGHT,
    TORCH_DECOUPLES,
    assert_close,
    assert_is,
    case,
    expect,
    make,
    make_params,
    need_added_state,
    set_grads,
    snapshot,
    specified_norm,
    step_as_specified,
    train,
)

# ------------------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("name", IN_TORCH)
def test_signature_and_class_are_torchs(name):
    def arguments(cls):
        return {k: (p.kind, p.default) for k, p in inspect.signature(cls).parameters.items()}

    ours = arguments(getattr(fst, name))
    if name == "Adam" and not TORCH_DECOUPLES:
        del ours["decoupled_weight_decay"]
    assert {k: ours.pop(k) for k in OURS} == {k: (inspect.Parameter.KEYWORD_ONLY, v) for k, v in OURS.items()}
    theirs = arguments(getattr(torch.optim, name))
    assert ours == theirs
    assert [k for k, (kind, _) in ours.items() if kind is not inspect.Parameter.KEYWORD_ONLY] == [
        k for k, (kind, _) in theirs.items() if kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    opt = make(name, make_params())
    assert isinstance(opt, torch.optim.Optimizer)
    assert isinstance(opt, getattr(torch.optim, name))


def accepting(*choices):
    """Classes with those of the arguments that torch's class has."""
    return [
        (n, k, v) for n in IN_TORCH for k, v in choices if k in inspect.signature(getattr(torch.optim, n)).parameters
    ]


@pytest.mark.parametrize(
    ("name", "argument", "value"), accepting(("foreach", True), ("differentiable", True), ("capturable", True))
)
def test_what_cannot_be_is_refused(name, argument, value):
    with pytest.raises(ValueError, match=argument):
        make(name, make_params(), **{argument: value})
    with pytest.raises(ValueError, match=argument):
        make(name, [{"params": make_params(), argument: value}])
    opt = make(name, make_params())
    with pytest.raises(ValueError, match=argument):
        opt.add_param_group({"params": make_params(), argument: value})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    accepting(("fused", True), ("fused", False), ("fused", None), ("foreach", False), ("foreach", None)),
)
def test_what_changes_nothing_is_accepted(name, argument, value):
    opt = make(name, params := make_params(), **{argument: value})
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)


BAD = [("lr", -1.0), ("weight_decay", -1.0), ("max_norm", -1.0), ("clip_value", -1.0)]
BAD += [("lr", math.nan), ("weight_decay", math.nan), ("max_norm", math.nan), ("clip_value", math.nan)]
OWN_BAD = {
    name: [(o.name, value) for o in rule.own.values() if o.name != "lr" for value in declared.bad_values(o)]
    for name, rule in declared.RULES.items()
}
ALL_BAD = [
    (name, key, value)
    for name, rule in declared.RULES.items()
    for key, value in BAD + OWN_BAD[name]
    if key in rule.defaults
]


@pytest.mark.parametrize(("name", "key", "value"), ALL_BAD)
def test_bad_hyper_parameters(name, key, value):
    with pytest.raises(ValueError):
        make(name, make_params(), **{key: value})
    if key not in {state.start for state in declared.RULES[name].states}:
        opt = make(name, params := make_params())
        set_grads(params, 0)
        opt.param_groups[0][key] = value
        before = snapshot(opt, params)
        with pytest.raises(ValueError, match=key.rstrip("s")):
            opt.step()
        assert snapshot(opt, params) == before


# -------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(("name", "options"), CASES)
@REAL
@pytest.mark.usefixtures("reading")
def test_equals_the_specification(name, options, dtype):
    opt = make(name, params := make_params(dtype), **options)
    for seed in range(4):
        set_grads(params, seed)
        grads = [p.grad.clone() for p in params]
        step_as_specified(opt)
        assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))


@pytest.mark.parametrize(("name", "options"), CASES)
@REAL
def test_follows_torch(name, options, dtype):
    ours, theirs = (make(name, make_params(dtype), module, **options) for module in (fst, torch.optim))
    for opt in (ours, theirs):
        train(opt, 0, 6)
    assert_close(ours, theirs, **(TIGHT if dtype == torch.float64 else {"rtol": 1e-5, "atol": 2e-6}))


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if declared.RULES[c.values[0]].numbers])
def test_follows_torch_closely_where_its_numbers_are_float64(name, options):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        test_follows_torch(name, options, torch.float64)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("options", [{"dampening": 0.5}, {"nesterov": True}], ids=str)
def test_first_momentum_step_copies_the_gradient(options):
    opt = make("SGD", params := make_params(), momentum=0.9, **options)
    set_grads(params, 0)
    opt.step()
    for p in params:
        buffer = opt.state[p]["momentum_buffer"]
        assert torch.equal(buffer, p.grad)
        p.grad.zero_()  # a buffer that shares the gradient's memory would follow
        assert p.numel() == 0 or buffer.count_nonzero() > 0


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_parameters_without_gradient_are_skipped(name, options):
    ours, theirs = (make(name, make_params(torch.float64), module, **options) for module in (fst, torch.optim))
    for seed in range(4):
        for opt in (ours, theirs):
            params = opt.param_groups[0]["params"]
            set_grads(params, seed)
            params[seed % 2].grad = None
            if seed < 2:
                params[3].grad = None
            kept = params[seed % 2].detach().clone()
            opt.step()
            assert torch.equal(params[seed % 2], kept)
    assert_close(ours, theirs, **TIGHT)
    if name != "SGD":
        assert [int(ours.state[p]["step"]) for p in ours.param_groups[0]["params"]] == [2, 2, 4, 2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensor_lr(name, shape):
    """Read at every step: schedulers and users change it in place."""
    lr = torch.full(shape, 0.5)
    opt = make(name, params := make_params(torch.float64), lr=lr)
    for seed in range(3):
        set_grads(params, seed)
        step_as_specified(opt)
        lr.mul_(0.25)
    assert opt.param_groups[0]["lr"] is lr


def test_tensor_betas_and_weight_decay():
    opt = make("Adam", params := make_params(), betas=(torch.tensor(0.75), torch.tensor(0.5)))
    set_grads(params, 0)
    step_as_specified(opt)
    opt = make("SGD", params := make_params(), weight_decay=torch.tensor(0.5))
    set_grads(params, 0)
    step_as_specified(opt)


def test_dtypes_groups_and_many_tensors_in_one_optimizer():
    params = [p for k in range(20) for dt in (torch.float32, torch.float64) for p in make_params(dt, [(k,)], k)]
    groups = [{"params": params[::3], "lr": 0.5}, {"params": params[1::3], "amsgrad": True}, {"params": params[2::3]}]
    opt = make("AdamW", groups, max_norm=1.0)
    for seed in range(3):
        set_grads(params, seed)
        step_as_specified(opt)


# -------------------------------------------------------------------------------------------------- around the step


SCHEDULERS = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o: lrs.StepLR(o, 2),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.25, 1.0, 4),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.5),
    "SequentialLR": lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o, 0.1, 2), lrs.ExponentialLR(o, 0.9)], [3]),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 4, 2.0),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 4),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.1, 2), lrs.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 2),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=8),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.5, 3),
    # Rounding takes the last rate to -2e-18.
    "LinearLR to zero": lambda o: lrs.LinearLR(o, 1 / 3, 0.0, 4),
}


def test_every_scheduler_is_covered():
    assert set(lrs.__all__) - {"LRScheduler"} <= SCHEDULERS.keys()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("name", "options"), [case("SGD", momentum=0.9), case("AdamW")])
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # torch 2.6's own SequentialLR
def test_schedulers(scheduler, name, options, tensor_lr):
    seen = []
    for module in (fst, torch.optim):
        lr = torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1
        opt = make(name, make_params(torch.float64), module, lr=lr, **options)
        schedule = SCHEDULERS[scheduler](opt)
        rates = []
        for seed in range(6):
            train(opt, seed, 1)
            schedule.step(*[1.0] * (scheduler == "ReduceLROnPlateau"))
            rates.append(float(opt.param_groups[0]["lr"]))
        seen.append((opt, rates))
    (ours, our_rates), (theirs, their_rates) = seen
    assert our_rates == their_rates
    assert len(set(our_rates)) > 1
    assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize("name", NAMES)
def test_closure_and_zero_grad(name):
    results = []
    for module in (fst, torch.optim):
        opt = make(name, [w := nn.Parameter(torch.ones(3, dtype=torch.float64))], module)
        losses = []

        def closure(opt=opt, w=w):
            opt.zero_grad()
            assert torch.is_grad_enabled()
            loss = (w**2).sum()
            loss.backward()
            return loss

        for _ in range(3):
            with torch.no_grad():
                losses.append(opt.step(closure).item())
        opt.zero_grad(set_to_none=False)
        assert w.grad.count_nonzero() == 0
        assert opt.step() is None
        opt.zero_grad()
        assert w.grad is None
        opt.step()
        results.append((opt, losses))
    (ours, our_losses), (theirs, their_losses) = results
    assert our_losses == pytest.approx(their_losses, rel=1e-12)
    assert our_losses[0] > our_losses[2]
    assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_add_param_group(name, options):
    need_added_state(name)
    results = []
    for module in (fst, torch.optim):
        opt = make(name, make_params(torch.float64), module, **options)
        train(opt, 0, 2)
        own = declared.known(declared.RULES[name], {"lr": 0.5, "weight_decay": 0.3})
        opt.add_param_group({"params": make_params(torch.float64, [(4,)], seed=9), **own})
        train(opt, 2, 3)
        results.append(opt)
    assert_close(*results, **TIGHT)
    opt = make(name, make_params(), max_norm=1.0)
    opt.add_param_group({"params": make_params(seed=1)})
    assert opt.param_groups[1]["max_norm"] == 1.0


def test_step_hooks():
    opt, calls = make("Adam", params := make_params()), []
    set_grads(params, 0)

    def pre(hooked, args, kwargs):
        assert hooked is opt
        calls.append(("pre", len(opt.state)))
        for p in params:
            p.grad.mul_(2)

    handle = opt.register_step_pre_hook(pre)
    opt.register_step_post_hook(lambda hooked, args, kwargs: calls.append(("post", len(opt.state))))
    everywhere = register_optimizer_step_post_hook(lambda *_: calls.append("global"))
    try:
        opt.step()
    finally:
        everywhere.remove()
    handle.remove()
    opt.step()
    assert calls == [("pre", 0), ("post", 4), "global", ("post", 4)]
    assert torch.equal(opt.state[params[0]]["exp_avg"].sign(), params[0].grad.sign())


@pytest.mark.parametrize("base", NAMES)
@pytest.mark.parametrize("name", ["Mine", "Adam"])
def test_subclasses_keep_the_rule(base, name):
    options = declared.known(declared.RULES[base], {"lr": 0.1, "weight_decay": 0.1})
    opt = type(name, (getattr(fst, base),), {})(params := make_params(), **options)
    set_grads(params, 0)
    other = make(base, others := make_params(), **options)
    set_grads(others, 0)
    opt.step()
    other.step()
    assert_close(opt, other, rtol=0, atol=0)


def test_backward_through_overwritten_values_raises():
    """The step counts as an in-place write to autograd; a parameter that is skipped was not written."""
    w, skipped = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    stale, fresh = (w**2).sum(), (skipped**2).sum()
    w.grad = torch.ones(3)
    make("SGD", [w, skipped]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()
    fresh.backward()


@pytest.mark.usefixtures("reading")
def test_gradient_that_requires_grad():
    w = nn.Parameter(torch.ones(3))
    (w.grad,) = torch.autograd.grad((w**3).sum(), w, create_graph=True)
    assert w.grad.requires_grad
    step_as_specified(make("Adam", [w], max_norm=1.0))


@pytest.mark.parametrize(
    "kind", [nn.Parameter, lambda t: t, lambda t: t.as_subclass(type("Plain", (torch.Tensor,), {}))]
)
def test_kinds_of_leaf(kind):
    p = kind(torch.ones(5))
    p.grad = torch.ones(5)
    step_as_specified(make("AdamW", [p]))


@REAL
@pytest.mark.parametrize("size", [1000, 300_000])  # the second is shared out among threads
def test_subnormals_whatever_the_caller_flushes(dtype, size):
    tiny = torch.finfo(dtype).smallest_normal
    params = [nn.Parameter(torch.linspace(-4 * tiny, 4 * tiny, size, dtype=dtype))]
    opt = make("SGD", params, momentum=0.9, max_norm=tiny)
    for scale in (tiny / 8, 1.0):
        set_grads(params, 0, scale)
        expected, norm = expect(opt), specified_norm(opt)  # by NumPy, before it would flush too
        assert torch.set_flush_denormal(True)
        try:
            opt.step()
            assert (torch.tensor([tiny], dtype=dtype) / 4).item() == 0  # the caller's setting is back
        finally:
            torch.set_flush_denormal(False)
        assert_is(expected, opt)
        assert opt.total_norm.item() == norm


# ------------------------------------------------------------------------------------------------------------ layouts


@pytest.mark.pairwise("reading", "param_layout", "grad_layout", "dtype")
@pytest.mark.parametrize("param_layout", LAYOUTS)
@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=["f32", "c128"])
@pytest.mark.usefixtures("reading")
def test_layouts(param_layout, grad_layout, dtype):
    """The same bits, norm included, as for contiguous tensors; what lies between the elements stays."""
    (start,) = make_params(dtype, [(3, 5, 4, 37)])
    plain = nn.Parameter(start.detach().clone())
    laid = LAYOUTS[param_layout](start.detach()).requires_grad_()
    opts = [make("Adam", [p], amsgrad=True, max_norm=1.0) for p in (plain, laid)]
    for seed in range(2):
        set_grads([plain], seed)
        laid.grad = LAYOUTS[grad_layout](plain.grad)
        assert laid.grad.stride() == LAYOUTS[grad_layout](start).stride()
        for opt in opts:
            step_as_specified(opt)
        assert_close(*opts, rtol=0, atol=0)
        assert opts[0].total_norm == opts[1].total_norm
    if param_layout in ("sliced", "offset"):
        base = torch.empty(0, dtype=dtype).set_(laid.untyped_storage())
        assert base.isnan().sum() == base.numel() - laid.numel()


@pytest.mark.usefixtures("reading")
def test_expanded_gradients_are_read_right():
    for grad in (torch.tensor(2.0).expand(4, 4), torch.randn(4).expand(4, 4), torch.arange(10.0).unfold(0, 4, 2)):
        p = nn.Parameter(torch.ones(4, 4))
        p.grad = grad
        opt = make("SGD", [p], momentum=0.9, max_norm=1.0)
        step_as_specified(opt)
        assert opt.total_norm.item() == reference.total_norm([grad.contiguous().numpy()])
