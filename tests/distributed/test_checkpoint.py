"""Checkpoints through torch.distributed.checkpoint, both ways with torch.optim."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import fusedstep.torch as fst
from tests.helpers.torch_spec import IN_TORCH

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")


def trained(module, name, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    opt = getattr(module, name)(model.parameters(), lr=0.1, **options)
    for _ in range(2):
        opt.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        opt.step()
    return model, opt


def values_of(model, opt):
    return [
        {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in opt.state[p].items()}
        for p in model.parameters()
    ]


@pytest.mark.parametrize("name", IN_TORCH)
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("max_norm", [None, 0.1])
@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # by torch 2.5's own dcp.save
def test_checkpoints_of_torch_load(tmp_path, name, direction, flat, max_norm):
    """With the default planner, which wants every key that the optimizer shows."""
    own = {"max_norm": max_norm, "clip_value": 9.0, "nonfinite": "skip" if max_norm else "propagate"}
    options = {"momentum": 0.9} if name == "SGD" else {}
    sides = [(torch.optim, options), (fst, {**options, **own})]
    (first, with_first), (then, with_then) = sides if direction == "from torch" else sides[::-1]
    layout = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, opt = trained(first, name, **with_first)
    saved = get_optimizer_state_dict(model, opt, options=layout)
    dcp.save({"opt": saved}, checkpoint_id=tmp_path)
    want = values_of(model, opt)
    model, opt = trained(then, name, **with_then)
    opt.param_groups[0]["lr"] = 0.5
    for p in model.parameters():
        opt.state[p] = {k: torch.zeros_like(v) for k, v in opt.state[p].items()}
    loaded = {"opt": get_optimizer_state_dict(model, opt, options=layout)}
    dcp.load(loaded, checkpoint_id=tmp_path)
    set_optimizer_state_dict(model, opt, loaded["opt"], options=layout)
    assert values_of(model, opt) == want
    group = opt.param_groups[0]
    assert group["lr"] == 0.1
    if then is fst:
        assert (group["max_norm"], group["clip_value"]) == (max_norm, 9.0)
    opt.step()


@pytest.mark.parametrize("state_dtype", [None, "bfloat16", {"exp_avg": "bfloat16"}], ids=str)
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("fresh", [False, True], ids=["stepped", "fresh"])
@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_16_bit_state_is_saved_and_loaded_bit_for_bit(tmp_path, state_dtype, flat, fresh):
    """With seeds, numbers of tensors and counts that float32 cannot hold."""
    layout = StateDictOptions(flatten_optimizer_state_dict=flat)

    def make(ids, seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).bfloat16()
        groups = [{"params": list(model.parameters()), "tensor_ids": ids}]
        return model, fst.AdamW(groups, lr=0.1, state_dtype=state_dtype, seed=seed)

    def step(model, opt):
        opt.zero_grad()
        model(torch.ones(1, 3, dtype=torch.bfloat16)).square().sum().backward()
        opt.step()

    model, opt = make([7, 3, 2**40, 0], 5)
    step(model, opt)
    if state_dtype == "bfloat16":
        for p in model.parameters():
            opt.state[p]["step"].fill_(2**24 + 1)
    dcp.save({"opt": get_optimizer_state_dict(model, opt, options=layout)}, checkpoint_id=tmp_path)
    other, loaded = make(None, 9)
    other.load_state_dict(model.state_dict())
    if not fresh:
        step(other, loaded)
        other.load_state_dict(model.state_dict())
    state = {"opt": get_optimizer_state_dict(other, loaded, options=layout)}
    dcp.load(state, checkpoint_id=tmp_path)
    set_optimizer_state_dict(other, loaded, state["opt"], options=layout)
    for each in ((model, opt), (other, loaded)):
        step(*each)
    assert values_of(other, loaded) == values_of(model, opt)
    assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in model.parameters()]
    if state_dtype == "bfloat16":
        assert [loaded.state[p]["tensor_id"] for p in other.parameters()] == [7, 3, 2**40, 0]
        assert loaded.param_groups[0]["seed"] == 5
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert {k: v.dtype for k, v in opt.state[p].items() if k != "tensor_id"} == {
            k: v.dtype for k, v in loaded.state[q].items() if k != "tensor_id"
        }


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("fresh", [False, True], ids=["stepped", "fresh"])
@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_what_rides_along_is_saved_and_loaded(tmp_path, flat, fresh):
    """Masks, averages and their count, and the rate that decay is relative to; masks of any kind are there before."""
    layout = StateDictOptions(flatten_optimizer_state_dict=flat)

    def make(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        opt = fst.AdamW(model.parameters(), lr=0.1 + seed, ema_decay=0.9, decay_mode="relative")
        get_optimizer_state_dict(model, opt)  # makes the state, where there is none
        opt.set_mask({layer.weight: torch.rand(layer.weight.shape) < 0.5 for layer in model})
        return model, opt

    def step(model, opt):
        opt.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        opt.step()

    model, opt = make(0)
    for _ in range(2):
        step(model, opt)
    dcp.save({"opt": get_optimizer_state_dict(model, opt, options=layout)}, checkpoint_id=tmp_path)
    other, loaded = make(1)
    if not fresh:
        step(other, loaded)
    state = {"opt": get_optimizer_state_dict(other, loaded, options=layout)}
    dcp.load(state, checkpoint_id=tmp_path)
    set_optimizer_state_dict(other, loaded, state["opt"], options=layout)
    other.load_state_dict(model.state_dict())
    group = loaded.param_groups[0]
    assert (group["ema_step"], group["decay_lr"], group["lr"]) == (3, 0.1, 0.1)
    for each in ((model, opt), (other, loaded)):
        step(*each)
    assert values_of(other, loaded) == values_of(model, opt)
    assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in model.parameters()]
    assert loaded.state[other[0].weight]["mask"].dtype == torch.bool
