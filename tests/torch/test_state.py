"""State of the ``fusedstep.torch`` optimizers: checkpoints, copies, loss scaling, replaced tensors, errors."""

import copy
import io
import math
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from tests.helpers import declared
from tests.helpers.torch_spec import (
    CASES,
    OURS,
    RUN_TIME,
    SHORT,
    TIGHT,
    assert_close,
    assert_is,
    expect,
    make,
    make_params,
    need_added_state,
    need_decoupled_checkpoints,
    params_of,
    set_grads,
    sliced,
    snapshot,
    specified_norm,
    step_as_specified,
    train,
)


def with_state_of(source, module, name, **options):
    """An optimizer over copies of the parameters of another, that loads its checkpoint."""
    opt = make(name, [nn.Parameter(p.detach().clone()) for p in params_of(source)], module, **options)
    opt.load_state_dict(copy.deepcopy(source.state_dict()))
    return opt


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("default", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_state_is_laid_out_as_torchs(name, options, default):
    need_decoupled_checkpoints(name, options)
    dicts, before = [], torch.get_default_dtype()
    torch.set_default_dtype(default)  # decides the dtype of the step
    try:
        for module in (fst, torch.optim):
            last = nn.Parameter(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last))
            opt = make(name, params := [*make_params(torch.float32), last], module, **options)
            for p in params:
                p.grad = torch.ones_like(p)
            opt.step()
            dicts.append(opt.state_dict())
    finally:
        torch.set_default_dtype(before)
    ours, theirs = dicts
    assert ours["state"].keys() == theirs["state"].keys()
    for k, state in theirs["state"].items():
        assert ours["state"][k].keys() == state.keys()
        for key, a in ours["state"][k].items():
            b = state[key]
            assert (a.dtype, a.shape, a.stride(), a.requires_grad) == (b.dtype, b.shape, b.stride(), False)
    (a,), (b,) = ours["param_groups"], theirs["param_groups"]
    assert a == {**b, "foreach": None}


def sources():
    for param in CASES:
        name, options = param.values
        for how in ({}, {"foreach": True}, {"fused": True, "foreach": None}):
            if "fused" not in how or "fused" in declared.RULES[name].options:
                yield pytest.param(name, options, how, id="-".join([param.id, *(k for k, v in how.items() if v)]))


@pytest.mark.parametrize(("name", "options", "how"), list(sources()))
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_checkpoints_are_interchangeable(name, options, how, direction):
    need_decoupled_checkpoints(name, options)
    reference = make(name, make_params(torch.float64), torch.optim, **options)
    train(reference, 0, 6)
    first, then = ((torch.optim, how), (fst, {})) if direction == "from torch" else ((fst, {}), (torch.optim, how))
    source = make(name, make_params(torch.float64), first[0], **options, **first[1])
    train(source, 0, 3)
    target = with_state_of(source, then[0], name, lr=99.0, **then[1])
    assert all(target.param_groups[0][k] == v for k, v in options.items())
    train(target, 3, 3)
    assert_close(target, reference, **TIGHT)


def through_file(value, weights_only):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


def with_file_of(opt):
    other = copy.deepcopy(opt)
    other.state.clear()
    other.param_groups[0].update(lr=99.0)
    other.load_state_dict(through_file(opt.state_dict(), weights_only=True))
    return other


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize(
    "copied",
    [lambda opt: pickle.loads(pickle.dumps(opt)), copy.deepcopy, lambda opt: through_file(opt, False), with_file_of],
    ids=["pickle", "deepcopy", "save", "save state_dict"],
)
def test_copies_go_on_alike(name, options, copied):
    opt = make(name, make_params(), max_norm=1.0, **options)
    train(opt, 0, 2)
    other = copied(opt)
    assert type(other) is type(opt)
    for each in (opt, other):
        train(each, 2, 2)
        each.add_param_group({"params": make_params(seed=5)})
        train(each, 4, 2)
        assert [group["max_norm"] for group in each.param_groups] == [1.0, 1.0]
    assert_close(other, opt, rtol=0, atol=0)
    assert other.total_norm == opt.total_norm


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if declared.RULES[c.values[0]].has_step])
@pytest.mark.parametrize("count", [200, 2**20])
def test_goes_on_after_many_steps(name, options, count):
    """A checkpoint of a long training: the count goes on from there, and the step is that of the count."""
    old = make(name, make_params(), **options)
    train(old, 0, 1)
    checkpoint = old.state_dict()
    for state in checkpoint["state"].values():
        state["step"].fill_(count)
    opt = make(name, params := make_params(), **options)
    opt.load_state_dict(checkpoint)
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)
    assert {float(opt.state[p]["step"]) for p in params} == {count + 2}


def test_loading_keeps_the_limits():
    """They belong to the run: no checkpoint has them, and the optimizer keeps those it was given."""
    params = make_params(shapes=[(3,), (4,)])
    groups = [{"params": params[:1], "max_norm": 2.0}, {"params": params[1:], "clip_value": 0.5}]
    opt = make("SGD", copy.deepcopy(groups), max_norm=1.0, error_if_nonfinite=True)
    limits = [{k: g[k] for k in RUN_TIME} for g in opt.param_groups]
    plain = make("SGD", [{"params": params[:1]}, {"params": params[1:]}], torch.optim)
    opt.load_state_dict(plain.state_dict())
    assert [{k: g[k] for k in RUN_TIME} for g in opt.param_groups] == limits
    other = make("SGD", [{"params": params[:1]}, {"params": params[1:]}], clip_value=3.0)
    other.load_state_dict(opt.state_dict())
    off = {**{k: OURS[k] for k in RUN_TIME}, "clip_value": 3.0}
    assert [{k: g[k] for k in RUN_TIME} for g in other.param_groups] == [off, off]


def test_checkpoints_whose_numbers_are_pythons():
    """As torch's ASGD and NAdam saved them once."""
    for name, numbers in (("ASGD", ("eta", "mu")), ("NAdam", ("mu_product",))):
        opt = make(name, params := make_params())
        train(opt, 0, 2)
        saved = copy.deepcopy(opt.state_dict())
        for state in saved["state"].values():
            state |= {key: float(state[key]) for key in (*numbers, "step")}
        other = make(name, others := make_params(seed=1))
        other.load_state_dict(saved)
        for p, q in zip(params, others, strict=True):
            q.data.copy_(p)
        assert_close(opt, other, rtol=0, atol=0)
        for each in (params, others):
            set_grads(each, 2)
        step_as_specified(other)
        opt.step()
        assert_close(opt, other, rtol=0, atol=0)


def test_checkpoints_of_older_torch():
    opt = make("SGD", params := make_params(), momentum=0.9)
    saved = opt.state_dict()
    saved["state"] = {k: {"momentum_buffer": None} for k in range(len(params))}
    opt.load_state_dict(saved)
    set_grads(params, 0)
    opt.step()
    assert all(torch.equal(opt.state[p]["momentum_buffer"], p.grad) for p in params)
    opt = make("Adam", params := make_params())
    train(opt, 0, 2)
    saved = copy.deepcopy(opt.state_dict())
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    del saved["param_groups"][0]["maximize"]
    saved["param_groups"][0].pop("decoupled_weight_decay", None)
    opt.load_state_dict(saved)
    set_grads(params, 2)
    step_as_specified(opt)
    assert opt.state[params[0]]["step"].item() == 3


def test_checkpoint_that_asks_for_another_implementation():
    """``foreach`` and the like are about how torch computes, not about what."""
    for how in ({"foreach": True}, {"differentiable": True}, {"capturable": True}):
        source = make("Adam", make_params(), torch.optim, **how)
        opt = with_state_of(source, fst, "Adam")
        set_grads(params_of(opt), 0)
        step_as_specified(opt)


def test_state_dict_hooks_and_param_names():
    model = nn.Linear(3, 2)
    try:
        torch.optim.AdamW(model.named_parameters())
    except TypeError:  # before torch 2.6
        opt = fst.AdamW(model.parameters())
    else:
        opt = fst.AdamW(model.named_parameters())
        assert opt.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    calls = []
    opt.register_state_dict_pre_hook(lambda o: calls.append("pre"))
    opt.register_state_dict_post_hook(lambda o, saved: calls.append("post"))
    opt.register_load_state_dict_pre_hook(lambda o, saved: calls.append("load pre"))
    opt.register_load_state_dict_post_hook(lambda o: calls.append("load post"))
    opt.load_state_dict(opt.state_dict())
    assert calls == ["pre", "post", "load pre", "load post"]


def test_momentum_switched_on_later():
    ours, theirs = (make("SGD", make_params(torch.float64), module) for module in (fst, torch.optim))
    for opt in (ours, theirs):
        train(opt, 0, 2)
        opt.param_groups[0].update(momentum=0.9, dampening=0.5)
        train(opt, 2, 3)
    assert_close(ours, theirs, **TIGHT)


# ------------------------------------------------------------------------------------------------------------ complex


@pytest.mark.pairwise("options", "dtype", "max_norm")
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=["c64", "c128"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_complex_parameters(name, options, dtype, max_norm):
    need_added_state(name)
    ours = make(name, make_params(dtype), max_norm=max_norm, **options)
    theirs = make(name, make_params(dtype), torch.optim, **options)
    for seed in range(4):
        for opt in (ours, theirs):
            set_grads(params_of(opt), seed)
        if max_norm is not None:
            utils.clip_grad_norm_(params_of(theirs), max_norm)
        step_as_specified(ours)
        theirs.step()
        if seed == 1:
            for opt in (ours, theirs):
                opt.add_param_group({"params": make_params(dtype, [(6,)], seed=3)})
    assert_close(ours, theirs, **(TIGHT if dtype == torch.complex128 else {"rtol": 1e-4, "atol": 1e-5}))


# ------------------------------------------------------------------------------------------------------- loss scaling


def scaler_of(scale=1024.0, **options):
    return torch.amp.GradScaler("cpu", init_scale=scale, **options)


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_scaled_steps_equal_plain_ones(name, options, max_norm):
    """Powers of two: unscaling loses nothing, so that the bits are those of a step without a scaler.

    With a limit of our own the step unscales, and gradients stay as they are; else the scaler does it, in place.
    """
    scaled, plain = (make(name, make_params(), max_norm=max_norm, **options) for _ in range(2))
    scaler = scaler_of(growth_interval=1)
    scaler.scale(torch.ones(()))
    for seed in range(3):
        scale = scaler.get_scale()
        assert scale == 1024 * 2**seed
        set_grads(params_of(scaled), seed, scale)
        grads = [p.grad.clone() for p in params_of(scaled)]
        expected = expect(scaled, grad_scale=scale)
        scaler.step(scaled)
        scaler.update()
        assert_is(expected, scaled)
        left = 1.0 if max_norm is not None else scale
        assert all(torch.equal(p.grad * left, g) for p, g in zip(params_of(scaled), grads, strict=True))
        assert not hasattr(scaled, "grad_scale")
        assert not hasattr(scaled, "found_inf")
        train(plain, seed, 1)
        assert scaled.total_norm == plain.total_norm
    assert_close(scaled, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_skipped_steps_change_nothing(name, options, steps, value):
    """Not even the count of steps; nor is there an error, since skipping is what the scaler is for."""
    opt = make(name, params := make_params(), max_norm=1.0, error_if_nonfinite=True, **options)
    scaler = scaler_of()
    scaler.scale(torch.ones(()))
    train(opt, 0, steps)
    set_grads(params, steps, scaler.get_scale())
    params[0].grad[2, 4] = value
    before = snapshot(opt, params)
    scaler.step(opt)
    scaler.update()
    assert snapshot(opt, params) == before
    assert scaler.get_scale() == 512
    set_grads(params, steps, 512)
    expected = expect(opt, grad_scale=512.0)
    scaler.step(opt)
    assert_is(expected, opt)


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_unscaled_by_hand(name, options):
    ours, theirs = (make(name, make_params(torch.float64), module, **options) for module in (fst, torch.optim))
    for opt in (ours, theirs):
        scaler = scaler_of()
        scaler.scale(torch.ones(()))
        for seed in range(3):
            set_grads(params_of(opt), seed, scaler.get_scale())
            scaler.unscale_(opt)
            utils.clip_grad_norm_(params_of(opt), 0.5)
            scaler.step(opt)
            scaler.update()
    assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("grad_scale", [torch.tensor(3.0), torch.tensor([2.0**-20]), None], ids=str)
def test_attributes_of_the_protocol(name, options, grad_scale):
    opt = make(name, params := make_params(), max_norm=0.1, **options)
    for seed in range(2):
        scale = 1.0 if grad_scale is None else float(grad_scale)
        set_grads(params, seed, scale)
        opt.grad_scale, opt.found_inf = grad_scale, torch.tensor(0.0)
        expected, norm = expect(opt, grad_scale=scale), specified_norm(opt, scale)
        opt.step()
        assert_is(expected, opt)
        assert opt.total_norm.item() == norm
    before = snapshot(opt, params)
    opt.found_inf = torch.tensor(1.0)
    assert opt.step() is None
    assert snapshot(opt, params) == before
    del opt.found_inf, opt.grad_scale
    step_as_specified(opt)


def test_scaled_training_as_torch_fused():
    """The whole protocol, with an overflow on the way."""
    results = []
    for module, how in ((fst, {}), (torch.optim, {"fused": True, "foreach": None})):
        w = nn.Parameter(torch.ones(5, dtype=torch.float64))
        opt, scaler = make("Adam", [w], module, **how), scaler_of(growth_interval=2)
        for k in range(6):
            opt.zero_grad()
            factor = math.inf if k in (0, 3) else 1.0
            scaler.scale((w * w * factor).sum()).backward()
            scaler.step(opt)
            scaler.update()
        results.append((opt, scaler.get_scale()))
    (ours, our_scale), (theirs, their_scale) = results
    assert our_scale == their_scale
    assert int(ours.state[params_of(ours)[0]]["step"]) == 4
    assert_close(ours, theirs, **TIGHT)


# ----------------------------------------------------------------------------------- what the user replaced is honoured


def fresh_like(t):
    return torch.randn(t.shape, dtype=t.dtype).abs_()


def turned(t):
    """The same memory, its elements in another order."""
    return t.as_strided(t.shape, (1, t.shape[0]))


def become(opt, p, data):
    """Another shape or dtype, as of a model that was converted."""
    opt.state.pop(p)
    p.grad = None
    p.data = data
    p.grad = fresh_like(data)


def exchange(opt, p):
    p = opt.param_groups[0]["params"][1] = nn.Parameter(torch.ones(5))
    p.grad = torch.ones(5)


REPLACED = {
    "data": lambda opt, p: setattr(p, "data", fresh_like(p)),
    "layout of data": lambda opt, p: setattr(p, "data", sliced(p.detach())),
    "strides of data": lambda opt, p: setattr(p, "data", turned(p.detach())),
    "memory of data": lambda opt, p: p.data.set_(fresh_like(p)),
    "shape": lambda opt, p: become(opt, p, torch.ones(3000)),
    "dtype": lambda opt, p: become(opt, p, p.detach().double()),
    "state tensor": lambda opt, p: opt.state[p].update(exp_avg_sq=fresh_like(p)),
    "strides of a state tensor": lambda opt, p: opt.state[p].update(exp_avg=turned(opt.state[p]["exp_avg"])),
    "data of a state tensor": lambda opt, p: setattr(opt.state[p]["exp_avg"], "data", fresh_like(p)),
    "step": lambda opt, p: opt.state[p].update(step=torch.tensor(41.0)),
    "value of the step": lambda opt, p: opt.state[p]["step"].fill_(41),
    "state": lambda opt, p: opt.state.update(
        {p: {"step": torch.tensor(7.0), "exp_avg": fresh_like(p), "exp_avg_sq": fresh_like(p)}}
    ),
    "state by none": lambda opt, p: opt.state.pop(p),
    "all state by none": lambda opt, p: opt.state.clear(),
    "all state": lambda opt, p: setattr(opt, "state", type(opt.state)(dict)),
    "all state by a checkpoint": lambda opt, p: opt.load_state_dict(copy.deepcopy(opt.state_dict())),
    "gradient": lambda opt, p: setattr(p, "grad", fresh_like(p)),
    "gradient by none": lambda opt, p: setattr(p, "grad", None),
    "parameter": exchange,
    "options": lambda opt, p: opt.param_groups[0].update(lr=0.5, betas=(0.5, 0.5), weight_decay=0.5, max_norm=0.5),
}


@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.usefixtures("reading")
def test_replaced_between_steps(what):
    opt = make("Adam", params := make_params(shapes=[(3, 5), (40, 50)]))
    train(opt, 0, 3)  # enough for addresses to have been kept
    old = [params[1].data, *opt.state[params[1]].values()]
    values = [t.clone() for t in old]
    REPLACED[what](opt, params[1])
    used = {t.data_ptr() for p in params_of(opt) for t in (p, *opt.state.get(p, {}).values())}
    step_as_specified(opt)
    assert all(torch.equal(t, v) for t, v in zip(old, values, strict=True) if t.data_ptr() not in used)
    del old  # and with it the memory
    step_as_specified(opt)


SHRUNK = """
import torch, fusedstep.torch
numbers = ("step", "mu_product", "found_inf")
for what, offset in (("param", 0), ("grad", 0), ("exp_avg", 0), ("param", 1000), *((n, 0) for n in numbers)):
    p = torch.ones(offset + 100_000)[offset:].requires_grad_()
    p.grad = torch.ones(100_000)
    opt = fusedstep.torch.NAdam([p])
    opt.step()
    opt.found_inf = torch.zeros(())
    tensors = {"param": p.data, "grad": p.grad, "found_inf": opt.found_inf, **opt.state[p]}
    tensors[what].untyped_storage().resize_(0)
    try:
        opt.step()
    except ValueError as error:
        assert what in str(error) and "share" not in str(error), error
    else:
        raise AssertionError(f"{what} was accepted")
"""


@pytest.mark.slow
def test_freed_memory_is_never_touched():
    """A tensor keeps its shape when its storage is resized to nothing, as sharding libraries do."""
    done = subprocess.run([sys.executable, "-c", SHRUNK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------------- errors


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
EIGHT = ONES.to(torch.float8_e4m3fn)
BAD_TENSORS = {
    "sparse gradient": lambda: (with_grad(ONES.clone(), ONES.to_sparse()), r"grads\[1\].*sparse"),
    "float8": lambda: (with_grad(EIGHT, EIGHT.clone()), r"params\[1\].*float8_e4m3fn"),
    "int16": lambda: (with_grad(ONES.short(), ONES.short()), r"params\[1\].*int16"),
    "int64": lambda: (with_grad(ONES.long(), ONES.long()), r"params\[1\].*int64"),
    "meta": lambda: (with_grad(ONES.to("meta"), ONES.to("meta")), r"params\[1\].*meta"),
    "sparse": lambda: (with_grad(ONES.to_sparse(), ONES.to_sparse()), r"params\[1\].*sparse"),
    "expanded": lambda: (with_grad(torch.ones(1).expand(4), ONES), r"params\[1\]"),
    "overlapping": lambda: (with_grad(torch.ones(9).unfold(0, 4, 2), torch.ones(3, 4)), r"params\[1\]"),
    "negated": lambda: (with_grad(COMPLEX.conj().imag, ONES.clone()), r"params\[1\].*resolve_neg"),
    "conjugated": lambda: (with_grad(COMPLEX.conj(), COMPLEX.clone()), r"params\[1\].*resolve_conj"),
    "subclass": lambda: (with_grad(ONES.clone().as_subclass(Dispatching), ONES), r"params\[1\].*Dispatching"),
    "subclass gradient": lambda: (with_grad(ONES.clone(), ONES.as_subclass(Dispatching)), r"grads\[1\].*Dispatching"),
    "wrapper": lambda: (with_grad(wrapper(), wrapper()), r"params\[1\].*Dispatching"),
    "wrapped gradient": lambda: (with_grad(ONES.clone(), wrapper()), r"grads\[1\].*Dispatching"),
    "gradient of another dtype": lambda: (converted(ONES.double()), r"grads\[1\].*float32.*float64"),
    "float64 gradient of bfloat16": lambda: (
        converted(ONES.bfloat16(), ONES.double()),
        r"grads\[1\].*float64.*bfloat16",
    ),
    "bfloat16 gradient of float64": lambda: (
        converted(ONES.double(), ONES.bfloat16()),
        r"grads\[1\].*bfloat16.*float64",
    ),
    "bfloat16 gradient of complex": lambda: (converted(COMPLEX, ONES.bfloat16()), r"grads\[1\].*bfloat16.*complex64"),
    "complex gradient of bfloat16": lambda: (converted(ONES.bfloat16(), COMPLEX), r"grads\[1\].*complex64.*bfloat16"),
    "int16 gradient of bfloat16": lambda: (converted(ONES.bfloat16(), ONES.short()), r"grads\[1\].*int16"),
    "gradient of another shape": lambda: (converted(torch.ones(5)), r"grads\[1\].*\(4,\).*\(5,\)"),
}
IS_A_TYPE_ERROR = {"float8", "int16", "int64", "subclass", "subclass gradient", "wrapper", "wrapped gradient"}


def converted(data, grad=ONES):
    """A parameter whose data was replaced while it kept a gradient for the old."""
    p = with_grad(grad.clone(), grad)
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
    for opt in (make("SGD", [left, right]), make("SGD", [itself])):
        params = opt.param_groups[0]["params"]
        before = snapshot(opt, params)
        with pytest.raises(ValueError, match="share memory"):
            opt.step()
        assert snapshot(opt, params) == before


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("with_what", ["param", "exp_avg", "number"])
def test_a_number_of_the_state_that_shares_memory_raises(with_what):
    params = make_params(shapes=[(9,), (9,)])
    opt = make("NAdam", params)
    set_grads(params, 0)
    opt.step()
    first, second = (opt.state[p] for p in params)
    shared = {"param": params[1].detach(), "exp_avg": first["exp_avg"], "number": second["mu_product"]}[with_what]
    first["mu_product"] = shared.reshape(-1)[:1].reshape(())
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match=r"mu_product\[0\].*share memory|and mu_product\[0\] share memory"):
        opt.step()
    assert snapshot(opt, params) == before


@pytest.mark.usefixtures("reading")
def test_a_gradient_may_be_shared():
    params = make_params(shapes=[(9,), (9,)])
    params[0].grad = params[1].grad = torch.randn(9)
    step_as_specified(make("SGD", params, momentum=0.9, max_norm=0.1))


# -------------------------------------------------------------------------------- states of one number, when loaded

WITH_NUMBERS = [case for case in CASES if declared.RULES[case.values[0]].numbers]


@pytest.mark.parametrize("default", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize(("name", "options"), WITH_NUMBERS)
def test_numbers_are_loaded_in_the_dtype_they_were_saved_in(name, options, dtype, default):
    """As torch does with a step count, and not with others: a number rounded elsewhere moves later steps."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # decides the dtype of the numbers
    try:
        source = make(name, make_params(dtype), **options)
        train(source, 0, 3)
        keys = [n.name for n in declared.RULES[name].numbers]
        saved = copy.deepcopy(source.state_dict())
        target = make(name, [nn.Parameter(p.detach().clone()) for p in params_of(source)], **options)
        seen = []
        target.register_load_state_dict_pre_hook(lambda opt, state: seen.append(type(state["state"][0][keys[0]])))
        target.register_load_state_dict_post_hook(lambda opt: seen.append(opt.state[params_of(opt)[0]][keys[0]].dtype))
        target.load_state_dict(saved)
        assert seen == [torch.Tensor, default]
        for each in (source, target):
            train(each, 3, 3)
    finally:
        torch.set_default_dtype(before)
    for p, q in zip(params_of(source), params_of(target), strict=True):
        for key, value in {**source.state[p], "param": p}.items():
            other = {**target.state[q], "param": q}[key]
            assert other.dtype == value.dtype
            assert torch.equal(other, value), key
    for state in saved["state"].values():
        assert all(type(state[key]) is torch.Tensor for key in keys), "the dict that was given"


def test_a_pre_hook_may_replace_what_is_loaded():
    source = make("NAdam", make_params(torch.float64))
    train(source, 0, 2)
    target = make("NAdam", make_params(torch.float64))

    def halved(opt, state_dict):
        state = {k: {**s, "mu_product": s["mu_product"] / 2} for k, s in state_dict["state"].items()}
        return {**state_dict, "state": {**state, "more": 7}}

    target.register_load_state_dict_pre_hook(halved)
    target.load_state_dict(source.state_dict())
    assert target.state.pop("more") == 7
    for p, q in zip(params_of(source), params_of(target), strict=True):
        assert target.state[q]["mu_product"].dtype == torch.float32
        assert torch.equal(target.state[q]["mu_product"], source.state[p]["mu_product"] / 2)
