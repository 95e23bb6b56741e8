"""Norms over the ranks of a mesh on a CUDA device, which the host does not wait for: as rank 1 of two.

torch's "fake" process group gathers nothing, so that what the other rank sends is put in its place here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

import fusedstep.torch as fst
from fusedstep import _core, reference
from fusedstep.torch import _ranks
from tests.helpers.devices import HOST, synchronized, torch_pretending
from tests.helpers.torch_spec import make

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not HOST, reason="needs the build that runs CUDA on the CPU")]

SHAPES = [(6, 50), (7,), (1, 4), (3000,), (5,)]  # the last two are not sharded
ELSEWHERE = [3.5, 0.25, 1.0]  # what rank 0 has of the first three


class Other:
    """What rank 0 sends: its sums, and whether it has failed."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.failed = False

    def rows(self, _: Any, message: torch.Tensor) -> torch.Tensor:
        self.calls.append(message.tolist())
        other = torch.zeros_like(message)
        other[-1] = float(self.failed)
        other[:-1] = torch.tensor([0.0] * len(ELSEWHERE) if self.failed else ELSEWHERE)
        return torch.stack([other, message])


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
    other = Other()
    monkeypatch.setattr(_ranks, "rows_of_ranks", other.rows)
    monkeypatch.setattr(_ranks, "_has_devices", lambda _: True)
    monkeypatch.setattr(_ranks, "gathered", None)  # which waits
    # torch's own operations and its memory, which are of the same stream on a GPU, wait here.
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(_core, "add_ranks", synchronized(_core.add_ranks))
    gather = _ranks.Exchange.gather

    def waiting(self: Any, sums: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        _core.cuda_host.synchronize()
        kept.extend([sums, gather(self, sums, *args, **kwargs)])
        return kept[-1]

    monkeypatch.setattr(_ranks.Exchange, "gather", waiting)
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())  # type: ignore[no-untyped-call]
    try:
        yield other
    finally:
        dist.destroy_process_group()


def whole(seed: int, k: int) -> torch.Tensor:
    return torch.randn(SHAPES[k], generator=torch.Generator().manual_seed(10 * seed + k))


def params(names: str = "rank1") -> list[torch.nn.Parameter]:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=(names,))
    made = [distribute_tensor(whole(0, k), mesh, [Shard(0)], src_data_rank=None) for k in range(3)]
    plain = distribute_tensor(whole(0, 3), mesh, [Replicate()], src_data_rank=None)
    return [torch.nn.Parameter(p) for p in [*made, plain, whole(0, 4)]]


def set_grads(made: list[torch.nn.Parameter], seed: int, scale: float = 1.0) -> None:
    for k, p in enumerate(made):
        g = whole(seed, k) * scale
        like: Any = p
        sharded = k < 4
        p.grad = distribute_tensor(g, like.device_mesh, like.placements, src_data_rank=None) if sharded else g


def local(x: Any) -> Any:
    return x.to_local() if hasattr(x, "to_local") else x


def specified(made: list[torch.nn.Parameter], norm_type: float = 2.0) -> float:
    own = [float(reference.tree(reference.block_sums(local(p.grad).numpy(), norm_type), norm_type)) for p in made]
    shared = [max(a, b) if norm_type == math.inf else a + b for a, b in zip(ELSEWHERE, own, strict=False)]
    total = float(reference.tree(np.array(shared + own[3:]), norm_type))
    return math.sqrt(total) if norm_type == 2 else total


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion"])
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_a_step_clips_to_the_norm_of_all_ranks(other: Other, name: str, nonfinite: str) -> None:
    with torch_pretending(True) as host:
        made = params()
        opt = make(name, made, max_norm=0.5, nonfinite=nonfinite, **opt_options(name))
        again = [torch.nn.Parameter(local(p).detach().clone()) for p in made]
        plain = make(name, again, **opt_options(name))
        for seed in range(3):
            set_grads(made, seed)
            norm = specified(made)
            opt.step()
            host.synchronize()
            assert opt.total_norm is not None
            assert opt.clip_coefficient is not None
            assert opt.total_norm.item() == norm
            assert opt.clip_coefficient.item() == reference.clip_coefficient(norm, 0.5) < 1
            for p, q in zip(made, again, strict=True):
                q.grad = local(p.grad).clone()
            fst.clip_grads_with_norm_(again, 0.5, torch.tensor(norm, dtype=torch.float64))
            plain.step()
            host.synchronize()
            assert all(torch.equal(local(p), q) for p, q in zip(made, again, strict=True))
        assert [len(call) for call in other.calls] == [4] * 3


def opt_options(name: str) -> dict[str, Any]:
    return {"momentum": 0.9} if name == "SGD" else {}


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_functions(other: Other, norm_type: float) -> None:
    with torch_pretending(True) as host:
        made = params()
        set_grads(made, 1)
        norm = specified(made, norm_type)
        before = [local(p.grad).clone() for p in made]
        got = fst.clip_grad_norm_(made, 0.5, norm_type)
        host.synchronize()
        assert got.item() == np.float32(norm)
        coefficient = np.float32(reference.clip_coefficient(norm, 0.5))
        for p, g in zip(made, before, strict=True):
            assert torch.equal(local(p.grad), g * torch.tensor(coefficient))
        set_grads(made, 1)
        assert fst.get_total_norm([p.grad for p in made], norm_type).item() == np.float32(norm)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion", "NAdam"])
def test_a_rank_that_fails(other: Other, name: str) -> None:
    """Nothing changes, and every rank learns of it in the next call, before it enters a collective."""
    with torch_pretending(True) as host:
        made = params()
        opt = make(name, made, max_norm=0.5, **opt_options(name))
        set_grads(made, 0)
        opt.step()
        host.synchronize()
        before = [local(x).clone() for p in made for x in (p.detach(), *opt.state[p].values())]
        other.failed = True
        opt.step()
        host.synchronize()
        assert all(map(torch.equal, before, [local(x) for p in made for x in (p.detach(), *opt.state[p].values())]))
        other.failed = False
        entered = len(other.calls)
        with pytest.raises(RuntimeError, match="a rank raised an error in the call before, which changed nothing"):
            opt.step()
        assert len(other.calls) == entered
        assert all(map(torch.equal, before, [local(x) for p in made for x in (p.detach(), *opt.state[p].values())]))
        opt.step()
        host.synchronize()
        assert not all(map(torch.equal, before, [local(x) for p in made for x in (p.detach(), *opt.state[p].values())]))


def test_this_rank_fails(other: Other) -> None:
    """The other is told, and both raise in the call after."""
    with torch_pretending(True) as host:
        made = params()
        opt = make("AdamW", made, max_norm=0.5)
        set_grads(made, 0)
        opt.param_groups[0]["lr"] = math.nan
        with pytest.raises(ValueError, match="lr"):
            opt.step()
        assert other.calls[-1][-1] == 1.0
        opt.param_groups[0]["lr"] = 0.1
        with pytest.raises(RuntimeError, match="a rank raised an error"):
            opt.step()
        assert len(other.calls) == 1
        opt.step()
        host.synchronize()
        assert len(other.calls) == 2


def test_the_first_step_of_a_rule_without_a_count(other: Other) -> None:
    """The host waits for once, so that no momentum is left behind that would make the next step a later one."""
    with torch_pretending(True) as host:
        made = params()
        opt = make("SGD", made, max_norm=0.5, momentum=0.9)
        set_grads(made, 0)
        other.failed = True
        with pytest.raises(RuntimeError, match="another rank raised an error; nothing was changed here"):
            opt.step()
        host.synchronize()
        assert not any(opt.state.get(p) for p in made)


def test_no_gradients_here(other: Other) -> None:
    with torch_pretending(True) as host:
        made = params()
        opt = make("AdamW", made, max_norm=0.5)
        opt.step()
        host.synchronize()
        assert opt.total_norm is not None
        assert opt.total_norm.item() == math.sqrt(float(reference.tree(np.array(ELSEWHERE), 2.0)))


def test_a_function_without_gradients_here(other: Other) -> None:
    """It sends what the others expect: a number for each shard, then whether it failed."""
    with torch_pretending(True):
        assert fst.clip_grad_norm_(params(), 0.5).item() == np.float32(
            math.sqrt(float(reference.tree(np.array(ELSEWHERE), 2.0)))
        )
        assert other.calls == [[0.0] * 4]
