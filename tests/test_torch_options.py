"""Groups and their options of the run, state of any mapping, what torch's defaults and wrappers do around a step."""

import collections
import contextlib
import copy
import io
import itertools
import math
import pickle
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from torch_spec import (
    CASES,
    NAMES,
    RUN_TIME,
    SHORT,
    TIGHT,
    assert_close,
    make,
    make_params,
    reals,
    set_grads,
    snapshot,
    step_as_specified,
    train,
)

OFF = {"max_norm": None, "clip_value": None, "error_if_nonfinite": False, "nonfinite": "propagate"}


def params_of(opt):
    return [p for group in opt.param_groups for p in group["params"]]


# ------------------------------------------------------------------------------------------- groups as mappings


def test_options_of_the_run_are_read_and_set_and_are_no_keys():
    opt = make("AdamW", make_params(), max_norm=1.0)
    theirs = torch.optim.AdamW(make_params(), lr=0.05)
    (group,), (torchs,) = opt.param_groups, theirs.param_groups
    assert isinstance(group, dict)
    assert {k: group[k] for k in RUN_TIME} == {**OFF, "max_norm": 1.0}
    assert list(group) == list(group.keys()) == list(torchs)
    assert len(group) == len(torchs)
    for seen in (dict(group), {**group}, dict(group.items()), opt.state_dict()["param_groups"][0], opt.defaults):
        assert not set(RUN_TIME) & set(seen)
    assert all(name in group for name in RUN_TIME)
    assert group.get("max_norm") == 1.0
    assert group.get("clip_value", 7) is None
    assert group.get("nothing", 7) == 7
    assert group.setdefault("max_norm", 3.0) == 1.0
    assert group.setdefault("initial_lr", 0.5) == group["initial_lr"] == 0.5
    group.update(max_norm=0.5, lr=0.25)
    group["clip_value"] = 2.0
    assert (group["max_norm"], group["clip_value"], group["lr"], len(group)) == (0.5, 2.0, 0.25, len(torchs) + 1)
    assert group.pop("clip_value") == 2.0
    assert group["clip_value"] is None
    assert group.pop("initial_lr") == 0.5
    with pytest.raises(KeyError, match="initial_lr"):
        group["initial_lr"]
    with pytest.raises(KeyError):
        group.pop("initial_lr")
    del group["max_norm"]
    assert group["max_norm"] is None
    for other in (copy.copy(group), group.copy()):
        other["max_norm"] = 9.0
        assert group["max_norm"] is None
    repr(opt)


def test_the_two_words_for_raising():
    group = make("SGD", make_params(), max_norm=1.0).param_groups[0]
    group["error_if_nonfinite"] = True
    assert group["nonfinite"] == "raise"
    group["nonfinite"] = "skip"
    assert group["error_if_nonfinite"] is False
    group["error_if_nonfinite"] = False
    assert group["nonfinite"] == "skip"
    group["error_if_nonfinite"] = True
    group["error_if_nonfinite"] = False
    assert group["nonfinite"] == "propagate"


@pytest.mark.parametrize("option", ["max_norm", "clip_value", "nonfinite"])
def test_bad_values_set_later_change_nothing(option):
    opt = make("SGD", params := make_params(), max_norm=1.0)
    set_grads(params, 0)
    before = snapshot(opt, params)
    for bad in ("much", -1.0, math.nan, [1.0]):
        opt.param_groups[0][option] = bad
        with pytest.raises((TypeError, ValueError), match=f"SGD: {option} is "):
            opt.step()
    assert snapshot(opt, params) == before


def test_groups_of_their_own():
    params = make_params(shapes=[(3,), (4,), (5,)])
    given = {"params": params[1:2], "max_norm": 2.0, "lr": 0.5, "error_if_nonfinite": True}
    opt = make("SGD", [{"params": params[:1]}, given], max_norm=1.0)
    opt.add_param_group({"params": params[2:], "max_norm": None, "nonfinite": "skip"})
    assert [g["max_norm"] for g in opt.param_groups] == [1.0, 2.0, None]
    assert [g["nonfinite"] for g in opt.param_groups] == ["propagate", "raise", "skip"]
    for bad, error in (
        ({"max_norm": -1.0}, ValueError),
        ({"clip_value": "x"}, TypeError),
        ({"nonfinite": 1}, ValueError),
    ):
        with pytest.raises(error, match=f"SGD: {next(iter(bad))}"):
            opt.add_param_group({"params": make_params(), **bad})
    with pytest.raises(TypeError, match="SGD: param_group"):
        opt.add_param_group([params[0]])
    assert len(opt.param_groups) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_have_the_options(copied):
    opt = make("Adam", make_params(), max_norm=1.0, nonfinite="skip", fused=True)
    opt.param_groups[0]["clip_value"] = 0.5
    other = copied(opt)
    for each in (opt, other):
        each.add_param_group({"params": make_params()})
    options = [{k: g[k] for k in RUN_TIME} for g in other.param_groups]
    assert options == [{k: g[k] for k in RUN_TIME} for g in opt.param_groups]
    assert options[0]["clip_value"] == 0.5
    assert other._step_supports_amp_scaling
    assert not set(RUN_TIME) & set(other.param_groups[0])


def test_a_checkpoint_of_an_older_version_has_them():
    opt = make("SGD", make_params(), max_norm=1.0)
    saved = opt.state_dict()
    saved["param_groups"][0] |= {"max_norm": 9.0, "clip_value": 9.0, "error_if_nonfinite": True, "lr": 0.125}
    opt.load_state_dict(saved)
    group = opt.param_groups[0]
    assert (group["max_norm"], group["clip_value"], group["nonfinite"], group["lr"]) == (1.0, None, "propagate", 0.125)
    assert not set(RUN_TIME) & set(group)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_groups_taken_from_torch(name, options):
    """They lack our options, which are the constructor's then; whose groups they are stays as it is."""
    params = make_params(torch.float64)
    source = make(name, params, torch.optim, **options)
    opt = make(name, params, **options)
    opt.param_groups = source.param_groups
    plain = make(name, make_params(torch.float64), torch.optim, **options)
    for seed in range(3):
        for each in (opt, plain):
            set_grads(params_of(each), seed)
            each.step()
    assert opt.total_norm is None
    assert type(source.param_groups[0]) is dict
    assert_close(opt, plain, **TIGHT)
    opt.param_groups[0]["max_norm"] = 1.0
    opt.step()
    assert opt.total_norm is not None


@pytest.mark.parametrize("loads", [False, True])
def test_plain_groups_in_place_of_ours_clip_as_the_constructor_said(loads):
    """Lightning's BackboneFinetuning makes such when it resumes, and then loads the state."""
    opt = make("SGD", params := make_params(), max_norm=0.5, nonfinite="skip")
    saved = opt.state_dict()
    opt.param_groups = [{**group, "params": params} for group in copy.deepcopy(saved["param_groups"])]
    assert opt._step_supports_amp_scaling
    if loads:
        opt.load_state_dict(saved)
        assert opt.param_groups[0]["max_norm"] == 0.5
    other = make("SGD", make_params(), max_norm=0.5)
    for each in (opt, other):
        set_grads(params_of(each), 0)
        each.step()
    assert_close(opt, other, rtol=0, atol=0)
    assert opt.total_norm == other.total_norm
    params[0].grad[0, 0] = math.nan
    opt.step()
    assert opt.skipped_steps.item() == 1


def test_foreign_groups_without_torchs_keys_either():
    opt = make("Adam", params := make_params(), lr=0.25, betas=(0.5, 0.5))
    opt.param_groups = [{"params": params, "lr": 0.125}]
    other = make("Adam", make_params(), lr=0.125, betas=(0.5, 0.5))
    for each in (opt, other):
        set_grads(params_of(each), 0)
        each.step()
    assert_close(opt, other, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------ AMP contract


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_left_to_the_step_only_if_asked_for(name):
    opt = make(name, make_params())
    assert opt._step_supports_amp_scaling is False
    for option in ("max_norm", "clip_value"):
        assert make(name, make_params(), **{option: 1.0})._step_supports_amp_scaling is True
        opt.param_groups[0][option] = 1.0
        assert opt._step_supports_amp_scaling is True
        opt.param_groups[0][option] = None
        assert opt._step_supports_amp_scaling is False
    if name != "RMSprop":  # torch's has no fused
        for fused in (True, False, None):
            opt = make(name, make_params(), fused=fused)
            assert opt._step_supports_amp_scaling is bool(fused)
            assert opt.param_groups[0]["fused"] is fused


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("how", [{}, {"fused": True}, {"max_norm": 1.0}], ids=["default", "fused", "max_norm"])
def test_what_a_scaler_leaves_in_the_gradients(name, options, how):
    if name == "RMSprop" and "fused" in how:
        pytest.skip("torch's RMSprop has no fused")
    seen = []
    for module in (torch.optim, fst):
        own = {k: v for k, v in how.items() if module is fst or k != "max_norm"}
        opt = make(name, [nn.Parameter(torch.ones(2, dtype=torch.float64))], module, **options, **own)
        opt.register_step_pre_hook(lambda o, a, k, seen=seen: seen.append(params_of(o)[0].grad.tolist()))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (5.0, math.inf, 7.0):
            opt.zero_grad()
            scaler.scale((factor * params_of(opt)[0]).sum()).backward()
            if module is torch.optim and "max_norm" in how:
                scaler.unscale_(opt)
                utils.clip_grad_norm_(params_of(opt), 1.0)
            scaler.step(opt)
            scaler.update()
        seen.append((opt, scaler.get_scale(), params_of(opt)[0].grad.tolist()))
    split = seen.index(next(s for s in seen if isinstance(s, tuple))) + 1
    (theirs, their_scale, _), (ours, our_scale, left) = seen[split - 1], seen[-1]
    assert our_scale == their_scale == 512.0
    assert_close(ours, theirs, **TIGHT)
    assert left == ([7.0, 7.0] if not how else [7.0 * 512.0] * 2)  # not unscaled by whoever clips or is fused
    if not how:  # hooks see unscaled gradients, and no step that is skipped, as with torch's default
        assert seen[split:-1] == seen[: split - 1] == [[5.0, 5.0], [7.0, 7.0]]


# ----------------------------------------------------------------------------------------- torch's global defaults


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_another_default_device(name, options, default):
    """It may stand for "cuda" beside parameters on the CPU."""
    before = torch.get_default_dtype()
    opts = []
    try:
        torch.set_default_dtype(default)
        for module in (fst, torch.optim):
            params = make_params(torch.float64)
            set_grads(params, 0)
            if module is torch.optim:  # its Adagrad would put its counts on the default device
                opts.append(make(name, params, module, **options))
                opts[-1].step()
                continue
            torch.set_default_device("meta")
            opt = make(name, params, max_norm=math.inf, **options)
            opt.step()
            assert opt.total_norm.device.type == opt.clipped_steps.device.type == "cpu"
            assert fst.clip_grad_norm_(params, 1e9).device.type == "cpu"
            assert fst.get_total_norm([p.grad for p in params]).item() > 0
            torch.set_default_device("cpu")
            opts.append(opt)
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
    assert_close(*opts, **TIGHT)
    ours, theirs = (next(iter(o.state.values()), {}) for o in opts)
    assert {k: (v.dtype, v.device) for k, v in ours.items()} == {k: (v.dtype, v.device) for k, v in theirs.items()}


# --------------------------------------------------------------------------------------------------------- arguments


BETAS = {
    "list": [0.5, 0.75],
    "array": np.array([0.5, 0.75]),
    "float32": np.array([0.5, 0.75], np.float32),
    "tensor": torch.tensor([0.5, 0.75]),
    "of tensors": (torch.tensor(0.5), torch.tensor(0.75)),
    "deque": collections.deque([0.5, 0.75]),
}


@pytest.mark.parametrize("what", BETAS)
def test_betas_may_be_any_two(what):
    opt, plain = make("Adam", make_params(), betas=BETAS[what]), make("Adam", make_params(), betas=(0.5, 0.75))
    for each in (opt, plain):
        train(each, 0, 3)
    assert_close(opt, plain, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [0.9, (0.9,), (0.9, 0.9, 0.9), "ab", {0: 0.9, 1: 0.9}, None, np.float32(0.5)], ids=str)
def test_betas_that_are_no_two(bad):
    opt = make("Adam", params := make_params())
    set_grads(params, 0)
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match=r"AdamW: betas is .*, expected a sequence of two numbers"):
        make("AdamW", make_params(), betas=bad)
    opt.param_groups[0]["betas"] = bad
    with pytest.raises(ValueError, match=r"Adam: betas is .*, expected a sequence of two numbers"):
        opt.step()
    assert snapshot(opt, params) == before


# ------------------------------------------------------------------------------------------------------------- state


class Logged(collections.UserDict):
    """A mapping that is no dict, and finds tensors by identity as dicts do."""


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("mapping", [dict, Logged, collections.OrderedDict])
@pytest.mark.parametrize("entry", [dict, collections.UserDict])
def test_state_may_be_any_mapping(name, options, mapping, entry):
    opt, plain = (make(name, make_params(), max_norm=1.0, **options) for _ in range(2))
    opt.state = mapping({p: entry(state) for p, state in opt.state.items()})
    for seed in range(3):
        for each in (opt, plain):
            set_grads(params_of(each), seed)
            each.step()
        opt.state = mapping({p: entry(state) for p, state in opt.state.items()})
    assert_close(opt, plain, rtol=0, atol=0)


def test_state_that_cannot_be_written():
    opt = make("Adam", params := make_params())
    set_grads(params, 0)
    before = [p.detach().clone() for p in params]
    for state in (types.MappingProxyType({}), None, []):
        opt.state = state
        with pytest.raises(TypeError, match=r"Adam: state is a .*, expected a dict or another mutable mapping"):
            opt.step()
    opt.state = {params[0]: 3}
    with pytest.raises(TypeError, match=r"Adam: state of params\[0\] is 3, expected a dict"):
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))


class Failing(dict):
    """Takes two entries."""

    def __setitem__(self, key, value):
        if len(self) == 2:
            raise MemoryError("no more")
        super().__setitem__(key, value)


def test_nothing_has_changed_where_state_cannot_be_kept():
    """What follows a write cannot fail, so that all state is kept before it."""
    opt = make("Adam", params := make_params(shapes=[(3,), (4,), (5,)]))
    set_grads(params, 0)
    opt.state = Failing()
    before = [p.detach().clone() for p in params]
    with pytest.raises(MemoryError):
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert not opt.state


def test_nothing_has_changed_where_versions_cannot_be_raised(monkeypatch):
    """torch 2.4 took one tensor there, and raised after the parameters had changed."""

    def fails(tensors):
        raise RuntimeError("increment_version expect a Tensor as input")

    monkeypatch.setattr(torch.autograd.graph, "increment_version", fails)
    opt = make("Adam", params := make_params(), max_norm=1.0)
    set_grads(params, 0)
    grads = [p.grad.clone() for p in params]
    before = snapshot(opt, params)
    calls = [
        opt.step,
        lambda: fst.clip_grad_norm_(params, 0.1),
        lambda: fst.clip_grad_value_(params, 0.1),
        lambda: fst.clip_grads_with_norm_(params, 0.1, torch.tensor(5.0)),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="expect a Tensor"):
            call()
    assert snapshot(opt, params) == before
    assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))
    assert opt.clipped_steps.item() == 0


# ----------------------------------------------------------------------------------------------------- tied and lazy


def test_a_parameter_twice_in_a_group():
    p, q = make_params(shapes=[(3, 4), (5,)])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        twice = make("Adam", [p, q, p], max_norm=1.0)
    once = make("Adam", make_params(shapes=[(3, 4), (5,)]), max_norm=1.0)
    for seed in range(3):
        for each in (twice, once):
            set_grads(params_of(each)[:2], seed)
            each.step()
        assert twice.total_norm == once.total_norm
    assert torch.equal(p, params_of(once)[0])
    assert len(twice.state) == 2
    assert twice.state[p]["step"] == 3


def test_tied_weights_in_a_list():
    enc, dec = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
    dec.weight = enc.weight
    dec(enc(torch.tensor([0, 1]))).sum().backward()
    grad = enc.weight.grad.clone()
    both = list(itertools.chain(enc.parameters(), dec.parameters()))
    for clip in (
        lambda listed: fst.clip_grad_norm_(listed, 0.1),
        lambda listed: fst.clip_grads_with_norm_(listed, 0.1, grad.norm()),
        lambda listed: fst.clip_grad_value_(listed, 0.01),
    ):
        enc.weight.grad.copy_(grad)
        with pytest.warns(UserWarning, match="1 of 2 parameters are listed twice") as caught:
            clip(both)
        assert [w.filename for w in caught] == [__file__]
        twice = enc.weight.grad.clone()
        enc.weight.grad.copy_(grad)
        clip(both[:1])
        assert torch.equal(twice, enc.weight.grad)
    assert fst.get_total_norm([grad, grad]).item() == pytest.approx(math.sqrt(2) * grad.norm().item())


def lazy(real, dtype):
    """The same values, negated or conjugated when somebody looks."""
    if dtype.is_complex:
        return real.conj().resolve_conj().conj()
    pairs = torch.view_as_complex(torch.stack([torch.zeros_like(real), -real], -1))
    return pairs.conj().imag


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.usefixtures("reading")
def test_lazy_gradients(dtype, max_norm):
    opt, plain = (make("Adam", make_params(dtype, [(3, 5), (7,), (1,), ()]), max_norm=max_norm) for _ in range(2))
    for seed in range(2):
        for each in (opt, plain):
            set_grads(params_of(each), seed)
        for p in params_of(opt):
            value = p.grad
            p.grad = lazy(value, dtype)
            assert p.grad.is_conj() or p.grad.is_neg()
            assert torch.equal(p.grad, value)
        step_as_specified(plain)
        opt.step()
        assert_close(opt, plain, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.usefixtures("reading")
def test_lazy_gradients_are_clipped_in_place(dtype):
    ours, plain = make_params(dtype, [(3, 5)]), make_params(dtype, [(3, 5)])
    for params in (ours, plain):
        set_grads(params, 0)
    ours[0].grad = lazy(ours[0].grad, dtype)
    assert fst.get_total_norm([ours[0].grad]) == fst.get_total_norm([plain[0].grad])
    for clip in (fst.clip_grad_norm_, fst.clip_grad_value_)[: 1 if dtype.is_complex else 2]:
        clip(ours, 0.25)
        clip(plain, 0.25)
        assert torch.equal(ours[0].grad.resolve_conj().resolve_neg(), plain[0].grad)
    assert np.array_equal(reals(ours[0].grad.resolve_conj().resolve_neg()), reals(plain[0].grad))


# ---------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("SGD", "torch.optim.SGD"),
        ("Adagrad", "torch.optim.Adagrad"),
        ("Adam", "torch.optim.SparseAdam"),
        ("AdamW", "torch.optim.SparseAdam"),
        ("RMSprop", "torch.optim.SparseAdam"),
    ],
)
@pytest.mark.usefixtures("reading")
def test_sparse_gradients_name_a_class_that_takes_them(name, takes):
    embedding = nn.Embedding(10, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()

    class Mine(getattr(fst, name)):
        pass

    for cls in (getattr(fst, name), Mine):
        opt = cls(embedding.parameters(), lr=0.1)
        with pytest.raises(
            TypeError, match=rf"{cls.__name__}: grads\[0\] .*sparse_coo.*: use {takes}, or sparse=False"
        ):
            opt.step()
    with pytest.raises(TypeError, match=r"clip_grad_norm_: grads\[0\] .*sparse=False"):
        fst.clip_grad_norm_(embedding.parameters(), 1.0)


@pytest.mark.parametrize("transform", ["vmap", "grad", "functionalize"])
def test_a_first_step_inside_a_transform(transform):
    """Of plain tensors: it is a step like any other, and what it has left is used by those outside."""
    opt, plain = (make("SGD", make_params(), max_norm=0.5, momentum=0.9) for _ in range(2))
    for each in (opt, plain):
        set_grads(params_of(each), 0)
    plain.step()

    def inner(x):
        with contextlib.suppress(ValueError):  # its state cannot be made there
            opt.step()
        return x.sum()

    getattr(torch.func, transform)(inner)(torch.ones(3, 4) if transform == "vmap" else torch.ones(4))
    if not opt.state:
        opt.step()
    for each in (opt, plain):
        set_grads(params_of(each), 1)
        each.step()
    assert_close(opt, plain, rtol=0, atol=0)
    assert opt.total_norm == plain.total_norm
    assert opt.clipped_steps == 2


@pytest.mark.parametrize("transform", ["vmap", "grad", "functionalize"])
@pytest.mark.usefixtures("reading")
def test_tensors_of_transforms(transform):
    seen, plain = [], torch.ones(4)

    def inner(x):
        for call in (
            lambda: fst.get_total_norm([plain, x]),
            lambda: fst.clip_grad_value_([with_grad(plain), with_grad(x)], 1.0),
        ):
            with pytest.raises((TypeError, ValueError), match=r"\w+: \w+\[1\] .*(outside the transform|torch\.Tensor)"):
                call()
            seen.append(call)
        return x.sum()

    def with_grad(x):
        return types.SimpleNamespace(grad=x)

    x = torch.ones(3, 4) if transform == "vmap" else torch.ones(4)
    getattr(torch.func, transform)(inner)(x)
    assert len(seen) == 2
    assert (x == 1).all()


def test_saved_state_dicts_are_plain():
    opt = make("Adam", params := make_params(), max_norm=1.0)
    set_grads(params, 0)
    opt.step()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(opt.state_dict()["param_groups"][0]) is dict
    assert loaded["param_groups"][0].keys() == torch.optim.Adam(make_params()).state_dict()["param_groups"][0].keys()
