"""What the tests of ``fusedstep.torch`` share: models, options, and a step as the specification has it."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from bits import assert_same_bits
from fusedstep import reference

OURS = {
    "max_norm": None,
    "clip_value": None,
    "error_if_nonfinite": False,
    "nonfinite": "propagate",
    "norm_group": None,
}
RUN_TIME = tuple(OURS)[:-1]  # can be read and set in a group, and are none of its keys
SHAPES = ((3, 5), (), (0, 2), (2100,))
HYPER = {
    "SGD": ("lr", "momentum", "dampening", "nesterov"),
    "Adagrad": ("lr", "lr_decay", "eps"),
    "RMSprop": ("lr", "alpha", "eps", "momentum"),
    "Adam": ("lr", "eps"),
    "AdamW": ("lr", "eps"),
}
NAMES = tuple(HYPER)
TIGHT = {"rtol": 1e-12, "atol": 1e-13}
REAL = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


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
SHORT = [
    case("SGD", momentum=0.9),
    case("Adagrad", initial_accumulator_value=0.5),
    case("RMSprop", centered=True),
    case("Adam"),
    case("AdamW"),
]


def make_params(dtype=torch.float32, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes]


def adagrad_adds() -> bool:
    """Whether torch's own Adagrad has state for parameters that are added later: not in 2.11."""
    opt = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    opt.add_param_group({"params": (added := nn.Parameter(torch.zeros(1)))})
    added.grad = torch.ones(1)
    try:
        opt.step()
    except KeyError:
        return False
    return True


def need_decoupled_checkpoints(name, options):
    if name == "Adam" and options.get("decoupled_weight_decay") and not TORCH_DECOUPLES:
        pytest.skip("this torch's own Adam has no decoupled_weight_decay to read in a checkpoint")


def need_added_state(name):
    if name == "Adagrad" and not adagrad_adds():
        pytest.skip("this torch's own Adagrad has no state for parameters that are added later")


def set_grads(params, seed, scale=1.0):
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator) * scale


# torch's own Adam has it from 2.7 on.
TORCH_DECOUPLES = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters


def make(name, params, module=fst, **options):
    if module is torch.optim:
        options.setdefault("foreach", False)
        if name == "Adam" and not TORCH_DECOUPLES and options.pop("decoupled_weight_decay", False):
            name = "AdamW"
    return getattr(module, name)(params, **{"lr": 0.05, **options})


def params_of(opt):
    return [p for group in opt.param_groups for p in group["params"]]


def train(opt, first, steps, scale=1.0):
    params = params_of(opt)
    for seed in range(first, first + steps):
        set_grads(params, seed, scale)
        opt.step()


def reals(tensor):
    """A copy as the specification sees it: complex numbers as pairs of reals."""
    tensor = tensor.detach()
    return np.array((torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy())


def state_names(name, group):
    if name == "SGD":
        return ["momentum_buffer"][: group["momentum"] != 0]
    if name == "Adagrad":
        return ["sum"]
    if name == "RMSprop":
        return ["square_avg", *["grad_avg"][: group["centered"]], *["momentum_buffer"][: group["momentum"] != 0]]
    return ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"][: group["amsgrad"]]]


def specified_norm(opt, grad_scale=1.0):
    limited = [p for group in opt.param_groups if group["max_norm"] is not None for p in group["params"]]
    return reference.total_norm([reals(p.grad) for p in limited if p.grad is not None]) / grad_scale


def expect(opt, grad_scale=1.0):
    """What the next step must leave in each parameter and its state, by the specification."""
    name, expected = type(opt).__name__, {}
    norm = specified_norm(opt, grad_scale)
    for group in opt.param_groups:
        options = {k: float(group[k]) for k in HYPER[name]}
        if "betas" in group:
            options["beta1"], options["beta2"] = map(float, group["betas"])
            options["decoupled"] = name == "AdamW" or group.get("decoupled_weight_decay", False)
        if group["max_norm"] is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, group["max_norm"])
        options.update({key: group[key] for key in ("weight_decay", "maximize", "clip_value")})
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
        for key, value in values.items():
            assert_same_bits(reals(got[key]), value, f"{key} of a parameter of shape {tuple(p.shape)}")


def step_as_specified(opt, grad_scale=1.0):
    expected = expect(opt, grad_scale)
    opt.step()
    assert_is(expected, opt)


def snapshot(opt, params):
    """Values, versions and state: what an error must leave as it is."""

    def bits(value):
        return (id(value), reals(value).tobytes()) if isinstance(value, torch.Tensor) else value

    values = [(p._version, bits(p), None if p.grad is None else bits(p.grad)) for p in params]
    states = [{k: bits(v) for k, v in opt.state[p].items()} if p in opt.state else None for p in params]
    return values, states, {id(p) for p in opt.state}


def torch_total_norm(tensors, norm_type=2.0):
    if hasattr(utils, "get_total_norm"):  # from torch 2.6 on
        return utils.get_total_norm(tensors, norm_type)
    holders = [nn.Parameter(torch.empty_like(t)) for t in tensors]
    for holder, tensor in zip(holders, tensors, strict=True):
        holder.grad = tensor.clone()
    return utils.clip_grad_norm_(holders, math.inf, norm_type)


def assert_close(ours, theirs, **tolerance):
    """Parameters and state of two optimizers."""
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(a["params"], b["params"], strict=True):
            torch.testing.assert_close(p, q, **tolerance)
            assert ours.state.get(p, {}).keys() == theirs.state.get(q, {}).keys()
            for key, value in theirs.state.get(q, {}).items():
                torch.testing.assert_close(ours.state[p][key], value, **tolerance)


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
