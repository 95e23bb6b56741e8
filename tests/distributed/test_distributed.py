"""Norms over the ranks of a process group that holds what is sharded by hand, by ZeRO or by FSDP1."""

import copy
import functools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers.torch_spec import make_params, reals, set_grads, snapshot

pytestmark = pytest.mark.xdist_group("distributed")
SHAPES = ((3, 5), (2100,), (7,), (4, 4), (9,))


def world():
    return dist.group.WORLD


def all_params(seed=0):
    params = make_params(shapes=SHAPES)
    set_grads(params, seed)
    return params


def share(params, rank, size):
    """By hand: every size-th parameter, so that ranks hold different numbers of them."""
    return params[rank::size]


def own_sums(params, norm_type=2.0):
    return [reference.tree(reference.block_sums(reals(p.grad), norm_type), norm_type) for p in params]


def specified(size, seed=0, norm_type=2.0):
    return reference.norm_over_ranks(
        [own_sums(share(all_params(seed), rank, size), norm_type) for rank in range(size)], norm_type
    )


# ---------------------------------------------------------------------------------------------------- the norm itself


def steps_of_a_sharded_model(rank, size):
    opt = fst.AdamW(share(all_params(), rank, size), lr=0.1, max_norm=0.5, norm_group=world())
    norms = []
    for seed in range(3):
        for p, grad in zip(opt.param_groups[0]["params"], share(all_params(seed), rank, size), strict=True):
            p.grad = grad.grad
        opt.step()
        norms.append((opt.total_norm.item(), opt.clip_coefficient.item()))
    return norms, [p.detach().numpy() for p in opt.param_groups[0]["params"]], opt.clipped_steps.item()


@pytest.mark.parametrize("size", [2, 3])
def test_a_sharded_model_steps_as_one(ranks, size):
    results = ranks(steps_of_a_sharded_model, size)
    norms = [specified(size, seed) for seed in range(3)]
    want = [(norm, reference.clip_coefficient(norm, 0.5)) for norm in norms]
    assert all(got == want for got, _, _ in results)
    assert {clipped for _, _, clipped in results} == {3}
    whole = fst.AdamW(all_params(), lr=0.1, max_norm=0.5)
    for seed in range(3):
        for p, other in zip(whole.param_groups[0]["params"], all_params(seed), strict=True):
            p.grad = other.grad
        whole.step()
        assert whole.total_norm.item() == pytest.approx(norms[seed], rel=1e-14)
    for rank, (_, arrays, _) in enumerate(results):
        for p, array in zip(share(whole.param_groups[0]["params"], rank, size), arrays, strict=True):
            np.testing.assert_allclose(array, p.detach().numpy(), rtol=1e-6, atol=1e-7)


def functions_over_ranks(rank, size):
    out = []
    for norm_type in (2.0, 1.0, math.inf, 3.0):
        params = share(all_params(), rank, size)
        total = fst.get_total_norm([p.grad for p in params], norm_type, norm_group=world())
        out.append((total.item(), fst.clip_grad_norm_(params, 0.5, norm_type, norm_group=world()).item()))
    return out, [p.grad.numpy() for p in params]


def test_clip_functions_over_ranks(ranks):
    results = ranks(functions_over_ranks, 3)
    assert results[0][0] == results[1][0] == results[2][0]
    params = all_params()
    for norm_type, (total, clipped) in zip((2.0, 1.0, math.inf, 3.0), results[0][0], strict=True):
        whole = fst.get_total_norm([p.grad for p in params], norm_type).item()
        assert total == clipped == pytest.approx(whole, rel=1e-6)
        if norm_type != 3.0:  # which needs pow
            assert total == np.float32(specified(3, 0, norm_type))
    fst.clip_grad_norm_(params, 0.5, 3.0)
    for rank, (_, grads) in enumerate(results):
        for p, grad in zip(share(params, rank, 3), grads, strict=True):
            np.testing.assert_allclose(grad, p.grad.numpy(), rtol=1e-6)


def some_ranks_have_nothing(rank, size):
    """Rank 0 has no gradients, rank 1 no parameters, and later more tensors than before on one of them."""
    params = all_params() if rank == 2 else make_params(shapes=[(3,)]) if rank == 0 else []
    opt = fst.SGD(params or [nn.Parameter(torch.zeros(0))], lr=0.1, max_norm=1e9, norm_group=world())
    norms = []
    for extra in range(3):
        opt.step()
        norms.append(opt.total_norm.item())
        if rank == 0:
            more = make_params(shapes=[(2,)] * (4 * extra + 4))
            for p in more:
                p.grad = torch.ones(2)
            opt.add_param_group({"params": more})
    return norms


def test_every_rank_takes_part(ranks):
    results = ranks(some_ranks_have_nothing, 3)
    own = sum(own_sums(all_params()))
    assert results[0] == results[1] == results[2]
    assert results[0] == pytest.approx([math.sqrt(own + 2 * count) for count in (0, 4, 12)], rel=1e-12)


# ------------------------------------------------------------------------------------------------------------- errors


def an_error_on_one_rank(rank, size):
    params = share(all_params(), rank, size)
    opt = fst.Adam(params, lr=0.1, max_norm=0.5, norm_group=world())
    opt.step()
    messages = []
    for bad in (
        lambda: setattr(params[0], "grad", params[0].grad.to_sparse()),
        lambda: opt.param_groups[0].update(lr=-1.0),
        lambda: opt.state[params[0]].update(exp_avg=torch.ones(1)),
    ):
        saved = (params[0].grad, opt.param_groups[0]["lr"], opt.state[params[0]]["exp_avg"])
        if rank == 1:
            bad()
        before = snapshot(opt, params[1:])
        with pytest.raises((RuntimeError, TypeError, ValueError)) as error:
            opt.step()
        assert snapshot(opt, params[1:]) == before
        messages.append(str(error.value))
        params[0].grad, opt.param_groups[0]["lr"], opt.state[params[0]]["exp_avg"] = saved
    opt.step()
    grads = [p.grad.clone() for p in params]
    with pytest.raises((RuntimeError, TypeError, ValueError)) as error:
        fst.clip_grad_norm_(params, -1.0 if rank == 1 else 1.0, norm_group=world())
    messages.append(str(error.value))
    with pytest.raises((RuntimeError, TypeError, ValueError)) as error:
        fst.get_total_norm([torch.ones(2).long()] if rank == 1 else grads, norm_group=world())
    messages.append(str(error.value))
    with pytest.raises((RuntimeError, AttributeError)) as error:  # before it is known what is to be measured
        fst.clip_grad_norm_([*params, None] if rank == 1 else params, 1.0, norm_group=world())
    messages.append(str(error.value))
    with pytest.raises((RuntimeError, TypeError)) as error:
        fst.get_total_norm(5 if rank == 1 else grads, norm_group=world())
    messages.append(str(error.value))
    assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))
    return messages, opt.total_norm.item()


def test_an_error_on_one_rank_raises_on_all(ranks):
    results = ranks(an_error_on_one_rank, 3)
    assert len({norm for _, norm in results}) == 1
    for rank in (0, 2):
        assert len(results[rank][0]) == 7
        assert all("rank 1 raised an error; nothing was changed" in m for m in results[rank][0])
    words = ("grads[0]", "lr", "exp_avg", "max_norm", "tensors[0]", "grad", "not iterable")
    for message, word in zip(results[1][0], words, strict=True):
        assert word in message
        assert "norm_group" not in message


class Full(dict):
    def __setitem__(self, key, value):
        raise MemoryError("no room")


def state_that_cannot_be_kept(rank, size):
    """On rank 1: it is kept before the others are told that all is well."""
    opt = fst.Adam(share(all_params(), rank, size), max_norm=0.5, norm_group=world())
    params = opt.param_groups[0]["params"]
    opt.state = Full() if rank == 1 else {}
    before = snapshot(opt, params)
    with pytest.raises((MemoryError, RuntimeError)) as error:
        opt.step()
    assert snapshot(opt, params) == before
    opt.state = {}
    opt.step()
    return str(error.value), opt.total_norm.item()


def test_state_that_cannot_be_kept_on_one_rank(ranks):
    (first, norm), (second, same) = ranks(state_that_cannot_be_kept, 2)
    assert "rank 1 raised" in first
    assert second == "no room"
    assert norm == same


def a_norm_that_is_not_finite(rank, size):
    out = []
    for nonfinite in ("skip", "raise", "propagate"):
        params = share(all_params(), rank, size)
        opt = fst.SGD(params, lr=0.1, momentum=0.9, max_norm=0.5, nonfinite=nonfinite, norm_group=world())
        if rank == 1:
            params[0].grad[0] = math.nan
        before = snapshot(opt, params)
        try:
            opt.step()
            same = snapshot(opt, params) == before
            out.append((same, opt.total_norm.isnan().item(), opt.skipped_steps.item()))
        except RuntimeError as error:
            out.append((snapshot(opt, params) == before, "non-finite" in str(error)))
    return out


def test_a_norm_that_is_not_finite_is_so_on_all_ranks(ranks):
    for result in ranks(a_norm_that_is_not_finite, 2):
        assert result == [(True, True, 1), (True, True), (False, True, 0)]


def an_overflow_on_one_rank(rank, size):
    params = share(all_params(), rank, size)
    opt = fst.AdamW(params, max_norm=0.5, norm_group=world())
    out = []
    for overflow in (True, False):
        set_grads(params, 0, 8.0)
        if overflow and rank == 1:
            params[0].grad[0] = math.inf
        opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(float(overflow and rank == 1))
        before = snapshot(opt, params)
        opt.step()
        out.append((snapshot(opt, params) == before, opt.total_norm.item()))
    return out, opt.skipped_steps.item()


def test_an_overflow_on_one_rank_skips_on_all(ranks):
    first, second = ranks(an_overflow_on_one_rank, 2)
    assert first == second
    assert first[0][0] == (True, math.inf)
    assert not first[0][1][0]
    assert first[1] == 1


@pytest.mark.parametrize("bad", [3, "world", object()], ids=["number", "text", "object"])
def test_what_is_no_group(bad):
    params = all_params()
    for call in (
        lambda: fst.SGD(params, max_norm=1.0, norm_group=bad),
        lambda: setattr(fst.SGD(params), "norm_group", bad),
        lambda: fst.clip_grad_norm_(params, 1.0, norm_group=bad),
        lambda: fst.get_total_norm([p.grad for p in params], norm_group=bad),
    ):
        with pytest.raises(TypeError, match=r"norm_group is .*, expected a torch\.distributed\.ProcessGroup"):
            call()


def copies_and_checkpoints(rank, size):
    opt = fst.Adam(share(all_params(), rank, size), max_norm=0.5, norm_group=world())
    opt.step()
    assert opt.norm_group is world()
    assert not any("norm_group" in g for g in (*opt.param_groups, opt.defaults, *opt.state_dict()["param_groups"]))
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), copy.deepcopy(copy.deepcopy(opt))):
        params = other.param_groups[0]["params"]
        set_grads(params, 0)
        before = snapshot(other, params)
        with pytest.raises(RuntimeError, match=r"Adam: this copy .* has lost its norm_group"):
            other.step()
        assert snapshot(other, params) == before
        other.load_state_dict(opt.state_dict())
        with pytest.raises(RuntimeError, match="lost its norm_group"):
            other.step()
        other.norm_group = world()
        other.step()
        set_grads(params, 0)
        third = copy.deepcopy(other)
        third.norm_group = None
        set_grads(third.param_groups[0]["params"], 0)
        third.step()
    opt.load_state_dict(opt.state_dict())
    assert opt.norm_group is world()
    opt.step()
    return True


def test_it_is_never_pickled(ranks):
    assert ranks(copies_and_checkpoints, 2) == [True, True]


# ----------------------------------------------------------------------------------------------------------- wrappers


def caught(call):
    with warnings.catch_warnings(record=True) as list_:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in list_ if "norm_group" in str(w.message)]


def zero(rank, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own, about torch.jit.script
        from torch.distributed.optim import ZeroRedundancyOptimizer

    out = []
    for group in (None, world()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        model(torch.ones(4, 8)).square().sum().backward()
        whole = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf).item()
        model.zero_grad()
        model(torch.ones(4, 8)).square().sum().backward()
        cls = functools.partial(fst.SGD, norm_group=group) if group else fst.SGD
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opt = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cls, lr=1.0, max_norm=1.0)
        before = [p.detach().clone() for p in model.parameters()]
        _, warned = caught(opt.step)
        moved = math.sqrt(sum((a - b).square().sum().item() for a, b in zip(before, model.parameters(), strict=True)))
        _, again = caught(opt.step)
        out.append((whole, opt.optim.total_norm.item(), moved, len(warned), len(again)))
    return out


def test_zero_redundancy_optimizer(ranks):
    for (_, _, far, warned, again), (whole, norm, moved, quiet, silent) in ranks(zero, 2):
        assert (warned, again, quiet, silent) == (1, 0, 0, 0)
        assert far > 1.01  # each rank clips to a norm of its own
        assert moved == pytest.approx(1.0, rel=1e-5)
        assert norm > 0
        assert whole > 1


def fsdp(rank, size, use_orig_params):
    from torch.distributed.fsdp import FullyShardedDataParallel

    out = []
    for group in (None, world()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FullyShardedDataParallel(
                model, device_id=torch.device("cpu"), use_orig_params=use_orig_params
            )  # fmt: skip
            opt = fst.SGD(model.parameters(), lr=0.0, max_norm=1.0, norm_group=group)
            model(torch.ones(4, 8)).square().sum().backward()
        _, warned = caught(opt.step)
        _, again = caught(opt.step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right = model.clip_grad_norm_(1.0).item()
        out.append((opt.total_norm.item(), right, len(warned), len(again)))
    return out


@pytest.mark.parametrize("use_orig_params", [True, False])
def test_fsdp1(ranks, use_orig_params):
    for (local, right, warned, again), (norm, same, quiet, silent) in ranks(
        functools.partial(fsdp, use_orig_params=use_orig_params), 2
    ):
        assert (warned, again, quiet, silent) == (1, 0, 0, 0)
        assert local < 0.99 * right
        assert norm == pytest.approx(same, rel=1e-6)


def ddp(rank, size):
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    twin = copy.deepcopy(model)
    wrapped = nn.parallel.DistributedDataParallel(model)
    ours = fst.AdamW(wrapped.parameters(), lr=0.1, max_norm=0.5)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.1)
    for k in range(3):
        wrapped(torch.full((2, 4), 1.0 + k + rank)).square().sum().backward()
        for p, q in zip(twin.parameters(), model.parameters(), strict=True):
            p.grad = q.grad.clone()
        _, warned = caught(ours.step)
        assert not warned
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        theirs.step()
        ours.zero_grad()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    return ours.total_norm.item()


def test_ddp_needs_no_group(ranks):
    assert len(set(ranks(ddp, 2))) == 1
