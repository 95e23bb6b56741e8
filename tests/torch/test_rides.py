"""What rides along with a step of ``fusedstep.torch``: options, masks, averages, statistics, checkpoints."""

import copy
import inspect
import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers.bits import assert_same_bits
from tests.helpers.declared import RULES
from tests.helpers.properties import examples
from tests.helpers.torch_spec import (
    IN_TORCH,
    NAMES,
    assert_is,
    expect,
    make,
    make_params,
    mask_of,
    params_of,
    reals,
    set_grads,
    snapshot,
    step_as_specified,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["f32", "f64", "bf16"])
POWER = {"kind": "power", "update_after_step": 1}


def masks_of(params, seed=5):
    """Of the first and the last."""
    generator = torch.Generator().manual_seed(seed)
    return {p: torch.rand(p.shape, generator=generator) < 0.6 for p in (params[0], params[-1])}


def all_options(name, **options):
    """Everything that a class can have."""
    rule = RULES[name]
    found = {"l1": 0.3, "cautious": "unscaled", "ema_decay": 0.9, "stats": True, "max_norm": 1.0, "clip_value": 0.01}
    if rule.is_decoupled(rule.defaults):
        found |= {"decay_mode": "squared", "cautious_decay": True}
    if "weight_decay" in rule.own:
        found["weight_decay"] = 0.1
    return {**found, **options}


def specified_stats(opt):
    """Of the next step, computed before it."""
    found = {}
    for k, p in enumerate(params_of(opt)):
        (group,) = opt.param_groups
        if p.grad is not None:
            p0, g = reference.decode(reals(p)), reals(p.grad)
            keep = reference.kept(p0, mask_of(opt, group, p))
            found[str(k)] = (
                math.sqrt(reference.tree(reference.block_sums(p0))),
                math.sqrt(reference.tree(reference.block_sums(reference.masked(reference.decode(g), keep)))),
            )
    return found


@DTYPES
@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_the_specification(name, dtype):
    opt = make(name, params := make_params(dtype), **all_options(name, ema_warmup=POWER))
    opt.set_mask(masks_of(params))
    for seed in range(5):
        set_grads(params, seed)
        if seed == 2:
            params[-1].grad = None  # its average follows
        want = specified_stats(opt)
        step_as_specified(opt)
        stats = opt.stats()
        assert {k: (v["param_norm"], v["grad_norm"]) for k, v in stats.items() if k in want} == want
    assert opt.param_groups[0]["ema_step"] == 5
    for p, mask in masks_of(params).items():
        assert (p[~mask] == 0).all()
        assert (p[mask] != 0).any()


def test_a_first_step_without_a_gradient_makes_the_average_alone():
    opt = make("AdamW", params := make_params(), ema_decay=0.5)
    set_grads(params[:2], 0)
    step_as_specified(opt)
    assert opt.state[params[3]].keys() == {"ema"}
    for seed in range(1, 3):
        set_grads(params, seed)
        step_as_specified(opt)
    assert opt.state[params[3]]["step"] == 2


@pytest.mark.parametrize("state_dtype", [None, "bfloat16"])
def test_masks_and_averages_come_before_state(state_dtype):
    """The state that a first step makes is whole, whatever was there."""
    opt = make("AdamW", params := make_params(), ema_decay=0.5, state_dtype=state_dtype)
    opt.ema_parameters()
    opt.set_mask(masks_of(params))
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_mask_is_not_a_first_step_of_sgd(momentum):
    options = {"momentum": momentum, "dampening": 0.5 if momentum else 0.0}
    opt = make("SGD", params := make_params(), **options, ema_decay=0.5)
    opt.set_mask(masks_of(params))
    assert opt.state[params[0]].keys() == {"mask"}
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)


def test_options_are_seen_and_set_in_groups():
    params = make_params()
    opt = make("AdamW", [{"params": params[:2], "l1": 0.5}, {"params": params[2:], "mask": "nonzero"}])
    one, other = opt.param_groups
    assert (one["l1"], one["mask"], other["l1"], other["mask"]) == (0.5, None, 0.0, "nonzero")
    assert not {"l1", "mask", "ema_step", "decay_lr"} & {*one, *other, *opt.state_dict()["param_groups"][0]}
    changes = [{}, {"l1": 0.1}, {"cautious": "unscaled"}, {"cautious": False, "decay_mode": "relative"}, {"l1": 0.0}]
    for seed, change in enumerate(changes):
        other.update(change)
        if "decay_mode" in change:
            other["decay_lr"] = 0.2
        set_grads(params, seed)
        step_as_specified(opt)
    assert other.pop("mask") == "nonzero"
    assert other["mask"] is None
    assert copy.copy(one)["l1"] == 0.5
    one["l1"] = -1.0
    set_grads(params, 9)
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match=r"AdamW: l1 is -1\.0, expected a finite number >= 0"):
        opt.step()
    assert snapshot(opt, params) == before


def test_the_rate_of_decay_is_that_of_construction():
    params = make_params()
    options = {"weight_decay": 0.1, "decay_mode": "relative"}
    opt = make("AdamW", [{"params": params[:2]}, {"params": params[2:], "lr": 0.2}], lr=0.1, **options)
    assert [g["decay_lr"] for g in opt.param_groups] == [0.1, 0.2]
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    for seed in range(3):
        set_grads(params, seed)
        step_as_specified(opt)
        schedule.step()
    assert [g["decay_lr"] for g in opt.param_groups] == [0.1, 0.2]
    saved = opt.state_dict()
    assert [g["decay_lr"] for g in saved["param_groups"]] == [0.1, 0.2]
    copies = make_params()
    other = make("AdamW", [{"params": copies[:2]}, {"params": copies[2:]}], lr=0.7, decay_lr=0.3, **options)
    assert [g["decay_lr"] for g in other.param_groups] == [0.3, 0.3]
    other.load_state_dict(saved)
    assert [g["decay_lr"] for g in other.param_groups] == [0.1, 0.2]
    plain = make("AdamW", [{"params": copies[:2]}, {"params": copies[2:]}])
    plain.load_state_dict(saved)
    assert not any("decay_lr" in g for g in plain.param_groups)


@pytest.mark.parametrize("given", [None, 0.4], ids=["own", "given"])
@pytest.mark.parametrize("schedule", [False, True])
def test_a_law_that_comes_later_has_the_rate_of_construction(schedule, given):
    opt = make("AdamW", params := make_params(), lr=0.2, weight_decay=0.1, decay_lr=given)
    if schedule:
        lower = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    set_grads(params, 0)
    opt.step()
    if schedule:
        lower.step()
    opt.param_groups[0]["decay_mode"] = "relative"
    for seed in range(1, 4):
        set_grads(params, seed)
        opt.step()
        assert opt.param_groups[0]["decay_lr"] == (given or 0.2)
        step_as_specified(opt)
        opt.param_groups[0]["lr"] *= 0.5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"l1": math.nan}, ValueError, "AdamW: l1 is nan, expected a finite number >= 0"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, ValueError, "AdamW: mask is a Tensor, expected None or 'nonzero'"),
        ({"cautious": True}, ValueError, "AdamW: cautious is True, expected False or 'unscaled'.*second pass"),
        ({"decay_mode": "x"}, ValueError, "AdamW: decay_mode is 'x', expected one of 'lr', 'fixed'"),
        ({"decay_mode": "squared", "lr": 0.0}, ValueError, r"AdamW: decay_lr is 0\.0, expected a finite number > 0"),
        ({"ema_decay": -0.1}, ValueError, r"AdamW: ema_decay is -0\.1, expected 0 <= ema_decay <= 1"),
        ({"ema_warmup": "mean"}, ValueError, "AdamW: ema_warmup without ema_decay, expected both or neither"),
        ({"stats": "all"}, TypeError, "AdamW: stats is 'all', expected True or False"),
    ],
)
def test_what_is_refused(options, error, text):
    with pytest.raises(error, match=text):
        fst.AdamW(make_params(), **options)
    opt = fst.AdamW(make_params())
    with pytest.raises(error, match=text):
        opt.add_param_group({"params": make_params(), **options})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize("options", [{"decay_mode": "fixed"}, {"cautious_decay": True}], ids=str)
def test_decay_that_is_not_decoupled_has_no_law(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Adam: {name} is .*; decoupled_weight_decay=True decays the parameter"):
        fst.Adam(make_params(), **options)
    fst.Adam(make_params(), decoupled_weight_decay=True, **options)
    with pytest.raises(ValueError, match=f"RMSprop: {name} is .*, expected .* where decay is not decoupled$"):
        fst.RMSprop(make_params(), **options)


# --------------------------------------------------------------------------------------------------------------- masks


def test_masks_that_are_refused():
    params = [*make_params(), nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2))]
    opt = make("AdamW", [{"params": params[:5]}, {"params": params[5:], "mask": "nonzero"}])
    good = masks_of(params[:4])
    two = torch.ones(2, dtype=torch.bool)
    for bad, error, text in [
        ({nn.Parameter(torch.ones(2)): two}, ValueError, r"set_mask names a tensor of shape \(2,\) that is no p"),
        ({3: two}, ValueError, "set_mask names a tensor a int that is no parameter"),
        ({params[1]: True}, TypeError, r"mask of params\[1\] is a bool, expected a tensor of torch.bool or None"),
        ({params[0]: torch.ones(3, 5)}, TypeError, r"mask of params\[0\] has dtype torch.float32, expected torch.bool"),
        ({params[0]: two}, ValueError, r"mask of params\[0\] has shape \(2,\), expected \(3, 5\) to match it"),
        ({params[4]: two}, TypeError, r"mask of params\[4\]: the parameter has dtype torch.complex64, which takes no"),
        ({params[5]: two}, ValueError, r"mask of params\[5\] in a group with mask='nonzero'"),
        ({params[5]: two.to("meta")}, ValueError, r"mask of params\[5\] is on device meta, expected cpu"),
    ]:
        with pytest.raises(error, match=f"AdamW: {text}"):
            opt.set_mask({**good, **bad})
        assert not opt.state
    for bad in ([two], None):
        with pytest.raises(TypeError, match=r"AdamW: masks is a \w+, expected a dict of masks by their parameters"):
            opt.set_mask(bad)
    opt.set_mask(good)
    opt.param_groups[0]["mask"] = "nonzero"
    set_grads(params, 0)
    with pytest.raises(ValueError, match="AdamW: mask is 'nonzero' for parameters that have masks of their own"):
        opt.step()


def test_a_mask_is_a_copy_and_can_be_taken_away():
    opt = make("SGD", params := make_params(), momentum=0.9)
    opt.set_mask(given := masks_of(params))
    given[params[0]].fill_(True)
    set_grads(params, 0)
    step_as_specified(opt)
    assert (params[0][~masks_of(params)[params[0]]] == 0).all()
    opt.set_mask({params[0]: None, params[1]: None, params[3]: None})
    assert "mask" not in opt.state[params[0]]
    set_grads(params, 1)
    step_as_specified(opt)
    assert (params[0] != 0).all()
    fresh = make("SGD", params := make_params())
    fresh.set_mask(masks_of(params))
    fresh.set_mask(dict.fromkeys(params))
    assert not fresh.state


def test_pruning_with_torch():
    """``torch.nn.utils.prune`` masks in the forward pass; the mask of the optimizer keeps decay and momentum away."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    for layer in (model[0], model[2]):
        prune.l1_unstructured(layer, "weight", amount=0.5)
    opt = fst.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    opt.set_mask({layer.weight_orig: layer.weight_mask.bool() for layer in (model[0], model[2])})
    for seed in range(3):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        opt.zero_grad()
        model(x).square().mean().backward()
        step_as_specified(opt)
    for layer in (model[0], model[2]):
        assert (layer.weight_orig[layer.weight_mask == 0] == 0).all()
        prune.remove(layer, "weight")
        assert (layer.weight == 0).float().mean() == 0.5
    nonzero = fst.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, mask="nonzero")
    model(torch.ones(1, 6)).square().mean().backward()
    step_as_specified(nonzero)
    assert (model[0].weight == 0).float().mean() == 0.5


# ------------------------------------------------------------------------------------------------------------ averages


@DTYPES
def test_averages_and_swapping(dtype):
    opt = make("AdamW", params := make_params(dtype), ema_decay=0.5)
    assert [e.tolist() for e in opt.ema_parameters()] == [p.tolist() for p in params]
    for seed in range(2):
        set_grads(params, seed)
        opt.step()
    averages, kept = opt.ema_parameters(), [p.detach().clone() for p in params]
    assert {e.dtype for e in averages} == {torch.float64 if dtype == torch.float64 else torch.float32}
    assert averages[0] is opt.state[params[0]]["ema"]
    assert not averages[0].requires_grad
    version = params[0]._version
    with opt.swap_ema():
        assert [p.tolist() for p in params] == [e.to(dtype).tolist() for e in averages]
        assert params[0]._version > version
        set_grads(params, 3)
        with pytest.raises(RuntimeError, match=r"AdamW: step\(\) within swap_ema\(\)"):
            opt.step()
        with pytest.raises(RuntimeError, match=r"AdamW: swap_ema\(\) within swap_ema\(\)"), opt.swap_ema():
            pass
    assert [p.tolist() for p in params] == [p.tolist() for p in kept]
    with pytest.raises(KeyError), opt.swap_ema():
        raise KeyError
    assert [p.tolist() for p in params] == [p.tolist() for p in kept]
    step_as_specified(opt)


def test_averages_of_complex_parameters():
    opt = make("Adam", params := make_params(torch.complex64), ema_decay=0.5)
    for seed in range(3):
        set_grads(params, seed)
        step_as_specified(opt)
    assert opt.ema_parameters()[0].dtype == torch.complex64


def test_averages_need_the_option():
    opt = make("AdamW", params := make_params())
    for call in (opt.ema_parameters, opt.swap_ema().__enter__, lambda: opt.attach_ema(AveragedModel(nn.Linear(1, 1)))):
        with pytest.raises(ValueError, match=r"AdamW: \w+\(\) without ema_decay, expected it in a group"):
            call()
    opt.param_groups[0]["ema_decay"] = 0.5
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)
    assert opt.param_groups[0]["ema_step"] == 2


@pytest.mark.parametrize("how", ["skip", "scaler"])
def test_a_skipped_step_moves_no_average(how):
    options = {"max_norm": 1.0, "nonfinite": "skip"} if how == "skip" else {"fused": True}
    opt = make("AdamW", params := make_params(), ema_decay=0.5, stats=True, **options)
    set_grads(params, 0)
    opt.step()
    stats, before = opt.stats(), [e.clone() for e in opt.ema_parameters()]
    set_grads(params, 1)
    params[0].grad[0, 0] = math.nan
    if how == "scaler":
        opt.grad_scale, opt.found_inf = torch.tensor(2.0), torch.tensor(1.0)
    opt.step()
    assert opt.skipped_steps == 1
    assert opt.param_groups[0]["ema_step"] == 1
    assert opt.stats() == stats
    assert [e.tolist() for e in opt.ema_parameters()] == [e.tolist() for e in before]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)

    def forward(self, x):
        return self.two(self.norm(self.one(x)))


def train(net, opt, steps, first=0, after=None):
    for seed in range(first, first + steps):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()
        if after is not None:
            after()


def test_an_averaged_model_is_attached():
    torch.manual_seed(0)
    net = Net()
    twin = copy.deepcopy(net)
    ours, theirs = AveragedModel(net), AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    opt = fst.AdamW(net.parameters(), lr=0.01, ema_decay=0.9)
    opt.attach_ema(ours)
    train(net, opt, 10)
    plain = fst.AdamW(twin.parameters(), lr=0.01)
    train(twin, plain, 10, after=lambda: theirs.update_parameters(twin))
    assert int(ours.n_averaged) == int(theirs.n_averaged) == 10
    assert opt.param_groups[0]["ema_step"] == 10
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
    for e, f in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(e, f, rtol=1e-6, atol=1e-7)
    assert [e.data_ptr() for e in opt.ema_parameters()] == [e.data_ptr() for e in ours.module.parameters()]
    torch.optim.swa_utils.update_bn([torch.randn(8, 5)], ours)


def test_an_attached_model_follows_checkpoints():
    torch.manual_seed(0)
    net = Net()
    model = AveragedModel(net)
    opt = fst.AdamW(net.parameters(), lr=0.01, ema_decay=0.9)
    opt.attach_ema(model)
    train(net, opt, 3)
    saved = copy.deepcopy([net.state_dict(), opt.state_dict(), model.state_dict()])
    train(net, opt, 2, first=3)
    want = [e.tolist() for e in model.module.parameters()]
    net.load_state_dict(saved[0])
    opt.load_state_dict(saved[1])
    assert int(model.n_averaged) == 3
    assert all(torch.equal(e, saved[2][f"module.{n}"]) for n, e in model.module.named_parameters())
    train(net, opt, 2, first=3)
    assert [e.tolist() for e in model.module.parameters()] == want
    assert int(model.n_averaged) == 5
    model.load_state_dict(saved[2])  # of the averaged model alone: its count is believed
    train(net, opt, 1)
    assert int(model.n_averaged) == opt.param_groups[0]["ema_step"] == 4
    other = copy.deepcopy(opt)
    train_params = params_of(other)
    set_grads(train_params, 0)
    step_as_specified(other)
    assert int(model.n_averaged) == 4  # a copy has averages of its own


def test_which_parameters_are_attached():
    torch.manual_seed(0)
    net = Net()
    model = AveragedModel(net)
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": weights}]
    opt = fst.AdamW(groups, ema_decay=0.9)
    with pytest.raises(ValueError, match=r"attach_ema cannot tell which of 6 parameters.*the 6 of 2 groups: pass"):
        opt.attach_ema(model)
    opt.attach_ema(model, net)
    train(net, opt, 2)
    for (name, p), e in zip(net.named_parameters(), model.module.parameters(), strict=True):
        assert_same_bits(reals(opt.state[p]["ema"]), reals(e), name)
    for bad, error, text in [
        (net, TypeError, "attach_ema has a Net, expected an AveragedModel"),
        (AveragedModel(copy.deepcopy(net).double()), TypeError, "parameter 0 of the averaged model is torch.float64"),
        (AveragedModel(nn.Linear(5, 6)), ValueError, "attach_ema: the averaged model has no parameter for"),
    ]:
        with pytest.raises(error, match=text):
            opt.attach_ema(bad, net)
    single = fst.AdamW(net.parameters(), ema_decay=0.9)
    wrong = copy.deepcopy(net)
    wrong.one.weight = nn.Parameter(torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"parameter 0 of the averaged model has shape \(6, 4\), expected \(6, 5\)"):
        single.attach_ema(AveragedModel(wrong))
    short = fst.AdamW(net.bfloat16().parameters(), ema_decay=0.9)
    with pytest.raises(TypeError, match="parameter 0 of the averaged model is that of a torch"):
        short.attach_ema(AveragedModel(net))


def test_averages_start_anew_with_the_state():
    opt = make("AdamW", params := make_params(), ema_decay=0.9, ema_warmup="mean")
    train_params(opt, 3)
    opt.state.clear()
    opt.ema_parameters()
    train_params(opt, 1)
    assert opt.param_groups[0]["ema_step"] == 1
    for p, e in zip(params, opt.ema_parameters(), strict=True):
        assert torch.equal(e, p)
    train_params(opt, 1, first=7)
    assert opt.param_groups[0]["ema_step"] == 2


def train_params(opt, steps, first=0):
    for seed in range(first, first + steps):
        set_grads(params_of(opt), seed)
        opt.step()


def test_an_attached_model_stays_when_state_is_cleared():
    torch.manual_seed(0)
    net = Net()
    model = AveragedModel(net)
    opt = fst.AdamW(net.parameters(), lr=0.01, ema_decay=0.9)
    opt.attach_ema(model)
    train(net, opt, 2)
    opt.state.clear()
    assert opt.ema_parameters()[0].data_ptr() == next(model.module.parameters()).data_ptr()
    opt.state.clear()
    train(net, opt, 2)
    for e, q in zip(opt.ema_parameters(), model.module.parameters(), strict=True):
        assert e.data_ptr() == q.data_ptr()
    assert int(model.n_averaged) == opt.param_groups[0]["ema_step"] == 4


def test_a_group_that_is_added_later_averages_from_its_own_first_step():
    torch.manual_seed(0)
    net = Net()
    opt = fst.AdamW(net.parameters(), lr=0.01, ema_decay=0.9)
    opt.attach_ema(AveragedModel(net))
    train(net, opt, 3)
    opt.add_param_group({"params": [late := nn.Parameter(torch.ones(4))], "ema_decay": 0.9})
    late.grad = torch.ones(4)
    opt.step()
    assert torch.equal(opt.state[late]["ema"], late.detach())
    assert [group["ema_step"] for group in opt.param_groups] == [4, 1]


def test_a_swap_that_fails_leaves_everything():
    params = [*make_params(), nn.Parameter(torch.zeros(1).expand(3))]  # nothing can be copied into the last
    opt = make("AdamW", params, ema_decay=0.5)
    set_grads(params[:4], 0)
    opt.ema_parameters()
    opt.state[params[0]]["ema"].fill_(7.0)
    before = [p.tolist() for p in params]
    with pytest.raises(RuntimeError, match="single memory location"), opt.swap_ema():
        pass
    assert [p.tolist() for p in params] == before
    del opt.param_groups[0]["params"][-1]
    with opt.swap_ema():
        assert (params[0] == 7).all()
    opt.step()


@pytest.mark.parametrize("groups", [1, 2])
@given(
    decay=st.floats(0.0, 1.0, allow_subnormal=False),
    masked=st.booleans(),
    grads=st.lists(st.sampled_from(["all", "some", "none", "skipped"]), min_size=1, max_size=6),
)
@examples(40)
def test_averages_are_those_of_an_averaged_model(groups, decay, masked, grads):
    """Whichever gradients there are: beside a loop that knows nothing of the optimizer's options."""
    params = make_params()
    names = [params] if groups == 1 else [params[:1], params[1:]]
    opt = make("AdamW", [{"params": some} for some in names], ema_decay=decay, max_norm=1.0, nonfinite="skip")
    opt.set_mask(given_masks := masks_of(params) if masked else {})
    expected, n = [p.detach().clone() for p in params], 0
    for seed, which in enumerate(grads):
        set_grads(params, seed)
        if which == "skipped":
            params[0].grad[0, 0] = math.nan
            for mask in given_masks.values():
                mask.reshape(-1)[0] = True
            opt.set_mask(given_masks)
        for p in params if which == "none" else params[1:3] if which == "some" else ():
            p.grad = None
        opt.step()
        if which == "skipped":
            continue
        for e, p in zip(expected, params, strict=True):
            w = torch.tensor(1.0 if n == 0 else 1.0 - decay, dtype=torch.float64).float()
            e.copy_(p.detach() if w == 1 else e + w * (p.detach() - e))
        n += 1
    assert [e.tolist() for e in opt.ema_parameters()] == [e.tolist() for e in expected]
    assert [group["ema_step"] for group in opt.param_groups] == [n] * groups


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**20), steps=st.integers(1, 4))
@examples(10)
def test_masks_are_multiplications(name, seed, steps):
    """Of gradients before the step and of parameters after it, where nothing but the mask tells elements apart. A
    weight that is masked in again is a new one."""
    params, others = make_params(seed=seed), make_params(seed=seed)
    opt, plain = make(name, params, max_norm=1.0), make(name, others, max_norm=1.0)
    opt.set_mask(given_masks := masks_of(params, seed))
    masks = [given_masks.get(p, torch.ones_like(p, dtype=torch.bool)) for p in params]
    for step in range(steps):
        set_grads(params, seed + step)
        set_grads(others, seed + step)
        for q, m in zip(others, masks, strict=True):
            q.grad.mul_(m)
        opt.step()
        plain.step()
        for q, m in zip(others, masks, strict=True):
            q.data.mul_(m)
    assert [(p * 1).tolist() for p in params] == [q.tolist() for q in others]
    assert opt.total_norm == plain.total_norm


# ---------------------------------------------------------------------------------------------------------- statistics


def test_statistics_have_names():
    net = Net()
    opt = fst.AdamW([{"params": net.parameters(), "stats": True}], clip_value=0.01)
    assert opt.stats() == {}
    train(net, opt, 1)
    stats = opt.stats()
    assert list(stats) == ["0", "1", "2", "3", "4", "5"]
    assert all(v.keys() == set(reference.STATISTICS) for v in stats.values())
    assert 0 < stats["0"]["clipped"] <= 1
    with pytest.raises(ValueError, match=r"AdamW: stats\(\) without stats=True, expected it in a group"):
        fst.AdamW(net.parameters()).stats()


@pytest.mark.skipif("param_names" not in inspect.getsource(torch.optim.Optimizer), reason="from torch 2.6 on")
def test_names_of_named_parameters():
    net = Net()
    opt = fst.AdamW(net.named_parameters(), stats=True, ema_decay=0.9)
    opt.attach_ema(AveragedModel(net))
    train(net, opt, 1)
    assert list(opt.stats()) == [name for name, _ in net.named_parameters()]


def test_statistics_of_groups_with_the_same_names():
    nets = [nn.Linear(2, 2), nn.Linear(2, 2)]
    opt = fst.AdamW([{"params": net.named_parameters()} for net in nets], stats=True)
    set_grads(params := params_of(opt), 0)
    opt.step()
    if "param_names" not in opt.param_groups[0]:
        pytest.skip("from torch 2.6 on")
    assert list(opt.stats()) == ["weight#0", "bias#1", "weight#2", "bias#3"]
    assert [row["param_norm"] for row in opt.stats().values()] != [0.0] * len(params)
    opt.param_groups[0]["stats"] = False
    assert list(opt.stats()) == ["weight#2", "bias#3"]


def test_statistics_of_some_groups_and_of_what_was_updated():
    params = make_params()
    opt = make("AdamW", [{"params": params[:2], "stats": True}, {"params": params[2:]}])
    set_grads(params, 0)
    params[1].grad = None
    opt.step()
    first = opt.stats()
    assert list(first) == ["0"]
    set_grads(params, 1)
    params[0].grad = None
    opt.step()
    assert list(opt.stats()) == ["0", "1"]
    assert opt.stats()["0"] == first["0"]  # of the last step that it took part in
    opt.add_param_group({"params": (more := make_params(seed=1)), "stats": True})
    set_grads([*params, *more], 2)
    opt.step()
    assert list(opt.stats()) == ["0", "1", "4", "5", "6", "7"]


# --------------------------------------------------------------------------------------------------------- checkpoints


def trained(params, steps=3, **options):
    opt = make("AdamW", params, ema_decay=0.9, ema_warmup="mean", decay_mode="relative", **options)
    opt.set_mask(masks_of(params))
    for seed in range(steps):
        set_grads(params, seed)
        opt.step()
    return opt


@DTYPES
@pytest.mark.parametrize("how", ["dict", "file"])
def test_checkpoints(how, dtype):
    opt = trained(params := make_params(dtype))
    saved = opt.state_dict()
    assert saved["param_groups"][0]["ema_step"] == 3
    if how == "file":
        torch.save(saved, file := io.BytesIO())
        file.seek(0)
        saved = torch.load(file, weights_only=True)
    else:
        saved = copy.deepcopy(saved)
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    other = make("AdamW", copies, ema_decay=0.9, ema_warmup="mean", decay_mode="relative")
    other.load_state_dict(saved)
    for p, q in zip(params, copies, strict=True):
        assert other.state[q].keys() == opt.state[p].keys()
        for key, value in opt.state[p].items():
            assert other.state[q][key].dtype == value.dtype, key
    for each, own in ((opt, params), (other, copies)):
        set_grads(own, 7)
        step_as_specified(each)
    assert [p.tolist() for p in copies] == [p.tolist() for p in params]
    plain = make("AdamW", [nn.Parameter(p.detach().clone()) for p in params])
    plain.load_state_dict(saved)
    assert not {"ema_step", "decay_lr"} & plain.param_groups[0].keys()
    set_grads(params_of(plain), 8)
    step_as_specified(plain)  # its masks count, its averages rest
    assert (params_of(plain)[0] == 0).any()


def test_checkpoints_of_torch():
    opt = trained(params := make_params(), steps=2)
    theirs = torch.optim.AdamW([nn.Parameter(p.detach().clone()) for p in params], lr=0.05)
    theirs.load_state_dict(opt.state_dict())
    set_grads(params_of(theirs), 5)
    theirs.step()
    opt.load_state_dict(theirs.state_dict())  # what torch does not know it has kept
    assert opt.state[params[0]]["mask"].dtype == torch.bool
    fresh = torch.optim.AdamW(params_of(theirs), lr=0.05)
    fresh.step()
    opt.load_state_dict(fresh.state_dict())
    assert opt.param_groups[0]["ema_step"] == 0
    assert opt.param_groups[0]["decay_lr"] == 0.05
    set_grads(params, 6)
    step_as_specified(opt)
    assert (params[0] != 0).all()


def test_a_checkpoint_from_before_the_first_step_has_masks():
    opt = make("SGD", params := make_params(), momentum=0.9)
    opt.set_mask(masks_of(params))
    other = make("SGD", copies := make_params(), momentum=0.9)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for each, own in ((opt, params), (other, copies)):
        set_grads(own, 0)
        step_as_specified(each)
    assert [p.tolist() for p in copies] == [p.tolist() for p in params]


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_checkpoints_of_parameters_without_a_step(name):
    """One with an average alone, as it is frozen, and one with a mask alone."""
    _, trained, late = params = make_params()[:3]
    opt = make(name, params, ema_decay=0.5)
    opt.set_mask({late: torch.ones_like(late, dtype=torch.bool)})
    for each in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert "mask" in each.state[params_of(each)[2]]
    trained.grad = torch.ones_like(trained)
    opt.step()
    keys = [opt.state[p].keys() for p in params]
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    assert [opt.state[p].keys() for p in params] == keys
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    other = make(name, copies, ema_decay=0.5)
    other.load_state_dict(saved)
    plain = fst.get(name.lower()) if name not in IN_TORCH else getattr(torch.optim, name)
    theirs = plain([nn.Parameter(p.detach().clone()) for p in params], lr=0.05)
    theirs.load_state_dict(copy.deepcopy(saved))
    several = [opt, other, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    for each in several:
        set_grads(params_of(each), 0)
        step_as_specified(each)
        assert [p.tolist() for p in params_of(each)] == [p.tolist() for p in params]
    set_grads(params_of(theirs), 0)
    theirs.step()
    for p, q in zip(params_of(theirs), params, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_average_that_is_no_longer_asked_for_is_no_state_of_the_rule(name):
    opt = make(name, params := make_params(), ema_decay=0.5)
    opt.ema_parameters()
    opt.param_groups[0]["ema_decay"] = None
    set_grads(params, 0)
    step_as_specified(opt)
    assert "ema" in opt.state[params[0]]


def test_checkpoints_that_are_refused():
    opt = trained(params := make_params())

    def changed(change):
        saved = copy.deepcopy(opt.state_dict())
        change(saved["state"][0], saved["param_groups"][0])
        return saved

    for change, text in [
        (lambda s, g: s.update(mask=s["mask"] * 0.5), r"state\[0\].mask of the state_dict is torch.float32, exp"),
        (lambda s, g: s.update(mask=True), r"state\[0\].mask of the state_dict is a bool, expected a tensor"),
        (lambda s, g: s.update(ema=s["ema"].long()), r"state\[0\].ema of the state_dict has dtype int64"),
        (lambda s, g: g.update(ema_step=-1), r"ema_step of group 0 of the state_dict is -1, expected an integer"),
        (lambda s, g: g.update(decay_lr=0.0), r"decay_lr of group 0 of the state_dict is 0\.0, expected a finite"),
    ]:
        before = snapshot(opt, params)
        with pytest.raises(ValueError, match=text):
            opt.load_state_dict(changed(change))
        assert snapshot(opt, params) == before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_copies(copied):
    opt = trained(params := make_params(), stats=True)
    other = copied(opt)
    for each in (opt, other):
        set_grads(params_of(each), 5)
        want = expect(each)
        each.step()
        assert_is(want, each)
    assert [p.tolist() for p in params_of(other)] == [p.tolist() for p in params]
    assert other.stats() == opt.stats()


def test_a_pickle_of_an_older_version():
    opt = make("AdamW", make_params())
    state = opt.__getstate__()
    del state["_decay_lr"]
    older = fst.AdamW.__new__(fst.AdamW)
    older.__setstate__(copy.deepcopy(state))
    older.add_param_group({"params": make_params(seed=1), "decay_mode": "relative"})
    assert older.param_groups[1]["decay_lr"] == 0.05
    set_grads(params_of(older), 0)
    step_as_specified(older)


def test_a_plain_step_knows_of_nothing():
    """A group without ride-alongs is what it was: its keys, its state, and what the core is told."""
    opt = make("AdamW", params := make_params())
    set_grads(params, 0)
    opt.step()
    assert opt.param_groups[0].run_time["_rides"] == ()
    assert opt.state[params[0]].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert not {"ema_step", "decay_lr", "_rides"} & {*opt.param_groups[0]}


def test_an_average_is_laid_out_like_its_parameter():
    p = nn.Parameter(torch.randn(4, 3).t())
    opt = make("AdamW", [p], ema_decay=0.5)
    opt.set_mask({p: torch.rand(3, 4) < 0.5})
    for seed in range(2):
        set_grads([p], seed)
        step_as_specified(opt)
    assert opt.state[p]["ema"].stride() == opt.state[p]["mask"].stride() == p.stride()


def test_statistics_are_tables():
    opt = make("AdamW", params := make_params(), stats=True)
    set_grads(params, 0)
    opt.step()
    rows = np.array([list(row.values()) for row in opt.stats().values()])
    assert rows.shape == (4, 7)
    assert rows.dtype == np.float64


@pytest.mark.parametrize("key", ["mask", "ema"])
def test_a_checkpoint_of_another_shape_changes_nothing(key: str) -> None:
    """A mask would be found out by the next step alone, an average be broadcast by ``swap_ema``."""
    p = torch.ones(2, 3, requires_grad=True)
    opt = fst.AdamW([p], ema_decay=0.9)
    opt.set_mask({p: torch.ones(2, 3, dtype=torch.bool)})
    p.grad = torch.ones(2, 3)
    opt.step()
    saved = copy.deepcopy(opt.state_dict())
    saved["state"][0][key] = saved["state"][0][key][:1]
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(ValueError, match=rf"AdamW: state\[0\]\.{key} of the state_dict has shape \(1, 3\), expected"):
        opt.load_state_dict(saved)
    for name, value in before["state"][0].items():
        assert torch.equal(opt.state[p][name], value)
