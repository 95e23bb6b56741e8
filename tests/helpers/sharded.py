"""Tensors divided over processes, and what each process must then have: by arithmetic on whole tensors, not by torch.

:data:`LAYOUTS` says how. :func:`place` and :func:`like` make the DTensor of this rank, :func:`part` is what a rank has
of an array, and :func:`specified_norm` is the norm that all ranks must find.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from fusedstep import reference
from tests.helpers import ranks
from tests.helpers.bits import Array


class Layout(NamedTuple):
    """A mesh and the placement of a tensor on each of its dimensions."""

    mesh: tuple[int, ...] | None  # None: all ranks in a row
    placements: tuple[Placement, ...]

    def shape(self, size: int) -> tuple[int, ...]:
        return self.mesh or (size,)

    def of(self, ndim: int) -> tuple[Placement, ...]:
        """Of a tensor with so many dimensions: where it lacks the one that is divided, it is replicated."""
        return tuple(p if isinstance(p, Replicate) or p.dim < ndim else Replicate() for p in self.placements)


LAYOUTS = {
    "rows": Layout(None, (Shard(0),)),
    "columns": Layout(None, (Shard(1),)),
    "replicated": Layout(None, (Replicate(),)),
    "hybrid": Layout((2, 2), (Replicate(), Shard(0))),  # HSDP
    "rows, columns": Layout((2, 2), (Shard(0), Shard(1))),
    "columns, rows": Layout((2, 2), (Shard(1), Shard(0))),
    "rows of rows": Layout((2, 2), (Shard(0), Shard(0))),
    "strided": Layout((2, 2), (_StridedShard(0, split_factor=2), Shard(0))),  # FSDP2 over a column-wise linear layer
}
# Each layout with the numbers of processes that it is for.
PLACES = [(name, size) for name, layout in LAYOUTS.items() for size in ([4] if layout.mesh else [2, 3])]


def chunk(x: Array, dim: int, index: int, count: int) -> Array:
    """As torch.chunk: parts of one size, of which the last ones may be shorter or empty."""
    length = -(-x.shape[dim] // count)
    return x.take(range(min(index * length, x.shape[dim]), min((index + 1) * length, x.shape[dim])), dim)


def part_at(x: Array, placements: Sequence[Placement], shape: Sequence[int], coordinate: Sequence[int]) -> Array:
    """What the rank at this place in a mesh has of the array. A strided dimension divides what others have left."""
    dims = list(zip(placements, coordinate, shape, strict=True))
    for placement, index, count in sorted(dims, key=lambda dim: isinstance(dim[0], _StridedShard)):
        if not isinstance(placement, Replicate):
            x = chunk(x, placement.dim, int(index), count)
    return x


def part(x: Array, layout: Layout, size: int, rank: int) -> Array:
    """What a rank has of the whole array."""
    shape = layout.shape(size)
    return part_at(x, layout.of(x.ndim), shape, np.unravel_index(rank, shape))


def divide(x: torch.Tensor, mesh: Any, placements: Sequence[Placement], device: torch.device) -> DTensor:
    """This rank's part of a tensor that every rank has whole."""
    index = torch.arange(x.numel()).reshape(x.shape).numpy()
    mine = part_at(index, placements, mesh.shape, mesh.get_coordinate())
    local = x.reshape(-1)[torch.from_numpy(mine.copy())].to(device)
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=x.shape, stride=x.stride())


def place(x: torch.Tensor, layout: Layout) -> DTensor:
    mesh = ranks.mesh(*layout.shape(torch.distributed.get_world_size()))
    return divide(x, mesh, layout.of(x.ndim), ranks.device())


def like(x: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """A whole tensor as the parameter is."""
    if isinstance(param, DTensor):
        return divide(x, param.device_mesh, param.placements, param.to_local().device)
    return x.to(param.device)


def local(x: Any) -> Any:
    """A tensor's part on this rank, on the CPU; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach()
    return (x.to_local() if isinstance(x, DTensor) else x).cpu()


def specified_sum(x: Array, layout: Layout | None, size: int, norm_type: float = 2.0) -> float:
    """What a tensor adds to the norm: the sum of each rank, added in the order of the ranks, along one dimension of the
    mesh after the other. A dimension over which it is replicated counts once."""
    if layout is None:
        return reference.tree(reference.block_sums(x, norm_type), norm_type)
    shape = layout.shape(size)
    sums = np.array(
        [
            reference.tree(reference.block_sums(part(x, layout, size, rank), norm_type), norm_type)
            for rank in range(math.prod(shape))
        ]
    ).reshape(shape)
    for placement in layout.of(x.ndim):
        along = sums[:1] if isinstance(placement, Replicate) else sums
        sums = np.array(list(itertools.accumulate(along, np.maximum if norm_type == math.inf else np.add))[-1])
    return float(sums)


def specified_norm(xs: Sequence[tuple[Array, Layout | None]], size: int, norm_type: float = 2.0) -> float:
    """Of tensors with their layouts, None for plain ones."""
    total = reference.tree(np.array([specified_sum(x, layout, size, norm_type) for x, layout in xs]), norm_type)
    return math.sqrt(total) if norm_type == 2 else total
