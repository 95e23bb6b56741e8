"""What belongs to a run of a torch optimizer and is never saved."""

from __future__ import annotations

import operator
import weakref
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from .._rule import KeptGroups
from ..reference import STATISTICS, clip_coefficient
from . import _mesh
from ._mesh import Dimension


def on_gpu(x: Any) -> bool:
    """Whether this is a tensor whose value the host would have to wait for."""
    return isinstance(x, torch.Tensor) and x.is_cuda


class Round:
    """What gradient release has done since the last ``step()`` (_release.py)."""

    __slots__ = ("averaged", "count", "places", "released")

    def __init__(self) -> None:
        self.released: set[int] = set()  # parameters that were updated, by id()
        self.averaged: dict[int, int] = {}  # of groups, by number: how many steps their averages had seen
        # Of parameters by id(): the number of the group, the place in it, and the number among all; how many there are.
        self.places: dict[int, tuple[int, int, int]] | None = None
        self.count = 0

    def left(self, params: list[torch.Tensor]) -> list[torch.Tensor | None]:
        """None in place of those that have been updated."""
        return [None if id(p) in self.released and p.grad is None else p for p in params]


class Run:
    """What belongs to a run and is never saved, in an object of its own: a wrapper that copies an optimizer's
    ``__dict__`` has the same one."""

    __slots__ = (
        "attached",
        "groups",
        "has_norm",
        "lost_norm_group",
        "masked",
        "mesh_dimensions",
        "norm_group",
        "release",
        "round",
        "rows",
        "swapped",
        "tensor_ids",
        "values",
        "warned",
    )

    def __init__(self, norm_group: Any = None) -> None:
        # Norm and coefficient of the last step; counts of steps that clipped, and that were skipped. In memory that all
        # steps go on writing, where the gradients are: on the CPU NumPy's, which no mode or transform of torch wraps.
        self.values: torch.Tensor | NDArray[np.float64] | None = None
        self.has_norm = False
        self.groups = KeptGroups()
        self.tensor_ids: dict[int, int] | None = None  # of this step's parameters by id(), once some are needed
        self.norm_group = norm_group
        self.lost_norm_group = False  # a copy of one that had it
        self.warned = False
        self.masked = False  # whether some parameter has a mask
        self.swapped = False  # whether parameters are their averages for now
        self.attached: tuple[Any, dict[torch.Tensor, torch.Tensor]] | None = None  # an AveragedModel; averages in it
        # Those that were found last, behind the placements and the indices of the parameters.
        self.mesh_dimensions: tuple[list[Any], list[int], list[Dimension]] = ([], [], [])
        self.rows: torch.Tensor | NDArray[np.float64] | None = None  # statistics of each parameter
        self.release: Any | None = None  # a GradientRelease
        self.round = Round()

    def dimensions(self, params: list[Any], indices: list[int]) -> list[Dimension]:
        """The mesh dimensions over which these parameters are sharded; found anew where a placement is another one, or
        where process groups have been made again."""
        world = dist.group.WORLD
        specs = [getattr(p, "_spec", None) for p in params]
        specs.append(None if world is None else weakref.ref(world))  # a live object has one reference of this kind
        before, of_before, found = self.mesh_dimensions
        same = len(specs) == len(before) and all(map(operator.is_, specs, before)) and indices == of_before
        if not same:
            found = _mesh.dimensions(params, indices)
            self.mesh_dimensions = specs, indices, found
        return found

    def place(self, like: torch.Tensor | None) -> torch.Tensor | NDArray[np.float64]:
        """The values, on a GPU if ``like`` is on one, whichever has them."""
        if self.values is None or on_gpu(self.values) != on_gpu(like):
            numbers = [0.0] * 4 if self.values is None else self.values.tolist()
            if like is not None and on_gpu(like):
                self.values = torch.tensor(numbers, dtype=torch.float64, device=like.device)
            else:
                self.values = np.array(numbers)
        return self.values

    def read(self, index: int, dtype: torch.dtype) -> torch.Tensor:
        """A snapshot of one of the values, where it is."""
        values = self.values
        if isinstance(values, torch.Tensor):
            return values[index].to(dtype, copy=True)
        return torch.tensor(0.0 if values is None else values[index], dtype=dtype, device="cpu")

    def fill(self, norm: float, least_max_norm: float) -> None:
        """The norm that the host has: of a step without any gradient here no kernel has written it."""
        assert isinstance(self.values, torch.Tensor)
        numbers = torch.tensor([norm, clip_coefficient(norm, least_max_norm)], dtype=torch.float64, device="cpu")
        self.values[:2].copy_(numbers)

    def place_rows(self, count: int, like: torch.Tensor | None) -> torch.Tensor | NDArray[np.float64]:
        """Statistics of so many parameters; a count of -1 in a row that no step has written yet."""
        rows = self.rows
        if rows is None or len(rows) != count or on_gpu(rows) != on_gpu(like):
            size = (count, len(STATISTICS))
            if like is not None and on_gpu(like):
                self.rows = rows = torch.full(size, -1.0, dtype=torch.float64, device=like.device)
            else:
                self.rows = rows = np.full(size, -1.0)
        return rows
