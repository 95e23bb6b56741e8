"""Gradient release on several processes: FSDP2 calls the hooks of a shard when its gradient has been reduced."""

import contextlib
import functools

import pytest
import torch

import fusedstep.torch as fst

if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
    pytest.skip("this torch has FSDP2 under another name", allow_module_level=True)

from torch.distributed.fsdp import fully_shard

from tests.helpers import models
from tests.helpers import ranks as at
from tests.helpers.models import PLANS, Net, assert_same, batch, everything

pytestmark = pytest.mark.xdist_group("distributed")
BY_RANDOM_NUMBERS = {"state_dtype": "bfloat16", "seed": 5}
RIDES = {"ema_decay": 0.9, "stats": True, "l1": 0.01}


def part(step, rank, size, mesh):
    """Of the batch, what this rank trains with."""
    if isinstance(mesh, int):
        count, index = 1, mesh
    else:
        count, index = (size, rank) if mesh is None else (mesh.size(), mesh.get_local_rank())
    return batch(step)[index * 12 // count : (index + 1) * 12 // count].to(at.device())


def made(divide, size, options, released):
    model, mesh = divide(Net(), size)
    model.to(at.device())
    opt = fst.AdamW(model.parameters(), lr=0.05, **options)
    return model, mesh, opt, fst.release_gradients(model, opt) if released else None


def train(rank, size, divide, options, released):
    model, mesh, opt, _ = made(divide, size, options, released)
    for step in range(3):
        model(part(step, rank, size, mesh)).backward()
        if released:
            assert [n for n, p in model.named_parameters() if p.grad is not None] == []
        opt.step()
        opt.zero_grad()
    return everything(model, opt), opt.stats() if options.get("stats") else None


@pytest.mark.parametrize(("size", "divide"), PLANS)
@pytest.mark.parametrize("options", [BY_RANDOM_NUMBERS, RIDES], ids=["bfloat16", "rides"])
def test_equals_ordinary_steps(ranks, size, divide, options):
    ordinary, released = (ranks(train, size, divide, options, way, exact=True) for way in (False, True))
    for (expected, figures), (got, own) in zip(ordinary, released, strict=True):
        assert_same(got, expected)
        assert own == figures


def micro_batches(rank, size, divide, way):
    """``way``: None for ordinary steps, else what keeps gradients: our handle or FSDP2."""
    model, mesh, opt, release = made(divide, size, BY_RANDOM_NUMBERS, way is not None)
    for step in range(2):
        for k in range(3):
            with release.no_release() if way == "no_release" and k < 2 else contextlib.nullcontext():
                if way == "no_sync":
                    model.set_requires_gradient_sync(k == 2)
                model(part(3 * step + k, rank, size, mesh)).backward()
            sharded = [p.grad is not None for p in model.parameters()]
            assert way is None or all(sharded) == (way == "no_release" and k < 2)
        opt.step()
        opt.zero_grad()
    return everything(model, opt)


def ordinary_without_sync(rank, size, divide):
    model, mesh, opt, _ = made(divide, size, BY_RANDOM_NUMBERS, False)
    for step in range(2):
        for k in range(3):
            model.set_requires_gradient_sync(k == 2)
            model(part(3 * step + k, rank, size, mesh)).backward()
        opt.step()
        opt.zero_grad()
    return everything(model, opt)


FSDP = functools.partial(models.fsdp)


def test_micro_batches(ranks):
    for expected, got in zip(
        ranks(micro_batches, 2, FSDP, None), ranks(micro_batches, 2, FSDP, "no_release"), strict=True
    ):
        assert_same(got, expected)
    for expected, got in zip(
        ranks(ordinary_without_sync, 2, FSDP), ranks(micro_batches, 2, FSDP, "no_sync"), strict=True
    ):
        assert_same(got, expected)


def two_passes(rank, size):
    model, mesh, _, release = made(FSDP, size, {}, True)
    model(part(0, rank, size, mesh)).backward()
    with pytest.raises(RuntimeError, match=r"gets a gradient after it has been updated, and before step\(\)"):
        model(part(1, rank, size, mesh)).backward()
    release.remove()
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_second_backward_pass_is_an_error(ranks):
    ranks(two_passes, 2)


def before_it_is_sharded(rank, size):
    model = Net()
    opt = fst.AdamW(model.parameters())
    models.shard(model, at.mesh(size))
    with pytest.raises(ValueError, match=r"none of the model's 16 parameters is in a group of this AdamW"):
        fst.release_gradients(model, opt)


def test_an_optimizer_that_was_made_before(ranks):
    ranks(before_it_is_sharded, 2)


def clipped(rank, size):
    """Groups of a model that is not released clip together, and see an error on one rank."""
    model, other = (models.fsdp(Net(), size)[0] for _ in range(2))
    opt = fst.SGD([{"params": model.parameters()}, {"params": other.parameters(), "max_norm": 0.01}], lr=0.1)
    release = fst.release_gradients(model, opt)
    (model(batch(rank)) + other(batch(rank))).backward()
    if rank == 0:
        opt.param_groups[0]["nonfinite"] = "skip"
    why = "nonfinite of group 0 is 'skip', expected 'propagate'" if rank == 0 else "rank 0 raised an error"
    with pytest.raises((ValueError, RuntimeError), match=why):
        opt.step()
    opt.param_groups[0]["nonfinite"] = "propagate"
    opt.step()
    release.remove()
    return opt.total_norm.item()


def test_groups_of_other_models_clip(ranks):
    norms = ranks(clipped, 2)
    assert len(set(norms)) == 1
    assert norms[0] > 0.01


def tied(rank, size, released):
    """One parameter in two modules that are sharded apart is the root's."""
    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(13, 8), torch.nn.Linear(8, 13, bias=False)
    head.weight = embedding.weight
    model = torch.nn.Sequential(embedding, fully_shard(torch.nn.Linear(8, 8), mesh=at.mesh(size)), head)
    fully_shard(model, mesh=at.mesh(size))
    opt = fst.AdamW(model.parameters(), lr=0.1)
    if released:
        fst.release_gradients(model, opt)
    for step in range(2):
        model(batch(step)[rank::size]).square().mean().backward()
        assert all((p.grad is None) == released for p in model.parameters())
        opt.step()
        opt.zero_grad()
    return everything(model, opt)


def test_tied_parameters(ranks):
    for expected, got in zip(ranks(tied, 2, False), ranks(tied, 2, True), strict=True):
        assert_same(got, expected)
