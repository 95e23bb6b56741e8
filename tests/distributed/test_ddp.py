"""DistributedDataParallel: its gradients are the same on every rank, and so are norms and steps; its options."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fusedstep.torch as fst
from tests.helpers import ranks as at
from tests.helpers.bits import assert_same_bits
from tests.helpers.torch_spec import reals

pytestmark = pytest.mark.xdist_group("distributed")
OPTIONS = {"lr": 0.05, "max_norm": 0.05, "weight_decay": 0.1}


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(at.device())


def batch(step, rank, size):
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(step))
    return x[rank * 12 // size : (rank + 1) * 12 // size].to(at.device())


def hooks(wrapped, hook):
    if hook is None:
        return
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    if hook == "power":
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
        wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    else:
        wrapped.register_comm_hook(dist.group.WORLD, getattr(default_hooks, hook))


def train(rank, size, hook, options, steps=4):
    """Beside it one process steps with the gradients that DDP has left."""
    wrapped = DistributedDataParallel(model(), **options)
    hooks(wrapped, hook)
    opt = fst.AdamW(wrapped.parameters(), **OPTIONS)
    alone = model()
    other = fst.AdamW(alone.parameters(), **OPTIONS)
    losses = []
    for step in range(steps):
        loss = wrapped(batch(step, rank, size)).square().mean()
        loss.backward()
        kept = [p.grad.clone() for p in wrapped.parameters()]
        for q, g in zip(alone.parameters(), kept, strict=True):
            q.grad = g
        opt.step()
        other.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(wrapped.parameters(), kept, strict=True))
        assert torch.equal(opt.total_norm, other.total_norm)
        opt.zero_grad()
        dist.all_reduce(total := loss.detach().clone())
        losses.append(total.item() / size)
    for p, q in zip(wrapped.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p, q)
    return [reals(p.cpu()) for p in wrapped.parameters()], losses, opt.total_norm.item(), opt.clipped_steps.item()


def trained_whole(steps=4):
    alone = model()
    opt = fst.AdamW(alone.parameters(), **OPTIONS)
    losses = []
    for step in range(steps):
        loss = alone(batch(step, 0, 1)).square().mean()
        loss.backward()
        losses.append(loss.item())
        opt.step()
        opt.zero_grad()
    return losses


@pytest.mark.parametrize(
    ("hook", "options"),
    [
        (None, {}),
        (None, {"gradient_as_bucket_view": True}),
        (None, {"static_graph": True}),
        (None, {"gradient_as_bucket_view": True, "static_graph": True, "bucket_cap_mb": 1e-4}),
        ("allreduce_hook", {}),
        ("fp16_compress_hook", {"gradient_as_bucket_view": True}),
        ("power", {}),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else x,
)
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_stay_equal(ranks, hook, options, size):
    results = ranks(train, size, hook, options)
    for params, losses, norm, clipped in results:
        for p, first in zip(params, results[0][0], strict=True):
            assert_same_bits(p, first)
        assert (losses, norm, clipped) == results[0][1:]
        assert clipped > 0
        assert losses == pytest.approx(trained_whole(), rel={"fp16_compress_hook": 1e-3, "power": 0.1}.get(hook, 1e-5))


def uneven(rank, size):
    """Rank 1 has fewer batches and joins in with zeros, and its optimizer does not step then."""
    wrapped = DistributedDataParallel(model())
    opt = fst.AdamW(wrapped.parameters(), **OPTIONS)
    steps = 4 - rank
    with wrapped.join():
        for step in range(steps):
            wrapped(batch(step, rank, size)).square().mean().backward()
            opt.step()
            opt.zero_grad()
    return [reals(p.cpu()) for p in wrapped.parameters()], int(opt.state[next(iter(wrapped.parameters()))]["step"])


def test_join(ranks):
    """DDP gives the parameters of the last rank that worked to all at the end."""
    results = ranks(uneven, 2, exact=True)
    assert [steps for _, steps in results] == [4, 3]
    for p, q in zip(results[0][0], results[1][0], strict=True):
        assert_same_bits(p, q)


def unused(rank, size):
    wrapped = DistributedDataParallel(model(), find_unused_parameters=True)
    wrapped.module[2].requires_grad_(True)
    lone = nn.Linear(2, 2).to(at.device())
    opt = fst.AdamW([*wrapped.parameters(), *lone.parameters()], **OPTIONS)
    wrapped(batch(0, rank, size)).square().mean().backward()
    opt.step()
    return opt.total_norm.item(), [p not in opt.state for p in lone.parameters()]


def test_parameters_without_gradients(ranks):
    results = ranks(unused, 2)
    assert len({norm for norm, _ in results}) == 1
    assert all(fresh == [True, True] for _, fresh in results)


def fused_in_the_hook(rank, size):
    """torch steps each bucket in the communication hook with an optimizer of its own functional kind."""
    wrapped = DistributedDataParallel(model())
    with pytest.raises(ValueError) as error:
        wrapped._register_fused_optim(fst.AdamW, lr=0.1)
    return str(error.value)


def test_what_torch_says_of_an_optimizer_in_the_hook(ranks):
    for text in ranks(fused_in_the_hook, 2):
        assert "AdamW" in text


def skipped(rank, size):
    """A loss that is not finite on one rank is so in the gradients of all."""
    wrapped = DistributedDataParallel(model())
    opt = fst.AdamW(wrapped.parameters(), nonfinite="skip", **OPTIONS)
    before = [p.detach().clone() for p in wrapped.parameters()]
    x = batch(0, rank, size)
    wrapped(x * np.inf if rank == 1 else x).square().mean().backward()
    opt.step()
    same = all(torch.equal(p, b) for p, b in zip(wrapped.parameters(), before, strict=True))
    return opt.skipped_steps.item(), same


def test_a_gradient_that_is_not_finite_skips_on_all(ranks):
    assert ranks(skipped, 2, exact=True) == [(1, True), (1, True)]
