"""Norms over ranks, of a mesh and of a ``torch.distributed`` group: one double per tensor and rank, and whether one
failed.

All ranks get the same list of lists and add it up in the same order, so that they clip alike to the bit.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from .. import _core
from ..reference import STATISTICS
from ._mesh import Dimension

Sums = list[float]
Result = TypeVar("Result")

# How many sums a message to this group holds: as many as any rank has needed so far. All ranks of a group make the same
# calls in the same order and see the same messages, so that they agree on it.
_room: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


# Tensors for messages that are not under way, by how many there are and how long.
_free: dict[tuple[int, int, torch.device], list[list[torch.Tensor]]] = {}


def _message(ranks: int, length: int, device: torch.device) -> list[torch.Tensor]:
    """Room for a message and for those of all ranks, that is never given back.

    gloo's thread lets go of tensors a moment after a collective has returned. If it is the last to do so, it wants the
    interpreter's lock. It waits for ever in ``destroy_process_group()`` of torch before 2.8, which holds the lock, and
    it ends the process while the interpreter exits.
    """
    with torch.inference_mode(False):  # for every mode
        made = [torch.empty(length, dtype=torch.float64, device=device) for _ in range(1 + ranks)]
    for tensor in made:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(tensor))
    return made


def check_group(label: str, group: Any) -> Any:
    """``norm_group`` as given, TypeError unless a process group (or None)."""
    if group is None or (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        return group
    raise TypeError(
        f"{label}: norm_group is {group!r}, expected a torch.distributed.ProcessGroup that this process is in "
        "(dist.group.WORLD, dist.new_group(...), of a DeviceMesh its get_group()), or None"
    )


def _transport(group: Any) -> torch.device:
    if "cpu:" in dist.get_backend_config(group) or dist.get_backend(group) in ("gloo", "mpi"):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def gathered(group: Any, row: Sums) -> NDArray[np.float64]:
    """The rows of all ranks of a group, which have the same length."""
    key = dist.get_world_size(group), len(row), _transport(group)
    free = _free.setdefault(key, [])
    mine, *rows = message = free.pop() if free else _message(*key)
    mine.copy_(torch.from_numpy(np.array(row, np.float64)))  # twice as fast as torch.tensor
    dist.all_gather(rows, mine, group=group)
    found = np.stack([r.numpy(force=True) for r in rows])
    free.append(message)  # not where the collective has failed: it may go on writing
    return found


class Exchange:
    """What the core calls with this rank's sums when everything else has been validated: first one collective for each
    mesh dimension over which some of the tensors are sharded, then one for ``norm_group``.

    A tensor that is sharded counts with or without a gradient, which makes it zero, so that every rank adds up the same
    numbers.
    """

    def __init__(
        self,
        label: str,
        group: Any,
        dimensions: Sequence[Dimension] = (),
        norm_type: float = 2.0,
        numbers: Sequence[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._label, self._group, self._dimensions, self._norm_type = label, group, dimensions, norm_type
        self._numbers, self._device = numbers, device
        self._failing: set[int] = set()
        self.entered = False
        # Whether all stays on this device, so that the host does not wait.
        self.on_device = device is not None and group is None and all(_has_devices(d.group) for d in dimensions)

    def __call__(self, sums: Sums, indices: Sequence[int]) -> list[Sums]:
        """The sums of whole tensors, by rank of ``norm_group``.

        Args:
            indices: of the tensors: those of the dimensions, or places in ``numbers``, which are.

        Raises:
            RuntimeError: a rank has failed.
        """
        if self.on_device:  # none of its tensors is there
            whole = self.gather(torch.tensor(sums, dtype=torch.float64, device=self._device), indices).tolist()
            if whole[-1]:
                raise RuntimeError(self._failed("another rank"))
            return [whole[:-1]]
        return self._run(dict(zip(self._numbered(indices), sums, strict=True)), failed=False)

    def fail(self) -> None:
        """Instead of the call: the others learn of an error here."""
        self._norm_type = 2.0  # the one that was given may be the error
        if self.on_device:
            self.gather(self.buffer(0), [], failed=True)
        else:
            self._run({}, failed=True)

    def _numbered(self, indices: Sequence[int]) -> Sequence[int]:
        numbers = self._numbers
        return indices if numbers is None else [numbers[k] for k in indices]

    def _failed(self, which: str) -> str:
        return f"{self._label}: {which} raised an error; nothing was changed on any rank, the message there says why"

    def check(self) -> None:
        """ValueError for a ``norm_group`` two ranks of which have the same sum of a DTensor to give."""
        if self._group is None or not self._dimensions:
            return
        ranks = set(dist.get_process_group_ranks(self._group))
        for dimension in self._dimensions:
            if len(both := sorted(ranks & dimension.ranks)) > 1:
                raise ValueError(
                    f"{self._label}: norm_group has ranks {both[0]} and {both[1]} of one DeviceMesh, expected one of "
                    "them at most: each has the norm of whole DTensors, which would count more than once; pass "
                    "norm_group=None unless other ranks have other parameters"
                )

    # ------------------------------------------------------------------------------------------------------ on the host

    def _run(self, sums: dict[int, float], failed: bool) -> list[Sums]:
        self.entered = True
        for dimension in self._dimensions:
            shares = map(sums.get, dimension.indices, itertools.repeat(0.0))
            of_ranks = gathered(dimension.group, [self._flag(failed), *shares])
            self._note(of_ranks[:, 0])
            sums.update(zip(dimension.indices, _fold_all(of_ranks[:, 1:], self._norm_type), strict=True))
        own = [sums[k] for k in sorted(sums)]
        rows = [own] if self._group is None else self._over_group(own, failed)
        if self._failing and not failed:
            raise RuntimeError(self._failed("rank " + ", ".join(map(str, sorted(self._failing)))))
        return rows

    def _flag(self, failed: bool) -> float:
        """0, or 1 more than a rank that has failed, which ranks of other groups learn of here."""
        return 1.0 + dist.get_rank() if failed else 1.0 + min(self._failing, default=-1)

    def _note(self, flags: NDArray[np.float64]) -> None:
        self._failing |= {int(flag) - 1 for flag in flags if flag}

    def _over_group(self, sums: Sums, failed: bool) -> list[Sums]:
        room = _room.get(self._group, 0)
        row = [self._flag(failed), float(len(sums)), *sums[:room]]
        rows = gathered(self._group, row + [0.0] * (2 + room - len(row)))
        self._note(rows[:, 0])
        if self._failing or failed:
            return []
        counts = rows[:, 1].astype(int).tolist()
        if max(counts) > room:
            _room[self._group] = room = max(counts)
            rows = gathered(self._group, [0.0, 0.0, *sums] + [0.0] * (room - len(sums)))
        return [row[2 : 2 + count].tolist() for row, count in zip(rows, counts, strict=True)]

    # ------------------------------------------------------------------------------------------------------ on a device

    def buffer(self, count: int) -> torch.Tensor:
        """Where the core leaves this rank's sums."""
        return torch.empty(count, dtype=torch.float64, device=self._device)

    def gather(self, sums: torch.Tensor, indices: Sequence[int], failed: bool = False) -> torch.Tensor:
        """The sums of whole tensors, then whether a rank has failed."""
        self.entered = True
        own = self._numbered(indices)
        order = sorted({*own, *(k for dimension in self._dimensions for k in dimension.indices)})
        places = {index: place for place, index in enumerate(order)}
        whole = torch.zeros(max(len(order), 1) + 1, dtype=torch.float64, device=self._device)
        if failed:
            whole[-1] = 1.0
        whole.index_copy_(0, _on_device(tuple(places[k] for k in own), self._device), sums)
        for dimension in self._dimensions:
            at = _on_device((*(places[k] for k in dimension.indices), len(whole) - 1), self._device)
            message = whole[at]
            _core.add_ranks(rows_of_ranks(dimension.group, message), message, norm_type=self._norm_type)
            whole.index_copy_(0, at, message)
        _tell(self._dimensions[0].group, whole[-1:])
        return whole


@functools.lru_cache(maxsize=256)
def _on_device(places: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(places, dtype=torch.int64, device=device)


def rows_of_ranks(group: Any, message: torch.Tensor) -> torch.Tensor:
    """Those of all ranks of a group, ranks x numbers, without waiting for them."""
    rows = message.new_empty((dist.get_world_size(group), message.numel()))
    dist.all_gather_into_tensor(rows, message, group=group)
    return rows


def _has_devices(group: Any) -> bool:
    return "cuda:" in dist.get_backend_config(group) or dist.get_backend(group) == "nccl"


# Whether a rank failed in the last call over a group, on its way to the host, and what tells that it is there.
_told: weakref.WeakKeyDictionary[Any, tuple[torch.Tensor, Any]] = weakref.WeakKeyDictionary()


def _tell(group: Any, flag: torch.Tensor) -> None:
    if not flag.is_cuda:
        _told[group] = flag.clone(), None
    elif not torch.cuda.is_current_stream_capturing():
        there = torch.empty(1, dtype=torch.float64, pin_memory=True)
        there.copy_(flag, non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        _told[group] = there, event


def _check_told(label: str, dimensions: Sequence[Dimension]) -> None:
    """RuntimeError on every rank, the one that failed too, if one did in the call before, which changed nothing.

    All ranks find out in the same call, and none of them enters a collective in it.
    """
    flag, event = _told.pop(dimensions[0].group, (None, None)) if dimensions else (None, None)
    if flag is None or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return
    if event is not None:
        event.synchronize()
    if flag.item():
        raise RuntimeError(f"{label}: a rank raised an error in the call before, which changed nothing on any rank")


def _fold_all(rows: NDArray[np.float64], norm_type: float) -> Sums:
    """The same of many tensors, a row of them for each rank."""
    if norm_type not in (1.0, 2.0, math.inf):
        return [_fold(shares, norm_type) for shares in rows.T.tolist()]
    add = np.maximum if norm_type == math.inf else np.add
    with np.errstate(all="ignore"):
        found: Sums = functools.reduce(add, rows).tolist()
    return found


def _fold(shares: Sums, norm_type: float) -> float:
    """What the parts of one tensor add to the norm, in the order of the ranks."""
    if norm_type == math.inf:
        return math.nan if any(map(math.isnan, shares)) else max(shares)
    if norm_type in (1.0, 2.0):
        return _added(shares)
    largest = max(shares)  # norms, scaled so that no power overflows
    if largest == 0.0 or not math.isfinite(_added(shares)):
        return _added(shares)
    return float(largest * _added([(x / largest) ** norm_type for x in shares]) ** (1.0 / norm_type))


def _added(shares: Sums) -> float:
    total = 0.0
    for share in shares:  # sum() of Python 3.12 compensates
        total += share
    return total


def statistics(rows: list[Sums], dimensions: Sequence[Dimension]) -> list[Sums]:
    """Those of whole tensors, from those of this rank's shards: a row of :data:`reference.STATISTICS` each."""
    rows = list(rows)
    for dimension in dimensions:
        own = [x for k in dimension.indices for x in rows[k]]
        of_ranks = gathered(dimension.group, own).tolist()
        for place, k in enumerate(dimension.indices):
            at = slice(place * len(STATISTICS), (place + 1) * len(STATISTICS))
            shards = [row[at] for row in of_ranks if row[at][-1] >= 0]  # those that have been updated
            if shards:
                rows[k] = [_whole(name, values) for name, *values in zip(STATISTICS, *shards, strict=True)]
    return rows


def _whole(name: str, shares: Sums) -> float:
    if name == "update_max":
        return _fold(shares, math.inf)
    if name.endswith("_norm"):
        return math.sqrt(_fold([x * x for x in shares], 2.0))
    return _fold(shares, 1.0)


def together(
    label: str,
    group: Any,
    dimensions: Sequence[Dimension],
    call: Callable[[Exchange | None], Result],
    norm_type: float = 2.0,
    numbers: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Result:
    """``call`` with the exchange for its norm; an error before the others have been told goes to all ranks."""
    if group is None and not dimensions:
        return call(None)
    _check_told(label, dimensions)
    exchange = Exchange(label, group, dimensions, norm_type, numbers, device)
    try:
        exchange.check()
        return call(exchange)
    except Exception:
        if not exchange.entered:
            exchange.fail()
        raise


def told(label: str, group: Any, call: Callable[[], Result]) -> Result:
    """``call``, of what tells over which mesh the tensors are: an error goes to the ranks of ``norm_group`` alone."""
    try:
        return call()
    except Exception:
        if group is not None:
            Exchange(label, group).fail()
        raise


def looks_sharded(params: Iterable[torch.Tensor]) -> bool:
    """Whether other ranks hold the rest of this: FSDP1 marks its parameters, ZeRO steps an optimizer of its own."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return False
    if any(getattr(p, "_fsdp_flattened", False) for p in params):
        return True
    zero = getattr(sys.modules.get("torch.distributed.optim"), "ZeroRedundancyOptimizer", None)
    frame = sys._getframe(1)
    while zero is not None and frame is not None:
        local: Mapping[str, Any] = frame.f_locals
        if isinstance(local.get("self"), zero):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
