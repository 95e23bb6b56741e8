"""``fusedstep.torch``: the step itself, against torch.optim and, bit for bit, against the specification."""

import gc
import inspect
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

import fusedstep.torch as fst
from fusedstep import _core, reference

OURS = {"max_norm": None, "clip_value": None, "error_if_nonfinite": False}
SHAPES = ((3, 5), (), (0, 2), (2100,))
HYPER = {
    "SGD": ("lr", "momentum", "dampening", "nesterov"),
    "Adagrad": ("lr", "lr_decay", "eps"),
    "RMSprop": ("lr", "alpha", "eps", "momentum"),
    "Adam": ("lr", "eps"),
    "AdamW": ("lr", "eps"),
}
NAMES = tuple(HYPER)


def case(name, **options):
    return pytest.param(name, options, id="-".join([name, *options]))


CASES = [
    case("SGD"),
    case("SGD", weight_decay=0.1, maximize=True),
    case("SGD", momentum=0.9),
    case("SGD", momentum=0.9, dampening=0.3, weight_decay=0.1),
    case("SGD", momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True),
    case("SGD", momentum=0.9, nesterov=True, weight_decay=0.1),
    case("Adagrad"),
    case("Adagrad", lr_decay=0.1, weight_decay=0.1),
    case("Adagrad", initial_accumulator_value=0.5, eps=1e-3, maximize=True),
    case("RMSprop"),
    case("RMSprop", momentum=0.9, weight_decay=0.1),
    case("RMSprop", centered=True, alpha=0.8),
    case("RMSprop", centered=True, momentum=0.9, weight_decay=0.1, maximize=True, eps=1e-3),
    case("Adam"),
    case("Adam", amsgrad=True, betas=(0.8, 0.95)),
    case("Adam", weight_decay=0.1, maximize=True, eps=1e-3),
    case("Adam", weight_decay=0.1, decoupled_weight_decay=True, amsgrad=True),
    case("AdamW"),
    case("AdamW", weight_decay=0.1, amsgrad=True, maximize=True),
]
SHORT = [case("SGD", momentum=0.9), case("Adagrad"), case("RMSprop", centered=True), case("Adam"), case("AdamW")]


@pytest.fixture(params=["exchange", "fallback"])
def reading(request):
    """How arrays are read: through the C exchange API of DLPack, or as with a torch that lacks it."""
    _core.set_exchange_api(request.param == "exchange")
    yield
    _core.set_exchange_api(True)


@pytest.fixture
def flush_denormal():
    yield lambda: torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)


def make_params(dtype=torch.float32, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes]


def set_grads(params, seed, scale=1.0):
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator) * scale


def make(name, params, module=fst, **options):
    if module is torch.optim:
        options.setdefault("foreach", False)
    return getattr(module, name)(params, **{"lr": 0.05, **options})


def train(opt, first, steps, scale=1.0):
    params = [p for group in opt.param_groups for p in group["params"]]
    for seed in range(first, first + steps):
        set_grads(params, seed, scale)
        opt.step()


def reals(tensor):
    """A copy as the specification sees it: complex numbers as pairs of reals."""
    tensor = tensor.detach()
    return np.array((torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy())


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    nan = np.isnan(a)
    same = np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a) | nan, np.signbit(b) | nan)
    return same and a.dtype == b.dtype


def rule_name(opt):
    return next(cls.__name__ for cls in type(opt).__mro__ if cls.__module__.startswith("fusedstep."))


def state_names(name, group):
    if name == "SGD":
        return ["momentum_buffer"] * (group["momentum"] != 0)
    if name == "Adagrad":
        return ["sum"]
    if name == "RMSprop":
        return [
            "square_avg",
            *["grad_avg"] * group["centered"],
            *["momentum_buffer"] * (group["momentum"] != 0),
        ]
    return ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"]]


def specified_norm(opt, grad_scale=1.0):
    grads = [
        reals(p.grad)
        for group in opt.param_groups
        if group["max_norm"] is not None
        for p in group["params"]
        if p.grad is not None
    ]
    return reference.total_norm(grads) / grad_scale


def expect(opt, grad_scale=1.0):
    """What the next step must leave in each parameter and its state, by the specification."""
    name, expected = rule_name(opt), {}
    norm = specified_norm(opt, grad_scale)
    for group in opt.param_groups:
        options = {k: float(group[k]) for k in HYPER[name]}
        if "betas" in group:
            options["beta1"], options["beta2"] = map(float, group["betas"])
            options["decoupled"] = name == "AdamW" or group["decoupled_weight_decay"]
        if group["max_norm"] is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, group["max_norm"])
        for key in ("weight_decay", "maximize", "clip_value"):
            options[key] = group[key]
        rule = reference.adam if name == "AdamW" else getattr(reference, name.lower())
        names = state_names(name, group)
        for p in group["params"]:
            if p.grad is None:
                continue
            state = opt.state.get(p) or {}
            arrays = {k: np.full_like(reals(p), group.get("initial_accumulator_value", 0)) for k in names}
            arrays.update({k: reals(state[k]) for k in names if state.get(k) is not None})
            step = int(state["step"]) + 1 if "step" in state else 1 + ("momentum_buffer" in state)
            new = rule(reals(p), reals(p.grad), **arrays, step=step, grad_scale=grad_scale, **options)
            expected[p] = dict(zip(["param", *names], new, strict=True))
            if name != "SGD":
                expected[p]["step"] = np.float32(step)
    return expected


def assert_is(expected, opt):
    for p, values in expected.items():
        got = {"param": p, **opt.state.get(p, {})}
        assert got.keys() == values.keys()
        wrong = [k for k, value in values.items() if not same_bits(reals(got[k]), value)]
        assert not wrong, f"{wrong} of a parameter of shape {tuple(p.shape)} differ from the specification"


def step_as_specified(opt, grad_scale=1.0):
    expected = expect(opt, grad_scale)
    opt.step()
    assert_is(expected, opt)


def assert_close(ours, theirs, **tolerance):
    """Parameters and state of two optimizers."""
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(a["params"], b["params"], strict=True):
            torch.testing.assert_close(p, q, **tolerance)
            assert ours.state.get(p, {}).keys() == theirs.state.get(q, {}).keys()
            for key, value in theirs.state.get(q, {}).items():
                torch.testing.assert_close(ours.state[p][key], value, **tolerance)


TIGHT = {"rtol": 1e-12, "atol": 1e-13}


# ------------------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_class_are_torchs(name):
    def arguments(cls):
        return {k: (p.kind, p.default) for k, p in inspect.signature(cls).parameters.items()}

    ours = arguments(getattr(fst, name))
    assert {k: ours.pop(k) for k in OURS} == {k: (inspect.Parameter.KEYWORD_ONLY, v) for k, v in OURS.items()}
    assert list(ours.items()) == list(arguments(getattr(torch.optim, name)).items())
    opt = make(name, make_params())
    assert isinstance(opt, torch.optim.Optimizer)
    assert isinstance(opt, getattr(torch.optim, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["foreach", "differentiable", "capturable"])
def test_what_cannot_be_is_refused(name, argument):
    if argument not in inspect.signature(getattr(fst, name)).parameters:
        pytest.skip("not an argument of this class")
    with pytest.raises(ValueError, match=argument):
        make(name, make_params(), **{argument: True})
    with pytest.raises(ValueError, match=argument):
        make(name, [{"params": make_params(), argument: True}])
    opt = make(name, make_params())
    with pytest.raises(ValueError, match=argument):
        opt.add_param_group({"params": make_params(), argument: True})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"fused": True}, {"fused": False}, {"foreach": False}, {"foreach": None}], ids=str)
def test_what_changes_nothing_is_accepted(name, options):
    if not options.keys() <= inspect.signature(getattr(fst, name)).parameters.keys():
        pytest.skip("not an argument of this class")
    opt = make(name, make_params(), **options)
    for seed in range(2):
        set_grads(opt.param_groups[0]["params"], seed)
        step_as_specified(opt)


BAD = [("lr", -1.0), ("weight_decay", -1.0), ("max_norm", -1.0), ("clip_value", -1.0)]
BAD += [("lr", math.nan), ("weight_decay", math.nan), ("max_norm", math.nan), ("clip_value", math.nan)]
OWN_BAD = {
    "SGD": [("momentum", -0.1), ("momentum", math.nan), ("dampening", math.nan), ("nesterov", True)],
    "Adagrad": [("lr_decay", -1.0), ("eps", math.nan), ("initial_accumulator_value", -1.0)],
    "RMSprop": [("alpha", -1.0), ("momentum", -1.0), ("eps", -1.0)],
    "Adam": [("betas", (1.0, 0.9)), ("betas", (0.9, -0.1)), ("betas", (math.nan, 0.9)), ("eps", -1e-8)],
    "AdamW": [("betas", (0.9, 1.0)), ("eps", math.nan)],
}


@pytest.mark.parametrize(("name", "key", "value"), [(n, *bad) for n in NAMES for bad in BAD + OWN_BAD[n]])
def test_bad_hyper_parameters(name, key, value):
    with pytest.raises(ValueError):
        make(name, make_params(), **{key: value})
    if key != "initial_accumulator_value":
        opt = make(name, params := make_params())
        set_grads(params, 0)
        opt.param_groups[0][key] = value
        before = snapshot(opt, params)
        with pytest.raises(ValueError, match=key.rstrip("s")):
            opt.step()
        assert snapshot(opt, params) == before


# -------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.usefixtures("reading")
def test_equals_the_specification(name, options, dtype):
    opt = make(name, params := make_params(dtype), **options)
    for seed in range(4):
        set_grads(params, seed)
        grads = [p.grad.clone() for p in params]
        step_as_specified(opt)
        assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, TIGHT), (torch.float32, {"rtol": 1e-5, "atol": 2e-6})],
    ids=["f64", "f32"],
)
def test_follows_torch(name, options, dtype, tolerance):
    ours, theirs = (make(name, make_params(dtype), module, **options) for module in (fst, torch.optim))
    for opt in (ours, theirs):
        train(opt, 0, 6)
    assert_close(ours, theirs, **tolerance)


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


def test_no_gradients_at_all():
    opt = make("AdamW", make_params(), max_norm=1.0)
    opt.step()
    assert not opt.state


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
    "LambdaLR": lambda o, m: m.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o, m: m.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o, m: m.StepLR(o, 2),
    "MultiStepLR": lambda o, m: m.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o, m: m.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o, m: m.LinearLR(o, 0.25, 1.0, 4),
    "ExponentialLR": lambda o, m: m.ExponentialLR(o, 0.5),
    "SequentialLR": lambda o, m: m.SequentialLR(o, [m.ConstantLR(o, 0.1, 2), m.ExponentialLR(o, 0.9)], [3]),
    "PolynomialLR": lambda o, m: m.PolynomialLR(o, 4, 2.0),
    "CosineAnnealingLR": lambda o, m: m.CosineAnnealingLR(o, 4),
    "ChainedScheduler": lambda o, m: m.ChainedScheduler([m.ConstantLR(o, 0.1, 2), m.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": lambda o, m: m.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o, m: m.CyclicLR(o, 0.01, 0.1, 2),
    "CosineAnnealingWarmRestarts": lambda o, m: m.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o, m: m.OneCycleLR(o, 0.1, total_steps=8),
    "SWALR": lambda o, m: swa_utils.SWALR(o, 0.5, 3),
    # Rounding takes the last rate to -2e-18.
    "LinearLR to zero": lambda o, m: m.LinearLR(o, 1 / 3, 0.0, 4),
}


def test_every_scheduler_is_covered():
    assert set(lr_scheduler.__all__) - {"LRScheduler"} <= SCHEDULERS.keys()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("name", "options"), [case("SGD", momentum=0.9), case("AdamW")])
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_schedulers(scheduler, name, options, tensor_lr):
    seen = []
    for module in (fst, torch.optim):
        lr = torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1
        opt = make(name, make_params(torch.float64), module, lr=lr, **options)
        schedule = SCHEDULERS[scheduler](opt, lr_scheduler)
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
    results = []
    for module in (fst, torch.optim):
        opt = make(name, make_params(torch.float64), module, **options)
        train(opt, 0, 2)
        opt.add_param_group({"params": make_params(torch.float64, [(4,)], seed=9), "lr": 0.5, "weight_decay": 0.3})
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
    everywhere = torch.optim.optimizer.register_optimizer_step_post_hook(lambda *_: calls.append("global"))
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
    opt = type(name, (getattr(fst, base),), {})(params := make_params(), lr=0.1, weight_decay=0.1)
    set_grads(params, 0)
    other = make(base, others := make_params(), lr=0.1, weight_decay=0.1)
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
    (w**3).sum().backward(create_graph=True)
    assert w.grad.requires_grad
    step_as_specified(make("Adam", [w], max_norm=1.0))


@pytest.mark.parametrize("kind", [nn.Parameter, lambda t: t, lambda t: t.as_subclass(type("Plain", (torch.Tensor,), {}))])
def test_kinds_of_leaf(kind):
    p = kind(torch.ones(5))
    p.grad = torch.ones(5)
    step_as_specified(make("AdamW", [p]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("size", [1000, 300_000])  # the second is shared out among threads
def test_subnormals_whatever_the_caller_flushes(dtype, size, flush_denormal):
    tiny = torch.finfo(dtype).smallest_normal
    params = [nn.Parameter(torch.linspace(-4 * tiny, 4 * tiny, size, dtype=dtype))]
    opt = make("SGD", params, momentum=0.9, max_norm=tiny)
    for scale in (tiny / 8, 1.0):
        set_grads(params, 0, scale)
        expected = expect(opt)  # by NumPy, before it would flush too
        norm = specified_norm(opt)
        assert flush_denormal()
        opt.step()
        still_flushing = (torch.tensor([tiny], dtype=dtype) / 4).item() == 0
        torch.set_flush_denormal(False)
        assert still_flushing
        assert_is(expected, opt)
        assert float(opt.total_norm) == norm


# ------------------------------------------------------------------------------------------------------------ layouts


def sliced(x):
    return torch.full((*x.shape, 2), math.nan, dtype=x.dtype)[..., 0].copy_(x)


def offset(x):
    return torch.full((x.numel() + 2,), math.nan, dtype=x.dtype)[1:-1].view(x.shape).copy_(x)


LAYOUTS = {
    "contiguous": torch.clone,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "permuted": lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": sliced,
    "offset": offset,
}


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


@pytest.mark.parametrize(
    "view",
    [lambda: torch.tensor(2.0).expand(4, 4), lambda: torch.randn(4).expand(4, 4), lambda: torch.arange(10.0).unfold(0, 4, 2)],
    ids=["scalar", "rows", "overlapping"],
)
@pytest.mark.usefixtures("reading")
def test_expanded_gradients_are_read_right(view):
    p = nn.Parameter(torch.ones(4, 4))
    p.grad = view()
    opt = make("SGD", [p], momentum=0.9, max_norm=1.0)
    step_as_specified(opt)
    assert float(opt.total_norm) == reference.total_norm([p.grad.contiguous().numpy()])


def test_strides_of_dimensions_of_size_one_mean_nothing():
    p = torch.ones(5).as_strided((1, 5, 1), (0, 1, 0)).requires_grad_()
    p.grad = torch.randn(1, 5, 1)
    step_as_specified(make("Adam", [p]))


# ----------------------------------------------------------------------------------- what the user replaced is honoured


def fresh_like(t):
    return torch.randn(t.shape, dtype=t.dtype).abs_()


def new_param(opt, p):
    q = opt.param_groups[0]["params"][1] = nn.Parameter(torch.ones(5))
    q.grad = torch.ones(5)


REPLACED = {
    "data": lambda opt, p: setattr(p, "data", fresh_like(p)),
    "data of another layout": lambda opt, p: setattr(p, "data", sliced(p.detach())),
    "memory of data": lambda opt, p: p.data.set_(fresh_like(p)),
    "a state tensor": lambda opt, p: opt.state[p].update(exp_avg_sq=fresh_like(p)),
    "data of a state tensor": lambda opt, p: setattr(opt.state[p]["exp_avg"], "data", fresh_like(p)),
    "the step": lambda opt, p: opt.state[p].update(step=torch.tensor(41.0)),
    "the step in place": lambda opt, p: opt.state[p]["step"].fill_(41),
    "the state of a parameter": lambda opt, p: opt.state.update(
        {p: {"step": torch.tensor(7.0), "exp_avg": fresh_like(p), "exp_avg_sq": fresh_like(p)}}
    ),
    "the state of a parameter by none": lambda opt, p: opt.state.pop(p),
    "all state by none": lambda opt, p: opt.state.clear(),
    "all state": lambda opt, p: setattr(opt, "state", type(opt.state)(dict)),
    "all state, loaded": lambda opt, p: opt.load_state_dict(opt.state_dict()),
    "the gradient": lambda opt, p: setattr(p, "grad", fresh_like(p)),
    "the gradient by none": lambda opt, p: setattr(p, "grad", None),
    "the parameter": new_param,
    "data and state of another size": lambda opt, p: (opt.state.pop(p), resize(p, 3000)),
    "options": lambda opt, p: opt.param_groups[0].update(lr=0.5, betas=(0.5, 0.5), weight_decay=0.5, max_norm=0.5),
}


def resize(p, size):
    p.grad = None
    p.data = torch.ones(size)
    p.grad = torch.ones(size)


@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.usefixtures("reading")
def test_replaced_between_steps(what):
    opt = make("Adam", params := make_params())
    train(opt, 0, 3)  # enough for addresses to have been kept
    p = params[3]
    old = [p.data, *opt.state[p].values()]
    values = [t.clone() for t in old]
    REPLACED[what](opt, p)
    dropped = [k for k, t in enumerate(old) if t.data_ptr() not in {s.data_ptr() for s in (p, *opt.state[p].values())}]
    for _ in range(2):
        step_as_specified(opt)
    assert all(torch.equal(old[k], values[k]) for k in dropped)
    del old
    gc.collect()
    train(opt, 4, 1)


@pytest.mark.parametrize("what", ["param", "grad", "exp_avg"])
@pytest.mark.parametrize("size", [0, 64])
def test_freed_memory_is_never_touched(what, size):
    """A tensor keeps its shape when its storage is shrunk, as sharding libraries do."""
    code = f"""
import torch, fusedstep.torch
p = torch.ones(100_000, requires_grad=True)
p.grad = torch.ones(100_000)
opt = fusedstep.torch.Adam([p])
opt.step()
tensors = {{"param": p.data, "grad": p.grad, **opt.state[p]}}
tensors["{what}"].untyped_storage().resize_({size})
try:
    opt.step()
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert what in done.stdout


# ------------------------------------------------------------------------------------------------------------- errors


def snapshot(opt, params):
    """Values, versions and state: what an error must leave as it is."""

    def bits(value):
        return (id(value), reals(value).tobytes()) if isinstance(value, torch.Tensor) else value

    values = [(p._version, bits(p), None if p.grad is None else bits(p.grad)) for p in params]
    states = [{k: bits(v) for k, v in opt.state[p].items()} if p in opt.state else None for p in params]
    return values, states, {id(p) for p in opt.state}


class Dispatching(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return args[0]
        raise AssertionError(f"{func} must not be called")


def wrapper():
    return torch.Tensor._make_wrapper_subclass(Dispatching, (4,), dtype=torch.float32)


def with_grad(p, grad):
    p.grad = grad
    return p


ONES = torch.ones(4)
COMPLEX = torch.ones(4, dtype=torch.complex64)
BAD_TENSORS = {
    "sparse gradient": lambda: (with_grad(ONES.clone(), ONES.to_sparse()), r"grads\[1\].*sparse"),
    "bfloat16": lambda: (with_grad(ONES.bfloat16(), ONES.bfloat16()), r"params\[1\].*bfloat16"),
    "float16": lambda: (with_grad(ONES.half(), ONES.half()), r"params\[1\].*float16"),
    "int64": lambda: (with_grad(ONES.long(), ONES.long()), r"params\[1\].*int64"),
    "meta": lambda: (with_grad(ONES.to("meta"), ONES.to("meta")), r"params\[1\].*meta"),
    "csr": lambda: (with_grad(torch.eye(4).to_sparse_csr(), torch.eye(4).to_sparse_csr()), r"params\[1\].*sparse_csr"),
    "mkldnn": lambda: (with_grad(ONES.to_mkldnn(), ONES.to_mkldnn()), r"params\[1\].*mkldnn"),
    "expanded": lambda: (with_grad(torch.ones(1).expand(4), ONES), r"params\[1\]"),
    "overlapping": lambda: (with_grad(torch.ones(9).unfold(0, 4, 2), torch.ones(3, 4)), r"params\[1\]"),
    "negated gradient": lambda: (with_grad(ONES.clone(), COMPLEX.conj().imag), r"grads\[1\].*resolve_neg"),
    "conjugated gradient": lambda: (with_grad(COMPLEX.clone(), COMPLEX.conj()), r"grads\[1\].*resolve_conj"),
    "conjugated": lambda: (with_grad(COMPLEX.conj(), COMPLEX.clone()), r"params\[1\].*resolve_conj"),
    "subclass": lambda: (with_grad(ONES.clone().as_subclass(Dispatching), ONES), r"params\[1\].*Dispatching"),
    "subclass gradient": lambda: (with_grad(ONES.clone(), ONES.as_subclass(Dispatching)), r"grads\[1\].*Dispatching"),
    "wrapper": lambda: (with_grad(wrapper(), wrapper()), r"params\[1\].*Dispatching"),
    "wrapped gradient": lambda: (with_grad(ONES.clone(), wrapper()), r"grads\[1\].*Dispatching"),
    "gradient of another dtype": lambda: (turned(ONES.double()), r"grads\[1\].*float32.*float64"),
    "gradient of another shape": lambda: (turned(torch.ones(5)), r"grads\[1\].*\(4,\).*\(5,\)"),
}
IS_A_TYPE_ERROR = {"bfloat16", "float16", "int64", "subclass", "subclass gradient", "wrapper", "wrapped gradient"}


def turned(data):
    """A parameter whose data was replaced while it kept a gradient for the old."""
    p = with_grad(ONES.clone(), ONES)
    p.data = data
    return p


@pytest.mark.parametrize("what", BAD_TENSORS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.usefixtures("reading")
def test_a_bad_tensor_changes_nothing(what, groups):
    bad, message = BAD_TENSORS[what]()
    good = make_params(shapes=[(4,), (4,)])
    set_grads(good, 0)
    params = [good[0], bad, good[1]]
    opt = make("Adam", params if groups == 1 else [{"params": [p]} for p in params], max_norm=1.0)
    before = snapshot(opt, good)
    with pytest.raises(TypeError if what in IS_A_TYPE_ERROR else (TypeError, ValueError), match=f"Adam: {message}"):
        opt.step()
    assert snapshot(opt, good) == before


BAD_STATES = {
    "missing": lambda s: s.pop("exp_avg"),
    "none": lambda s: s.update(exp_avg=None),
    "a number": lambda s: s.update(exp_avg=1.0),
    "shape": lambda s: s.update(exp_avg=torch.ones(3)),
    "dtype": lambda s: s.update(exp_avg=torch.ones(4, dtype=torch.float64)),
    "device": lambda s: s.update(exp_avg=torch.ones(4, device="meta")),
    "expanded": lambda s: s.update(exp_avg=torch.ones(1).expand(4)),
    "shared": lambda s: s.update(exp_avg=s["exp_avg_sq"]),
    "subclass": lambda s: s.update(exp_avg=wrapper()),
    "negative step": lambda s: s.update(step=torch.tensor(-1.0)),
    "nan step": lambda s: s.update(step=torch.tensor(math.nan)),
    "fractional step": lambda s: s.update(step=torch.tensor(0.5)),
    "two steps": lambda s: s.update(step=torch.ones(2)),
}


@pytest.mark.parametrize("what", BAD_STATES)
@pytest.mark.usefixtures("reading")
def test_a_bad_state_changes_nothing(what):
    params = make_params(shapes=[(4,), (4,), (4,)])
    opt = make("Adam", params, max_norm=1.0)
    train(opt, 0, 1)
    BAD_STATES[what](opt.state[params[1]])
    good = [params[0], params[2]]
    before = snapshot(opt, good)
    with pytest.raises((TypeError, ValueError), match=r"step\[1\]" if "step" in what else r"exp_avg.*1\]|1\].*exp_avg"):
        opt.step()
    assert snapshot(opt, good) == before


def test_memory_shared_between_tensors_raises():
    memory = torch.ones(12)
    left, right = (nn.Parameter(memory[part]) for part in (slice(0, 7), slice(6, 12)))
    itself = nn.Parameter(torch.ones(4))
    itself.grad = itself.detach()
    set_grads([left, right], 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="optimizer contains a parameter group with duplicate")
        twice = make("SGD", [left, left])
    for opt in (make("SGD", [left, right]), make("SGD", [itself]), twice):
        params = opt.param_groups[0]["params"]
        before = snapshot(opt, params)
        with pytest.raises(ValueError, match="share memory"):
            opt.step()
        assert snapshot(opt, params) == before


@pytest.mark.usefixtures("reading")
def test_a_gradient_may_be_shared():
    params = make_params(shapes=[(9,), (9,)])
    params[0].grad = params[1].grad = torch.randn(9)
    step_as_specified(make("SGD", params, momentum=0.9, max_norm=0.1))
