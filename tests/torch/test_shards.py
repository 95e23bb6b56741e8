"""Shards of DTensors are stepped as parts of the whole, bit for bit, on any mesh: each rank in turn is this process.

Nothing is gathered here (torch's "fake" process group does nothing), so that norms are not limited; what ranks tell
each other is tested in tests/distributed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from fusedstep import reference
from fusedstep.torch import _mesh, _ranks, clip_grad_norm_
from tests.helpers.devices import HOST, torch_pretending
from tests.helpers.torch_spec import make

DEVICES = [
    pytest.param(False, id="cpu"),
    pytest.param(
        True, id="cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not HOST, reason="needs the host build")]
    ),
]
# What rounds with random numbers, and what does not but shares their loops; one with something riding along.
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {"state_dtype": "bfloat16"}),
    ("AdamW", {"state_dtype": "bfloat16", "amsgrad": True}),
    ("AdamW", {"state_dtype": "bfloat16", "ema_decay": 0.9, "stats": True}),
    ("RMSprop", {"state_dtype": "bfloat16", "lr": 0.01}),
    ("Adagrad", {"state_dtype": "bfloat16"}),
    ("SGD", {"state_dtype": "bfloat16", "momentum": 0.9}),
    ("Lion", {"state_dtype": {"exp_avg": "bfloat16"}}),
]


@contextmanager
def device(on_cuda: bool) -> Iterator[Any]:
    """What waits for it; on the host build all that is made within counts as lying on a GPU."""
    if not on_cuda:
        yield lambda: None
        return
    with torch_pretending(True) as host:
        yield host.synchronize


@contextmanager
def as_rank(rank: int, size: int) -> Iterator[None]:
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        dist.destroy_process_group()


def whole(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def steps(
    name: str, options: dict[str, Any], shapes: list[tuple[int, ...]], dtype: torch.dtype, place: Any, wait: Any
) -> Any:
    """Two steps of parameters that ``place`` has made of whole tensors; parameters and state arrays."""
    params = [torch.nn.Parameter(place(k, whole(k, shape, dtype))) for k, shape in enumerate(shapes)]
    opt = make(name, params, **options)
    for step in range(2):
        for k, p in enumerate(params):
            p.grad = place(k, whole(100 * (step + 1) + k, shapes[k], dtype))
        opt.step()
        wait()
    arrays = [{n: x for n, x in opt.state[p].items() if n not in ("step", "tensor_id")} for p in params]
    return [{"param": p.detach(), **own} for p, own in zip(params, arrays, strict=True)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("on_cuda", DEVICES)
def test_a_shard_is_stepped_as_a_part_of_the_whole(seed: int, on_cuda: bool) -> None:
    draw = random.Random(seed)
    name, options = OPTIMIZERS[seed % len(OPTIMIZERS)]
    mesh_shape = draw.choice([(2,), (3,), (5,), (2, 2), (3, 2), (2, 1, 2)])
    shapes = [
        tuple(draw.choice([1, 2, 3, 4, 7, 8, 16, 33]) for _ in range(draw.choice([1, 1, 2, 2, 3, 4]))) for _ in "abcd"
    ]
    shapes += [(64, 129), (5000,)]
    placements = [
        [draw.choice([Shard(draw.randrange(len(s))), Shard(0), Replicate()]) for _ in mesh_shape] for s in shapes
    ]
    dtype = draw.choice([torch.float32, torch.bfloat16])
    with device(on_cuda) as wait:
        want = steps(name, options, shapes, dtype, lambda _, x: x, wait)
        for rank in range(math.prod(mesh_shape)):
            with as_rank(rank, math.prod(mesh_shape)):
                # DTensor keeps placements per mesh, and meshes of two ranks that are alike are equal but for names.
                names = tuple(f"rank{rank}_{k}" for k in range(len(mesh_shape)))
                mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=names)

                def part(k: int, x: torch.Tensor, mesh: Any = mesh) -> Any:
                    return distribute_tensor(x, mesh, placements[k], src_data_rank=None)

                got = steps(name, options, shapes, dtype, part, wait)
                for k, arrays in enumerate(got):
                    for key, x in arrays.items():
                        assert x.placements == tuple(placements[k])
                        assert torch.equal(x.to_local(), part(k, want[k][key]).to_local()), (rank, key, shapes[k])


@pytest.mark.parametrize("rows", [7, 13, 19, 24])
def test_rows_that_fsdp_divides_after_tensor_parallelism(rows: int) -> None:
    """Its shard is a part of the one there is, also where torch's placement would take other rows of the whole."""
    shapes: list[tuple[int, ...]] = [(rows, 5), (rows,)]
    options = {"state_dtype": "bfloat16"}
    want = steps("AdamW", options, shapes, torch.bfloat16, lambda _, x: x, lambda: None)
    for rank in range(6):
        i, j = divmod(rank, 2)

        def local(x: torch.Tensor, i: int = i, j: int = j) -> torch.Tensor:
            of_fsdp = x.chunk(2)[j].chunk(3)
            return of_fsdp[i].clone() if i < len(of_fsdp) else x[:0].clone()

        with as_rank(rank, 6):
            mesh = init_device_mesh("cpu", (3, 2), mesh_dim_names=(f"fsdp{rank}", f"tp{rank}"))
            placements = [_StridedShard(0, split_factor=2), Shard(0)]

            def part(x: torch.Tensor, local: Any = local, mesh: Any = mesh, placements: Any = placements) -> Any:
                shape, stride = x.shape, x.stride()
                return DTensor.from_local(local(x), mesh, placements, run_check=False, shape=shape, stride=stride)

            got = steps("AdamW", options, shapes, torch.bfloat16, lambda _, x, part=part: part(x), lambda: None)
            for arrays, wanted in zip(got, want, strict=True):
                assert all(torch.equal(x.to_local(), local(wanted[key])) for key, x in arrays.items()), (rank, rows)
            p = torch.nn.Parameter(part(whole(0, (rows, 5), torch.float32)))
            mask = whole(1, (rows, 5), torch.float32) > 0
            opt = make("SGD", [p])
            opt.set_mask({p: mask})
            assert torch.equal(opt.state[p]["mask"].to_local(), local(mask))


def test_process_groups_that_are_made_again(monkeypatch: Any) -> None:
    """An optimizer finds those of today, and clips nothing to the norm of its shards where there are none."""
    used = []

    def gathered(group: Any, row: list[float]) -> Any:
        used.append(group)
        return np.array([row, row])

    monkeypatch.setattr(_ranks, "gathered", gathered)
    with as_rank(0, 2):
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("again",))
        p = torch.nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)], src_data_rank=None))
        p.grad = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)], src_data_rank=None)
        opt = make("SGD", [p], max_norm=1.0)
        opt.step()
    before = p.to_local().clone()
    for call in (opt.step, lambda: clip_grad_norm_([p], 1.0)):
        with pytest.raises(RuntimeError, match="has no process groups any more"):
            call()
    assert torch.equal(p.to_local(), before)
    with as_rank(0, 2):
        init_device_mesh("cpu", (2,), mesh_dim_names=("again",))
        opt.step()
        assert used[1] is not used[0]
        assert used[1] is mesh.get_group(0)
    assert not torch.equal(p.to_local(), before)


@pytest.mark.parametrize("on_cuda", DEVICES)
@pytest.mark.parametrize("origin", [2**33 - 40, 2**33 - 37, 2**34 - 8])
@pytest.mark.parametrize("column", [False, True])
def test_places_beyond_what_a_key_covers(origin: int, column: bool, on_cuda: bool, monkeypatch: Any) -> None:
    """As if the shard began there in a tensor that has no room here; or were a column of one."""
    count = 100
    shape, apart = ([2**31, 8], 8) if column else ([2**36], 1)
    monkeypatch.setattr(_mesh, "place_of", lambda _: (shape, [origin // 8, origin % 8] if column else [origin]))
    with as_rank(0, 1), device(on_cuda) as wait:
        mesh = init_device_mesh("cpu", (1,))
        grad = torch.linspace(0.1, 3.0, count).reshape((count, 1) if column else (count,))

        def square_avg(**options: Any) -> torch.Tensor:
            p = torch.nn.Parameter(distribute_tensor(torch.ones_like(grad), mesh, [Replicate()]))
            p.grad = distribute_tensor(grad, mesh, [Replicate()])
            opt = make("RMSprop", [p], **options)
            opt.step()
            wait()
            return opt.state[p]["square_avg"].to_local().reshape(-1)

        exact = square_avg().numpy()
        stored = square_avg(state_dtype="bfloat16", seed=5).view(torch.int16).numpy().view(np.uint16)
    key = reference.stochastic_key(5, 1, 0, 1)
    places = [origin + apart * k for k in range(count)]
    want = [reference.encode(exact[k : k + 1], "bfloat16_stochastic", key=key, first=places[k]) for k in range(count)]
    assert (stored == np.concatenate(want)).all()
    assert (stored != reference.encode(exact, "bfloat16_stochastic", key=key, first=0)).any()
