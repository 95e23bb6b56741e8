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
from fusedstep import _dtypes, reference
from tests.helpers import declared
from tests.helpers.bits import BFLOAT16, assert_same_bits
from tests.helpers.declared import RULES

OURS = {
    "max_norm": None,
    "clip_value": None,
    "error_if_nonfinite": False,
    "nonfinite": "propagate",
    "state_dtype": None,
    "grad_attr": "grad",
    "seed": 0,
    "norm_group": None,
    "l1": 0.0,
    "mask": None,
    "cautious": False,
    "cautious_decay": False,
    "decay_mode": "lr",
    "ema_decay": None,
    "ema_warmup": None,
    "stats": False,
    "decay_lr": None,
}
# What can be read and set in a group, and is none of its keys.
RUN_TIME = tuple(name for name in OURS if name not in ("seed", "norm_group", "decay_lr"))
SHAPES = ((3, 5), (), (0, 2), (2100,))
NAMES = tuple(RULES)
IN_TORCH = tuple(name for name, rule in RULES.items() if rule.torch_class)
TIGHT = {"rtol": 1e-12, "atol": 1e-13}
REAL = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def case(name, **options):
    return pytest.param(name, options, id="-".join([name, *options]))


# A centered variance cancels, so that with a small eps torch's rounding and ours go far apart in float32.
TAME = {"centered": {"eps": 1e-2}}


def tame(options):
    return {k: v for name in options for k, v in TAME.get(name, {}).items()} | options


CASES = [case(name, **tame(options)) for name, options in declared.CASES]
SHORT = [case(name, **tame(list(rule.variants().values())[-1])) for name, rule in RULES.items()]


def of_torch(cases):
    """Those whose class torch has."""
    return [c for c in cases if c.values[0] in IN_TORCH]


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


def set_grads(params, seed, scale=1.0, attr="grad"):
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        setattr(p, attr, torch.randn(p.shape, dtype=p.dtype, generator=generator) * scale)


# torch's own Adam has it from 2.7 on.
TORCH_DECOUPLES = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters


def make(name, params, module=fst, **options):
    if module is torch.optim:
        if name not in IN_TORCH:
            pytest.skip(f"torch.optim has no {name}")
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
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.view(torch.int16).numpy()).view(BFLOAT16)
    return np.array((torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy())


def mask_of(opt, group, p):
    """As the specification takes it."""
    mask = opt.state.get(p, {}).get("mask") if isinstance(opt.state.get(p), dict) else None
    return group["mask"] if mask is None else mask.numpy()


def specified_norm(opt, grad_scale=1.0):
    limited = [group for group in opt.param_groups if group["max_norm"] is not None]
    kept = []
    for group in limited:
        for p in group["params"]:
            if (grad := getattr(p, group["grad_attr"])) is not None:
                keep = reference.kept(reference.decode(reals(p)), mask_of(opt, group, p))
                kept.append(reference.masked(reference.decode(reals(grad)), keep))
    return reference.total_norm(kept) / grad_scale


def riding(opt, group, options):
    """The keywords of the specification for what rides along with the parameters of a group."""
    found = {name: group[name] for name in ("l1", "cautious", "cautious_decay", "decay_mode")}
    found["decay_lr"] = dict.get(group, "decay_lr")
    found["starts"] = RULES[type(opt).__name__].starts(options)
    if group["ema_decay"] is not None:
        warmup = group["ema_warmup"]
        if warmup is not None and not isinstance(warmup, dict):
            warmup = {"kind": warmup}
        full = {"gamma": 1.0, "power": 2 / 3, "min_decay": 0.0, "update_after_step": 0}
        warmup = warmup and {**full, **warmup}
        found["ema_weight"] = reference.ema_weight(dict.get(group, "ema_step", 0), group["ema_decay"], warmup)
    return found


def average_of(state, p):
    """That of a parameter before a step."""
    return reals(state["ema"]) if "ema" in state else reference.decode(reals(p)).copy()


def expect(opt, grad_scale=1.0):
    """What the next step must leave in each parameter and its state, by the specification."""
    name, expected = type(opt).__name__, {}
    norm = specified_norm(opt, grad_scale)
    for group in opt.param_groups:
        rule = RULES[name]
        options = declared.numbers_of(rule, {k: group[k] for k in rule.own if k in group})
        if group["max_norm"] is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, group["max_norm"])
        options["clip_value"] = group["clip_value"]
        full = {**rule.defaults, **group, "state_dtype": group["state_dtype"]}
        states, formats, draws = rule.state_of(full), rule.formats("", full), rule.draws("", full)
        names = [s.name for s in states]
        for p in group["params"]:
            grad = getattr(p, group["grad_attr"])
            state = opt.state.get(p) or {}
            ride = riding(opt, group, full)
            average = {} if group["ema_decay"] is None else {"ema": average_of(state, p)}
            if grad is None:
                if average:
                    old = {k: reals(v) if isinstance(v, torch.Tensor) else v for k, v in state.items()}
                    new = reference.moved_average(average["ema"], reference.decode(reals(p)), ride["ema_weight"])
                    expected[p] = {"param": reals(p), **old, "ema": new}
                continue
            if draws:
                options |= {"seed": group["seed"], "tensor": state.get("tensor_id", opt._tensor_ids()[id(p)])}
            arrays = {}
            for s in states:
                value = reals(p)
                stored = _dtypes.numpy_dtype("", _dtypes.stored_as(value.dtype.name, formats[s.name]))
                arrays[s.name] = np.full_like(value, group[s.start] if s.start else 0.0, dtype=stored)
            arrays |= {n: np.array(start, np.float32) for n, start in rule.number_starts(full).items()}
            arrays.update({k: reals(state[k]) for k in arrays if state.get(k) is not None})
            step = int(state["step"]) + 1 if "step" in state else 1 + any(k in state for k in names)
            ride |= {**average, "mask": mask_of(opt, group, p)}
            new = getattr(reference, rule.name())(
                reals(p), reals(grad), **arrays, step=step, grad_scale=grad_scale, **options, **ride
            )
            expected[p] = dict(zip(["param", *arrays, *average], new, strict=True))
            if "mask" in state:
                expected[p]["mask"] = state["mask"].numpy()
            if "ema" in state and not average:
                expected[p]["ema"] = reals(state["ema"])  # of a checkpoint
            if rule.has_step:
                expected[p]["step"] = (np.float64 if draws else np.float32)(step)
            if draws:
                expected[p]["tensor_id"] = options["tensor"]
    return expected


def assert_is(expected, opt):
    for p, values in expected.items():
        got = {"param": p, **opt.state.get(p, {})}
        assert got.keys() == values.keys()
        for key, value in values.items():
            is_tensor = isinstance(got[key], torch.Tensor)
            assert_same_bits(
                reals(got[key]) if is_tensor else got[key], value, f"{key} of a parameter of shape {tuple(p.shape)}"
            )


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
    rule = getattr(ours, "_rule", None) or RULES[type(ours).__name__]
    if rule.numbers and torch.get_default_dtype() == torch.float32:
        # Kept as float32 between steps by both, and rounded to it at other places.
        tolerance = {key: max(value, 1e-6) for key, value in tolerance.items()}
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(a["params"], b["params"], strict=True):
            torch.testing.assert_close(p, q, **tolerance)
            assert ours.state.get(p, {}).keys() == theirs.state.get(q, {}).keys()
            for key, value in theirs.state.get(q, {}).items():
                # torch's load_state_dict gives numbers the parameter's dtype, ours does not.
                same = isinstance(ours, fst.FusedOptimizer) or key not in {n.name for n in rule.numbers}
                torch.testing.assert_close(ours.state[p][key], value, **tolerance, check_dtype=same)


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
