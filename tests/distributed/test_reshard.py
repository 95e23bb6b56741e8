"""Checkpoints of divided models, loaded by other numbers of processes, on other meshes and by torch.optim.

A training that moves from one to the next ends with the bits of one that one process has gone through.
"""

import pytest
import torch

import fusedstep.torch as fst
from tests.helpers.bits import assert_same_bits
from tests.helpers.torch_spec import SHORT, case

if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
    pytest.skip("this torch has FSDP2 under another name", allow_module_level=True)

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, Replicate

from tests.helpers import models
from tests.helpers import ranks as at
from tests.helpers.models import Net, assert_same, everything, whole
from tests.helpers.sharded import like, local

pytestmark = [
    pytest.mark.xdist_group("distributed"),
    pytest.mark.filterwarnings("ignore:torch.distributed is"),  # not initialized, in the process of the tests
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]
FSDP, TP, BOTH, HYBRID = models.fsdp, models.tp, models.fsdp_and_tp, models.hybrid
LIBRARIES = {"ours": fst, "torch": torch.optim}
FLAT = pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
CASES = [
    case("AdamW", lr=0.05, amsgrad=True, weight_decay=0.1),
    case("SGD", lr=0.1, momentum=0.9),
    case("AdamW", lr=0.05, state_dtype="bfloat16", seed=5),
    case("AdamW", lr=0.05, ema_decay=0.9, ema_warmup="linear", decay_mode="relative"),
    case("NAdam", lr=0.05),  # has a state of one number
    case("Lion", lr=0.01),  # torch has none
]


def one(model, size):
    return model, None


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = like(torch.randn(p.shape, generator=generator), p)


def make(divide, size, name, options, library="ours", seed=0, masked=False):
    model, _ = divide(Net() if divide is one else Net().to(at.device()), size)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.0 + seed)
    opt = getattr(LIBRARIES[library], name)(model.parameters(), **options)
    if masked:
        get_optimizer_state_dict(model, opt)  # makes the state, where there is none
        generator = torch.Generator().manual_seed(seed)
        opt.set_mask({p: torch.rand(p.shape, generator=generator) < 0.5 for p in model.parameters() if p.ndim == 2})
    return model, opt


def steps(model, opt, numbers):
    for number in numbers:
        gradients(model, number)
        opt.step()
        opt.zero_grad()


def kept(model, opt, options):
    return {"model": get_model_state_dict(model), "opt": get_optimizer_state_dict(model, opt, options=options)}


def stage(rank, size, divide, name, options, folder, number, flat, library="ours", masked=False, count=2):
    """Load what the stage before has left, if there was one, go on for some steps, and save."""
    layout = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, opt = make(divide, size, name, options, library, seed=number, masked=masked)
    if number:
        state = kept(model, opt, layout)
        dcp.load(state, checkpoint_id=folder / str(number - 1))
        set_model_state_dict(model, state["model"])
        set_optimizer_state_dict(model, opt, state["opt"], options=layout)
    steps(model, opt, range(count * number, count * (number + 1)))
    dcp.save(kept(model, opt, layout), checkpoint_id=folder / str(number))
    for p in model.parameters():
        for key, x in opt.state[p].items():
            if isinstance(x, torch.Tensor) and x.shape == p.shape and key != "step":
                assert isinstance(x, DTensor) == isinstance(p, DTensor), key
                assert getattr(x, "placements", None) == getattr(p, "placements", None), key
    groups = [{k: v for k, v in g.items() if k != "params"} for g in opt.state_dict()["param_groups"]]
    return everything(model, opt), groups


def uninterrupted(name, options, count, masked=False):
    model, opt = make(one, 1, name, options, masked=masked)
    steps(model, opt, range(count))
    return everything(model, opt)


def of_masks(state):
    return {n: {k: v for k, v in arrays.items() if k == "mask"} for n, arrays in state.items()}


@FLAT
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_training_moves_between_meshes(ranks, tmp_path, name, options, flat):
    """2 processes, 3, FSDP2 x TP on 4, one process without a group, HSDP on 4, tensor parallel on 2."""
    places = [(2, FSDP), (3, FSDP), (4, BOTH), (1, one), (4, HYBRID), (2, TP)]
    if ranks.device == "cuda":
        places = [(1, FSDP), (1, one), (1, TP)]
    for number, (size, divide) in enumerate(places):
        arguments = (divide, name, options, tmp_path, number, flat)
        results = [stage(0, 1, *arguments)] if divide is one else ranks(stage, size, *arguments)
        expected = uninterrupted(name, options, 2 * number + 2)
        for got, groups in results:
            assert_same(got, expected)
            assert [g["lr"] for g in groups] == [options["lr"]]


@FLAT
def test_masks_and_tensor_ids_move(ranks, tmp_path, flat):
    """Masks of any kind are there before; those of the checkpoint count."""
    options = {"lr": 0.05, "ema_decay": 0.9, "state_dtype": "bfloat16", "seed": 7}
    expected = uninterrupted("AdamW", options, 6, masked=True)
    places = [(2, FSDP), (4, BOTH), (1, one)] if ranks.device == "cpu" else [(1, FSDP), (1, TP), (1, one)]
    for number, (size, divide) in enumerate(places):
        arguments = (divide, "AdamW", {**options, "seed": 7 + number}, tmp_path, number, flat)
        keywords = {"masked": True}
        results = [stage(0, 1, *arguments, **keywords)] if divide is one else ranks(stage, size, *arguments, **keywords)
        for got, groups in results:
            assert groups[0]["seed"] == 7
            for n, arrays in of_masks(expected).items():
                for key, value in arrays.items():
                    assert_same_bits(got[n][key], value, f"{key} of {n}")
    assert_same(results[0][0], expected)


@FLAT
@pytest.mark.parametrize(("name", "options"), [case("AdamW", lr=0.05, amsgrad=True), case("SGD", lr=0.1, momentum=0.9)])
def test_both_ways_with_torch(ranks, tmp_path, name, options, flat):
    """Ours, torch's (which changes nothing in between), ours again; then the same that starts with torch's."""
    first = ranks(stage, 2, FSDP, name, options, tmp_path, 0, flat)
    between = ranks(stage, 3, FSDP, name, options, tmp_path, 1, flat, library="torch", count=0)
    for got, groups in between:
        assert_same(got, first[0][0])
        assert groups[0]["lr"] == options["lr"]
    size, divide = (4, BOTH) if ranks.device == "cpu" else (1, TP)
    last = ranks(stage, size, divide, name, options, tmp_path, 2, flat, count=0)
    for got, _ in last:
        assert_same(got, first[0][0])
    theirs = ranks(stage, 3, FSDP, name, options, tmp_path / "theirs", 0, flat, library="torch")
    ours = ranks(stage, 2, FSDP, name, options, tmp_path / "theirs", 1, flat, count=0)
    for got, _ in ours:
        assert_same(got, theirs[0][0])


def save_full(rank, size, divide, name, options, folder, flat):
    model, opt = make(divide, size, name, options)
    steps(model, opt, range(2))
    layout = StateDictOptions(full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=flat)
    whole = {"model": get_model_state_dict(model, options=layout)}
    whole["opt"] = get_optimizer_state_dict(model, opt, options=layout)
    if rank == 0:
        torch.save(whole, folder / "whole.pt")
        states = whole["opt"] if flat else whole["opt"]["state"]["head.weight"]
        tensors = [x for x in states.values() if isinstance(x, torch.Tensor)]
        assert tensors
        assert all(type(x) is torch.Tensor and x.device.type == "cpu" for x in tensors)
    return everything(model, opt)


def load_full(rank, size, divide, name, options, folder, flat, broadcast, library="ours"):
    model, opt = make(divide, size, name, options, library, seed=1)
    whole = torch.load(folder / "whole.pt") if rank == 0 or not broadcast else {"model": {}, "opt": {}}
    # torch 2.13 does not flatten again what it is to load as a whole.
    full = StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcast)
    layout = StateDictOptions(flatten_optimizer_state_dict=True) if flat else full
    set_model_state_dict(model, whole["model"], options=layout)
    set_optimizer_state_dict(model, opt, whole["opt"], options=layout)
    loaded = everything(model, opt)
    if library == "ours":
        steps(model, opt, range(2, 4))
    return loaded, everything(model, opt)


@pytest.mark.parametrize("broadcast", [False, True], ids=["all read", "one reads"])
@pytest.mark.parametrize(("name", "options"), CASES[:4])
def test_full_state_dicts(ranks, tmp_path, name, options, broadcast):
    saved = ranks(save_full, 2, FSDP, name, options, tmp_path, False)
    places = [(3, FSDP), (4, HYBRID)]
    if broadcast:
        places.append((4, BOTH))  # torch 2.13 does not divide a whole tensor itself where its placement is strided
    for size, divide in places if ranks.device == "cpu" else places[:1]:
        for loaded, after in ranks(load_full, size, divide, name, options, tmp_path, False, broadcast):
            assert_same(loaded, saved[0])
            assert_same(after, uninterrupted(name, options, 4))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_flattened_full_state_dict(ranks, tmp_path, library):
    options = {"lr": 0.05}
    saved = ranks(save_full, 2, FSDP, "AdamW", options, tmp_path, True)
    loaded, after = load_full(0, 1, one, "AdamW", options, tmp_path, True, False, library)
    assert_same(loaded, saved[0])
    if library == "ours":
        assert_same(after, uninterrupted("AdamW", options, 4))


def initialised(rank, size, cases):
    """What a step of torch.distributed.checkpoint, with zeros and a learning rate of 0, leaves."""
    from torch.distributed.checkpoint.state_dict import _init_optim_state

    changed = []
    for name, options in cases:
        model, _ = FSDP(Net().to(at.device()), size)
        with torch.no_grad():
            model.head.bias.fill_(-0.0)
        before = [local(p).clone().view(torch.int32) for p in model.parameters()]
        opt = getattr(fst, name)(model.parameters(), **{"weight_decay": 0.1, **options} if name != "Rprop" else options)
        _init_optim_state(opt)
        same = all(torch.equal(local(p).view(torch.int32), b) for p, b in zip(model.parameters(), before, strict=True))
        if not same or any(p.grad is not None for p in model.parameters()):
            changed.append((name, options))
    return changed


def test_to_make_the_state_changes_nothing(ranks):
    cases = [c.values for c in SHORT]
    for more in ({"max_norm": 1.0}, {"l1": 0.1}, {"ema_decay": 0.9}, {"stats": True, "cautious": "unscaled"}):
        cases.append(("AdamW", more))
    for changed in ranks(initialised, 3, cases):
        assert changed == []


def state_that_a_checkpoint_lacks(rank, size):
    """A flattened one of a run without momentum: DCP hands over an empty dict in place of what is not there."""
    layout = StateDictOptions(flatten_optimizer_state_dict=True)
    model, opt = make(FSDP, size, "SGD", {"lr": 0.1})
    steps(model, opt, range(2))
    saved = get_optimizer_state_dict(model, opt, options=layout)
    weights = {k: v.clone() for k, v in get_model_state_dict(model).items()}
    other, loaded = make(FSDP, size, "SGD", {"lr": 0.1, "momentum": 0.9, "ema_decay": None}, seed=1)
    set_model_state_dict(other, weights)
    loaded.param_groups[0]["momentum"] = 0.9
    set_optimizer_state_dict(other, loaded, saved, options=layout)
    assert loaded.param_groups[0]["momentum"] == 0
    loaded.param_groups[0]["momentum"] = 0.9
    steps(other, loaded, range(2, 4))
    return everything(other, loaded)


def test_state_that_a_checkpoint_lacks_is_made_fresh(ranks):
    model, opt = make(one, 1, "SGD", {"lr": 0.1})
    steps(model, opt, range(2))
    opt.param_groups[0]["momentum"] = 0.9
    steps(model, opt, range(2, 4))
    expected = everything(model, opt)
    for got in ranks(state_that_a_checkpoint_lacks, 2):
        assert_same(got, expected)


def empty_entries(rank, size, divide):
    """A state_dict with ``{}`` in place of arrays."""
    model, opt = make(divide, size, "AdamW", {"lr": 0.05, "ema_decay": 0.9})
    steps(model, opt, range(2))
    state = opt.state_dict()
    for entry in state["state"].values():
        entry["exp_avg_sq"] = {}
        entry["ema"] = {}
    opt.load_state_dict(state)
    steps(model, opt, range(2, 3))
    return everything(model, opt)


def test_empty_dicts_in_place_of_state(ranks):
    results = ranks(empty_entries, 2, FSDP)
    model, opt = make(one, 1, "AdamW", {"lr": 0.05, "ema_decay": 0.9})
    steps(model, opt, range(2))
    with torch.no_grad():
        for p in model.parameters():
            opt.state[p]["exp_avg_sq"].zero_()
            opt.state[p]["ema"].copy_(p)
    steps(model, opt, range(2, 3))
    expected = everything(model, opt)
    for got in results:
        assert_same(got, expected)
    assert_same(empty_entries(0, 1, one), expected)


def loaded_by_hand(rank, size):
    """opt.load_state_dict(opt.state_dict()) on DTensors, then state that is laid out otherwise."""
    model, opt = make(FSDP, size, "AdamW", {"lr": 0.05})
    steps(model, opt, range(2))
    other, loaded = make(FSDP, size, "AdamW", {"lr": 0.05}, seed=1)
    loaded.load_state_dict(opt.state_dict())
    with torch.no_grad():
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.copy_(p)
    steps(other, loaded, range(2, 4))
    found = everything(other, loaded)
    said = []
    for bad in (
        lambda x: x.to_local(),
        lambda x: x.full_tensor(),
        lambda x: x.redistribute(placements=[Replicate()]),
    ):
        state = opt.state_dict()
        state["state"][1] = {**state["state"][1], "exp_avg": bad(state["state"][1]["exp_avg"])}
        with pytest.raises((TypeError, ValueError)) as error:  # noqa: PT012, either may refuse it
            loaded.load_state_dict(state)
            gradients(other, 4)
            loaded.step()
        for n, p in other.named_parameters():
            assert_same_bits(whole(p), found[n]["param"], n)
        said.append(str(error.value))
    return found, said


def test_state_dicts_loaded_by_hand(ranks):
    expected = uninterrupted("AdamW", {"lr": 0.05}, 4)
    for got, said in ranks(loaded_by_hand, 2):
        assert_same(got, expected)
        assert all(text.startswith("AdamW: ") and "exp_avg" in text for text in said)
