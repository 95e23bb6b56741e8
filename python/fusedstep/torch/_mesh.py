"""DTensors: which mesh dimensions a norm is gathered over, where a shard lies in the whole, what placements are taken.

``torch.distributed.tensor`` is never imported here: where nobody has, there is no DTensor.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist

_was_distributed = False  # whether this process has been; its DTensors outlive the process group


def _dtensor() -> Any:
    """The class, None as long as nothing has been distributed, and so there is nothing of that class."""
    global _was_distributed
    if not _was_distributed:
        _was_distributed = dist.is_available() and dist.is_initialized()
    return _imported("DTensor") if _was_distributed else None


def _imported(name: str) -> Any:
    for module in ("torch.distributed.tensor", "torch.distributed._tensor"):  # the second: torch before 2.5
        if (found := getattr(sys.modules.get(module), name, None)) is not None:
            return found
    return None


def is_used() -> bool:
    """Whether there can be DTensors."""
    return _dtensor() is not None


def is_sharded(tensor: Any) -> bool:
    """Whether this is a DTensor."""
    dtensor = _dtensor()
    return dtensor is not None and isinstance(tensor, dtensor)


@dataclass(frozen=True)
class Dimension:
    """A mesh dimension: the process group of the ranks along it, the parameters that are sharded over it, by their
    indices, and the ranks of the whole mesh."""

    group: Any
    indices: tuple[int, ...]
    ranks: frozenset[int] = frozenset()


def dimensions(tensors: Sequence[Any], indices: Iterable[int]) -> list[Dimension]:
    """Those over which these tensors, which have these indices, are sharded, in an order that all ranks have.

    A sum is complete when it has been gathered over each in turn.
    """
    dtensor = _dtensor()
    if dtensor is None:
        return []
    found: dict[str, tuple[Any, list[int], dict[int, Any]]] = {}
    for index, tensor in zip(indices, tensors, strict=True):
        if isinstance(tensor, dtensor):
            mesh = tensor._spec.mesh
            for group in _groups_of(tensor._spec):
                _, own, meshes = found.setdefault(group.group_name, (group, [], {}))
                own.append(index)
                meshes[id(mesh)] = mesh
    return [
        Dimension(group, tuple(own), frozenset().union(*(mesh.mesh.flatten().tolist() for mesh in meshes.values())))
        for group, own, meshes in found.values()
    ]


def _groups_of(spec: Any) -> list[Any]:
    """The process groups of the mesh dimensions with several ranks that a tensor is not replicated over."""
    mesh = spec.mesh
    if mesh.get_coordinate() is None:  # a rank that is not in it
        return []
    wanted = [k for k, placement in enumerate(spec.placements) if not placement.is_replicate() and mesh.size(k) > 1]
    if wanted and not dist.is_initialized():
        raise RuntimeError(f"{mesh} has no process groups any more, over which DTensors there are gathered")
    return [mesh.get_group(k) for k in wanted]


def check_placements(where: str, tensor: Any) -> None:
    """ValueError for a parameter that is a sum over ranks which nobody has added up."""
    if is_sharded(tensor) and any(placement.is_partial() for placement in tensor.placements):
        raise ValueError(
            f"{where} has placements {tensor.placements}, expected no Partial: redistribute it to Shard or Replicate"
        )


def align_gradients(params: Iterable[torch.Tensor], attr: str = "grad") -> None:
    """Gradients of DTensors get the placements of their parameters.

    Those of norm layers under sequence parallelism are sums over ranks that nobody has added up (``Partial``). torch's
    optimizers have their operations do so. Every rank takes part, in the order of the parameters.
    """
    dtensor = _dtensor()
    if dtensor is None:
        return
    params = list(params)
    if not any(issubclass(kind, dtensor) for kind in set(map(type, params))):  # sooner known than of each
        return
    with torch._C.DisableTorchFunctionSubclass():  # else reading a gradient takes twice as long
        others = [
            (p, grad)
            for p in params
            if isinstance(p, dtensor)
            and isinstance(grad := getattr(p, attr, None), dtensor)
            and grad._spec is not p._spec
        ]
    for p, grad in others:
        if (aligned := placed_as(grad, p)) is not grad:
            setattr(p, attr, aligned)


def check_gradients(label: str, params: Iterable[torch.Tensor]) -> None:
    """TypeError for a gradient that is no DTensor beside a parameter that is one, or the reverse, or on another mesh.

    The norm of its shards would be added up over ranks that have no part of it, or over none.
    """
    dtensor = _dtensor()
    if dtensor is None:
        return
    for k, (p, grad) in enumerate((p, p.grad) for p in params if p.grad is not None):
        sharded = isinstance(p, dtensor)
        if isinstance(grad, dtensor) != sharded:
            expected = "DTensor" if sharded else "plain tensor"
            raise TypeError(
                f"{label}: grads[{k}] is a {type(grad).__name__}, expected a {expected} to match its parameter"
            )
        if sharded and not on_mesh_of(grad, p):
            raise TypeError(
                f"{label}: grads[{k}] is on another mesh, {mesh_text(grad)}, expected {mesh_text(p)} to match its "
                "parameter"
            )


def on_mesh_of(tensor: Any, like: Any) -> bool:
    """Whether two DTensors are on the same mesh."""
    return tensor._spec is like._spec or tensor.device_mesh == like.device_mesh


def mesh_text(tensor: Any) -> str:
    """The mesh of a DTensor, with its ranks: what it prints may be the same for two."""
    mesh = tensor.device_mesh
    ranks = str(mesh.mesh.tolist())
    return f"{mesh} of ranks {ranks if len(ranks) <= 80 else ranks[:77] + '...'}"


def placed_as(tensor: Any, like: Any) -> Any:
    """A DTensor on the mesh of another with its placements; as it is on another mesh."""
    if tensor._spec is like._spec or tensor.placements == like.placements or not on_mesh_of(tensor, like):
        return tensor
    return tensor.redistribute(placements=like.placements)


def added_up(tensors: Sequence[Any]) -> list[Any]:
    """DTensors without a ``Partial`` placement."""
    dtensor = _dtensor()
    if dtensor is None:
        return list(tensors)
    return [_added_up(t) if isinstance(t, dtensor) else t for t in tensors]


def _added_up(tensor: Any) -> Any:
    if not any(placement.is_partial() for placement in tensor.placements):
        return tensor
    replicate = _imported("Replicate")
    return tensor.redistribute(
        placements=[replicate() if placement.is_partial() else placement for placement in tensor.placements]
    )


def mask_as(mask: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """A mask like its parameter: of one for the whole, the same on every rank, the part that this rank has."""
    if not is_sharded(param):
        return mask
    if is_sharded(mask):
        return cast(torch.Tensor, placed_as(mask, param))
    sharded = torch.empty_like(param, dtype=torch.bool)
    local = cast(Any, sharded)._local_tensor
    if not local.numel():  # perhaps of a rank that is not in the mesh, whatever its shape is there
        return sharded
    whole: Any = mask
    for d, rows in enumerate(_rows(cast(Any, param)._spec)):
        if rows is not None:
            whole = whole.index_select(d, rows.to(mask.device))
    local.copy_(whole)
    return sharded


def place_of(param: Any) -> tuple[list[int], list[int]] | None:
    """Shape of the whole tensor and offset of this rank's shard in it; None where that is all of it, or nothing."""
    coordinate = param._spec.mesh.get_coordinate()
    return _place_of(param._spec, None if coordinate is None else tuple(coordinate))


@functools.lru_cache(maxsize=1024)
def _place_of(spec: Any, coordinate: Any) -> tuple[list[int], list[int]] | None:
    # The coordinate is part of the key: meshes are equal that a process has had different places in.
    every = _rows(spec)
    if all(rows is None for rows in every) or any(rows is not None and len(rows) == 0 for rows in every):
        return None
    offset = [0 if rows is None else int(rows[0]) for rows in every]
    for rows, first in zip(every, offset, strict=True):
        if rows is not None and not torch.equal(rows, torch.arange(first, first + len(rows), device="cpu")):
            raise ValueError(
                f"placements {spec.placements} of a parameter of shape {tuple(spec.shape)} on a mesh of shape "
                f"{tuple(spec.mesh.shape)} leave rows here that are not neighbours, expected a block of them where "
                "state is rounded with random numbers: use state_dtype='float32'"
            )
    return list(spec.shape), offset


def _rows(spec: Any) -> list[torch.Tensor | None]:
    """Of each dimension of a DTensor, the indices that this rank has; None for all."""
    out: list[torch.Tensor | None] = [None] * len(spec.shape)
    coordinate = spec.mesh.get_coordinate()
    dims = [] if coordinate is None else [k for k, p in enumerate(spec.placements) if not p.is_replicate()]
    # FSDP divides what tensor parallelism has left, and notes it as a strided placement before that one. Where rows do
    # not divide evenly, the placement would split the whole into other parts than FSDP has made.
    for k in sorted(dims, key=lambda k: (1, -k) if _divides_the_rest(spec, k) else (0, k)):
        placement = spec.placements[k]
        d = placement.dim
        if _divides_the_rest(spec, k):
            placement = _imported("Shard")(d)
        rows = out[d]
        if rows is None:
            rows = torch.arange(spec.shape[d], device="cpu")
        along = rows.reshape([1] * d + [-1])  # a placement splits its own dimension
        chunks, _ = placement._split_tensor(along, spec.mesh.size(k), with_padding=False, contiguous=True)
        out[d] = chunks[coordinate[k]].reshape(-1)
    return out


def _divides_the_rest(spec: Any, k: int) -> bool:
    """Whether a placement is strided for the ones after it, which come before it."""
    factor = getattr(spec.placements[k], "split_factor", 1)
    after = [j for j in range(k + 1, len(spec.placements)) if not spec.placements[j].is_replicate()]
    sizes = [spec.mesh.size(j) for j in after if spec.placements[j].dim == spec.placements[k].dim]
    return bool(factor > 1 and factor == math.prod(sizes))
