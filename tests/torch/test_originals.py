"""The optimizers that torch does not have, against the formulas of the packages whose drop-ins they are.

Each formula is written here as the package writes it, in float64, one tensor at a time. It also keeps its state under
the package's keys, so that checkpoints of the package's shape can be made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusedstep.torch as fst
from tests.helpers.declared import RULES

State = dict[str, Any]


@dataclass(frozen=True)
class Original:
    """What a package does in one step of one tensor: state and parameter change in place."""

    step: Callable[[Tensor, Tensor, State, dict[str, Any]], None]
    options: tuple[dict[str, Any], ...]  # sets of them
    counts_groups: bool = False  # the step count is in the group
    group: tuple[tuple[str, Any], ...] = ()  # keys of a group that are no options here
    only_here: tuple[str, ...] = ("maximize",)  # options that are no keys there
    bound: float = 1e-12  # on the relative difference after some steps


ORIGINALS: dict[str, Original] = {}


def average(m: Tensor, x: Tensor, beta: float) -> None:
    m.mul_(beta).add_(x, alpha=1 - beta)


# -------------------------------------------------------------------------------------------------------- the formulas


def ademamix(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """bitsandbytes 0.50.2, backends/cpu/ops.py, with the schedules of optim/ademamix.py."""
    if not s:
        s |= {"step": 0, "state1": torch.zeros(2, *p.shape), "state2": torch.zeros_like(p)}
    s["step"] += 1
    t, (beta1, beta2, beta3), alpha = s["step"], o["betas"], o["alpha"]
    if o["t_alpha"]:
        alpha = min(t * alpha / o["t_alpha"], alpha)
    if o["t_beta3"]:
        log1, log3, scale = math.log(beta1), math.log(beta3), t / o["t_beta3"]
        beta3 = min(math.exp(log1 * log3 / ((1 - scale) * log3 + scale * log1)), beta3)
    m1, m2, nu = *s["state1"], s["state2"]
    average(m1, g, beta1)
    average(m2, g, beta3)
    average(nu, g * g, beta2)
    p.mul_(1 - o["lr"] * o["weight_decay"])
    mixed = m1 / (1 - beta1**t) + alpha * m2
    p.sub_(o["lr"] * mixed / (nu.sqrt() / math.sqrt(1 - beta2**t) + o["eps"]))


OF_THREE = {"betas": (0.8, 0.95, 0.99)}
ORIGINALS["AdEMAMix"] = Original(
    ademamix,
    (
        {},
        {"weight_decay": 0.0, "alpha": 2.0, **OF_THREE},
        {"t_alpha": 10, "t_beta3": 20, "weight_decay": 0.1},
        {"t_alpha": 50, "t_beta3": 50, "eps": 1e-3, **OF_THREE},
        {"t_beta3": 7, "betas": (0.9, 0.99, 0.999)},
    ),
)


def adopt(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """iShohei220/adopt of 2024-12-13 (6468572b), ``_single_tensor_adopt``; its clip_lambda is ``step**clip_exp``."""
    if not s:
        s |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    (beta1, beta2), decay, step = o["betas"], o["weight_decay"], int(s["step"])
    s["step"] += 1
    g = -g if o["maximize"] else g
    if decay != 0 and not o["decouple"]:
        g = g.add(p, alpha=decay)
    if step == 0:
        s["exp_avg_sq"].addcmul_(g, g)
        return
    if decay != 0 and o["decouple"]:
        p.add_(p, alpha=-o["lr"] * decay)
    normed = g / torch.clamp(s["exp_avg_sq"].sqrt(), o["eps"])
    if o["clip_exp"] is not None:
        clip = step ** o["clip_exp"]
        normed.clamp_(-clip, clip)
    s["exp_avg"].lerp_(normed, 1 - beta1)
    p.add_(s["exp_avg"], alpha=-o["lr"])
    s["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)


ORIGINALS["ADOPT"] = Original(
    adopt,
    (
        {},
        {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-2},
        {"weight_decay": 0.1, "lr": 0.1, "decouple": True},
        {"clip_exp": None, "maximize": True},
        {"clip_exp": 0.333, "betas": (0.5, 0.5)},
    ),
    group=(("foreach", None), ("capturable", False), ("differentiable", False), ("fused", None)),
    only_here=("clip_exp",),
)


def adan(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """sail-sg/Adan of 2025-06-08 (2c65beaf), ``_single_tensor_adan``."""
    if not s:
        s |= {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq", "exp_avg_diff")}
    if "neg_pre_grad" not in s or o["step"] == 1:
        s["neg_pre_grad"] = -g
    t, (beta1, beta2, beta3), lr = o["step"], o["betas"], o["lr"]
    difference = s["neg_pre_grad"] + g
    average(s["exp_avg"], g, beta1)
    average(s["exp_avg_diff"], difference, beta2)
    ahead = difference * beta2 + g
    average(s["exp_avg_sq"], ahead * ahead, beta3)
    denominator = s["exp_avg_sq"].sqrt() / math.sqrt(1 - beta3**t) + o["eps"]
    if o["no_prox"]:
        p.mul_(1 - lr * o["weight_decay"])
    p.addcdiv_(s["exp_avg"], denominator, value=-lr / (1 - beta1**t))
    p.addcdiv_(s["exp_avg_diff"], denominator, value=-lr * beta2 / (1 - beta2**t))
    if not o["no_prox"]:
        p.div_(1 + lr * o["weight_decay"])
    s["neg_pre_grad"] = -g


ORIGINALS["Adan"] = Original(
    adan,
    (
        {},
        {"weight_decay": 0.3, "lr": 0.1},
        {"weight_decay": 0.3, "lr": 0.1, "no_prox": True},
        {"betas": (0.9, 0.5, 0.8), "eps": 1e-3},
    ),
    counts_groups=True,
    group=(("max_grad_norm", 0.0), ("foreach", True), ("fused", False)),
)


def signsgd(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """pytorch_optimizer 4.1.0, optimizer/sgd.py, ``SignSGD._step_per_param``."""
    g = -g if o["maximize"] else g
    if o["weight_decouple"]:
        p.mul_(1 - o["weight_decay"] * o["lr"])
    else:
        g = g + o["weight_decay"] * p
    if o["momentum"] > 0:
        s.setdefault("momentum_buffer", torch.zeros_like(p)).lerp_(g, 1 - o["momentum"])
        g = s["momentum_buffer"]
    p.add_(torch.sign(g), alpha=-o["lr"])


ORIGINALS["SignSGD"] = Original(
    signsgd,
    (
        {},
        {"momentum": 0.0},
        {"momentum": 0.5, "weight_decay": 0.1, "lr": 0.1},
        {"momentum": 0.5, "weight_decay": 0.1, "lr": 0.1, "weight_decouple": False},
        {"momentum": 0.0, "weight_decay": 0.1, "lr": 0.1, "weight_decouple": False, "maximize": True},
    ),
    counts_groups=True,
    group=(("foreach", None),),
)


def yogi(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """torch_optimizer 0.3.0, yogi.py."""
    if not s:
        start = o["initial_accumulator"]
        s |= {"step": 0, "exp_avg": torch.full_like(p, start), "exp_avg_sq": torch.full_like(p, start)}
    s["step"] += 1
    t, (beta1, beta2), v = s["step"], o["betas"], s["exp_avg_sq"]
    g = g + o["weight_decay"] * p
    average(s["exp_avg"], g, beta1)
    v.addcmul_(torch.sign(v - g * g), g * g, value=-(1 - beta2))
    denominator = v.sqrt() / math.sqrt(1 - beta2**t) + o["eps"]
    p.addcdiv_(s["exp_avg"], denominator, value=-o["lr"] / (1 - beta1**t))


ORIGINALS["Yogi"] = Original(
    yogi,
    (
        {},
        {"weight_decay": 0.1, "lr": 0.1},
        {"betas": (0.5, 0.8), "eps": 1e-6, "initial_accumulator": 0.5},
        {"initial_accumulator": 0.0},
    ),
)


def adabelief(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """adabelief-pytorch 0.2.1, AdaBelief.py."""
    if not s:
        s |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_var": torch.zeros_like(p)}
        s |= {"max_exp_avg_var": torch.zeros_like(p)} if o["amsgrad"] else {}
    s["step"] += 1
    t, (beta1, beta2), lr, decay = s["step"], o["betas"], o["lr"], o["weight_decay"]
    if o["weight_decouple"]:
        p.mul_(1 - (decay if o["fixed_decay"] else lr * decay))
    else:
        g = g + decay * p
    m, v = s["exp_avg"], s["exp_avg_var"]
    average(m, g, beta1)
    average(v, (g - m) ** 2, beta2)
    v.add_(o["eps"])
    divisor = v
    if o["amsgrad"]:
        divisor = torch.max(s["max_exp_avg_var"], v, out=s["max_exp_avg_var"])
    if not o["rectify"]:
        denominator = divisor.sqrt() / math.sqrt(1 - beta2**t) + o["eps"]
        p.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))
        return
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length >= 5:
        ratio = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
        size = math.sqrt((1 - beta2**t) * ratio) / (1 - beta1**t)
        p.addcdiv_(m, v.sqrt() + o["eps"], value=-size * lr)
    elif o["degenerated_to_sgd"]:
        p.add_(m, alpha=-lr / (1 - beta1**t))


PLAIN = {"rectify": False}
ORIGINALS["AdaBelief"] = Original(
    adabelief,
    (
        {},
        {"print_change_log": False, "amsgrad": True},
        PLAIN,
        {"amsgrad": True, "betas": (0.5, 0.5), **PLAIN},
        {"degenerated_to_sgd": False, "weight_decay": 0.1},
        {"weight_decay": 0.1, "lr": 0.1, "weight_decouple": False},
        {"weight_decay": 0.1, "fixed_decay": True},
        {"weight_decay": 0.1, "fixed_decay": True, "weight_decouple": False, "eps": 1e-3, **PLAIN},
        {"betas": (0.5, 0.8), "eps": 1e-2},
    ),
    group=(("buffer", [[None, None, None] for _ in range(10)]),),
    # Attributes of the optimizer there.
    only_here=("maximize", "weight_decouple", "fixed_decay", "rectify", "degenerated_to_sgd"),
    bound=1e-11,  # g - m cancels, and lr / sqrt(v) is large
)


def laprop(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """timm 1.0.31, optim/laprop.py."""
    if not s:
        s |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p), "exp_avg_lr_1": 0.0}
        s |= {"exp_avg_lr_2": torch.tensor(0.0), "exp_avg_sq": torch.zeros_like(p)}
    s["step"] += 1
    (beta1, beta2), lr = o["betas"], o["lr"]
    s["exp_avg_lr_1"] = s["exp_avg_lr_1"] * beta1 + (1 - beta1) * lr
    s["exp_avg_lr_2"] = s["exp_avg_lr_2"] * beta2 + (1 - beta2)
    average(s["exp_avg_sq"], g * g, beta2)
    quotient = g / ((s["exp_avg_sq"] / s["exp_avg_lr_2"]).sqrt() + o["eps"])
    s["exp_avg"].mul_(beta1).add_(quotient, alpha=lr * (1 - beta1))
    p.add_(s["exp_avg"], alpha=-lr / s["exp_avg_lr_1"] if s["exp_avg_lr_1"] != 0 else 0.0)
    p.add_(p, alpha=-lr * o["weight_decay"])


ORIGINALS["LaProp"] = Original(
    laprop,
    ({}, {"weight_decay": 0.3, "lr": 0.1}, {"betas": (0.5, 0.8), "eps": 1e-3}, {"lr": 0.0}),
    group=(("caution", False), ("corrected_weight_decay", False), ("max_lr_snapshot", 4e-4), ("foreach", None)),
)


def lion(p: Tensor, g: Tensor, s: State, o: dict[str, Any]) -> None:
    """google/automl of 2023, lion/lion_pytorch.py."""
    beta1, beta2 = o["betas"]
    p.mul_(1 - o["lr"] * o["weight_decay"])
    m = s.setdefault("exp_avg", torch.zeros_like(p))
    p.add_(torch.sign(m * beta1 + g * (1 - beta1)), alpha=-o["lr"])
    average(m, g, beta2)


ORIGINALS["Lion"] = Original(lion, ({}, {"betas": (0.5, 0.8), "weight_decay": 0.1, "lr": 0.1}))


# ----------------------------------------------------------------------------------------------------------- the tests

SHAPES = ((7,), (3, 5), (), (4, 1, 3))
CASES = [pytest.param(n, o, id="-".join([n, *o])) for n, original in ORIGINALS.items() for o in original.options]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """States of one number have torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Reference:
    """An optimizer over one group, by the formula."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.original, self.rule = ORIGINALS[name], RULES[name]
        self.params = [torch.randn(shape, generator=generator) for shape in SHAPES]
        self.states: list[State] = [{} for _ in SHAPES]
        self.options: dict[str, Any] = {**self.rule.defaults, **options, "step": 0}

    def step(self, grads: list[Tensor], lr: float) -> None:
        self.options |= {"step": self.options["step"] + 1, "lr": lr}
        for p, g, s in zip(self.params, grads, self.states, strict=True):
            self.original.step(p, g, s, self.options)

    def checkpoint(self) -> dict[str, Any]:
        """As the package's optimizer gives it."""
        count = {"step": self.options["step"]} if self.original.counts_groups else {}
        group = {k: self.options[k] for k in self.rule.own if k not in self.original.only_here}
        group |= {**count, **dict(self.original.group), "params": list(range(len(self.params)))}
        states = {
            k: {n: v.clone() if isinstance(v, Tensor) else v for n, v in s.items()} for k, s in enumerate(self.states)
        }
        return {"state": states, "param_groups": [group]}


def gradients(step: int) -> list[Tensor]:
    """Of sizes that differ from step to step."""
    generator = torch.Generator().manual_seed(100 + step)
    size = 10.0 ** torch.randn((), generator=generator)
    return [(torch.randn(shape, generator=generator) + 0.3) * size for shape in SHAPES]


def rate(first: float, step: int) -> float:
    """A schedule: LaProp's state depends on it."""
    return first * (1.0 if step < 5 else 0.9**step if step % 7 else 2.0)


def run(opt: torch.optim.Optimizer, reference: Reference, first: int, last: int) -> None:
    """The same steps of both."""
    lr = reference.options.setdefault("first lr", reference.options["lr"])
    params = opt.param_groups[0]["params"]
    for step in range(first, last):
        grads = gradients(step)
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        opt.param_groups[0]["lr"] = rate(lr, step)
        opt.step()
        reference.step(grads, rate(lr, step))


def assert_near(got: Any, want: Any, bound: float, what: str) -> None:
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    assert got.shape == want.shape, what
    assert (got - want).abs().max() <= bound * want.abs().max(), what


def assert_follows(opt: torch.optim.Optimizer, reference: Reference) -> None:
    bound = reference.original.bound
    params = opt.param_groups[0]["params"]
    for k, (p, state) in enumerate(zip(params, reference.states, strict=True)):
        assert_near(p.detach(), reference.params[k], bound, f"parameter {k}")
        ours: State = dict(opt.state[p])
        if "state1" in state:
            ours["state1"], ours["state2"] = torch.stack([ours["exp_avg"], ours["exp_avg_slow"]]), ours["exp_avg_sq"]
        for name, value in state.items():
            assert_near(ours[name], value, bound, f"{name} of parameter {k}")


def make(name: str, reference: Reference, **options: Any) -> torch.optim.Optimizer:
    """Ours, over copies of the same parameters."""
    opt: torch.optim.Optimizer = getattr(fst, name)([nn.Parameter(p.clone()) for p in reference.params], **options)
    return opt


def test_every_optimizer_that_torch_lacks_is_here() -> None:
    assert {name for name, rule in RULES.items() if not rule.torch_class} == ORIGINALS.keys()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_follows_the_original(name: str, options: dict[str, Any]) -> None:
    reference = Reference(name, options)
    run(opt := make(name, reference, **options), reference, 0, 30)
    assert_follows(opt, reference)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("lost", [0, 3])
def test_a_gradient_that_is_nan_shows(name: str, options: dict[str, Any], lost: int) -> None:
    """At once, or in the next step where that one leaves the parameter as it is; torch.sign would freeze it."""
    opt = make(name, Reference(name, options), **options)
    params = opt.param_groups[0]["params"]
    for step in range(lost + 2):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g
        if step == lost:
            params[0].grad[2] = math.nan
        opt.step()
    shows = [p.isnan() for p in params]
    assert shows[0].tolist() == [k == 2 for k in range(7)]
    assert not any(x.any() for x in shows[1:])


@pytest.mark.parametrize("name", ORIGINALS)
def test_options_make_a_difference(name: str) -> None:
    """In the formulas, as far as they go: with rectify AdaBelief does not use what amsgrad keeps."""
    ends = []
    for options in ORIGINALS[name].options:
        run(make(name, reference := Reference(name, options), **options), reference, 0, 10)
        ends.append(torch.cat([p.flatten() for p in reference.params]))
    same = [(i, j) for i in range(len(ends)) for j in range(i) if torch.equal(ends[i], ends[j])]
    assert same == ([(1, 0)] if name == "AdaBelief" else [])


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c.values[0] != "AdEMAMix"])
def test_goes_on_from_a_checkpoint_of_the_original(name: str, options: dict[str, Any]) -> None:
    reference = Reference(name, options)
    run(make(name, reference, **options), reference, 0, 6)
    opt = make(name, reference, **options)
    opt.load_state_dict(reference.checkpoint())
    run(opt, reference, 6, 12)
    assert_follows(opt, reference)
    group = opt.param_groups[0]
    assert "step" not in group or not RULES[name].has_step
    assert group.keys() >= {*make(name, reference, **options).param_groups[0]}
    again = make(name, reference, **options)
    again.load_state_dict(opt.state_dict())
    run(again, reference, 12, 14)
    assert_follows(again, reference)


@pytest.mark.parametrize("name", ["LaProp", "Yogi"])
def test_older_checkpoints_have_plain_numbers(name: str) -> None:
    reference = Reference(name, {})
    run(make(name, reference), reference, 0, 6)
    opt = make(name, reference)
    checkpoint = reference.checkpoint()
    for state in checkpoint["state"].values():
        state |= {k: float(v) for k, v in state.items() if not isinstance(v, Tensor) or (v.ndim == 0 and "lr" in k)}
        state["step"] = int(state["step"])
    opt.load_state_dict(checkpoint)
    for state in opt.state.values():
        assert isinstance(state["step"], Tensor)
    run(opt, reference, 6, 12)
    assert_follows(opt, reference)


def test_a_checkpoint_of_bitsandbytes_has_both_averages_in_one_array() -> None:
    reference = Reference("AdEMAMix", {})
    run(make("AdEMAMix", reference), reference, 0, 6)
    opt = make("AdEMAMix", reference)
    checkpoint = reference.checkpoint()
    opt.load_state_dict(checkpoint)
    with pytest.raises(ValueError, match=r"AdEMAMix: .*exp_avg"):
        run(opt, reference, 6, 7)
    for state in checkpoint["state"].values():
        state["exp_avg"], state["exp_avg_slow"] = state.pop("state1")
        state["exp_avg_sq"] = state.pop("state2")
    opt.load_state_dict(checkpoint)
    run(opt, reference, 6, 12)
    assert_follows(opt, reference)
