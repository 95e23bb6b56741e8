"""What surrounds a step: torch's default device and dtype, any mapping as state, tied, lazy and transformed tensors."""

import collections
import contextlib
import io
import itertools
import math
import types

import numpy as np
import pytest
import torch
from torch import nn

import fusedstep.torch as fst
from tests.helpers.torch_spec import (
    CASES,
    SHORT,
    TIGHT,
    assert_close,
    make,
    make_params,
    params_of,
    reals,
    set_grads,
    snapshot,
    step_as_specified,
    train,
)

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


@pytest.mark.parametrize(("betas", "which"), [((1.0, 0.5), 0), ((0.5, 2), 1), ([0.5, math.nan], 1), (("x", 0.5), 0)])
def test_which_of_the_betas_is_wrong_is_said(betas, which):
    opt = make("AdamW", make_params())
    for call in (
        lambda: make("AdamW", make_params(), betas=betas),
        lambda: opt.add_param_group({"params": make_params(), "betas": betas}),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"^AdamW: betas\[{which}\] is {betas[which]!r}, expected "):
            call()


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
