"""Norms over ranks, of a mesh and of a ``torch.distributed`` group: one double per tensor and rank, and whether one
failed.

All ranks get the same list of lists and add it up in the same order, so that they clip alike to the bit.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..reference import STATISTICS
from ._mesh import Dimension

Sums = list[float]
Result = TypeVar("Result")

# How many sums a message to this group holds: as many as any rank has needed so far. All ranks of a group make the same
# calls in the same order and see the same messages, so that they agree on it.
_room: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


# The tensors of the last messages. gloo's thread lets go of them a moment after a collective has returned; if it is the
# last to do so, it wants the interpreter's lock, which torch before 2.8 holds in destroy_process_group() while it waits
# for that thread.
_messages: weakref.WeakKeyDictionary[Any, deque[list[torch.Tensor]]] = weakref.WeakKeyDictionary()


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


def gathered(group: Any, row: Sums) -> list[Sums]:
    """The rows of all ranks of a group, which have the same length."""
    mine = torch.tensor(row, dtype=torch.float64, device=_transport(group))
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    _messages.setdefault(group, deque(maxlen=8)).append([mine, *rows])
    dist.all_gather(rows, mine, group=group)
    found: list[Sums] = torch.stack(rows).tolist()
    return found


_NONE = -1.0  # in place of the sum of a tensor without a gradient: sums are not negative


class Exchange:
    """What the core calls with this rank's sums when everything else has been validated: first one collective for each
    mesh dimension over which some of the tensors are sharded, then one for ``norm_group``."""

    def __init__(
        self,
        label: str,
        group: Any,
        dimensions: Sequence[Dimension] = (),
        norm_type: float = 2.0,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._label, self._group, self._dimensions, self._norm_type = label, group, dimensions, norm_type
        self._numbers = numbers
        self._failing: set[int] = set()
        self.entered = False

    def __call__(self, sums: Sums, indices: Sequence[int]) -> list[Sums]:
        """The sums of the whole of each tensor that has a gradient on any rank, by rank of ``norm_group``.

        Args:
            indices: of the tensors: those of the dimensions, or places in ``numbers``, which are.

        Raises:
            RuntimeError: a rank has failed.
        """
        numbers = self._numbers
        own = indices if numbers is None else [numbers[k] for k in indices]
        return self._run(dict(zip(own, sums, strict=True)), failed=False)

    def fail(self) -> None:
        """Instead of the call: the others learn of an error here."""
        self._run({}, failed=True)

    def _run(self, sums: dict[int, float], failed: bool) -> list[Sums]:
        self.entered = True
        for dimension in self._dimensions:
            rows = gathered(dimension.group, [self._flag(failed), *(sums.get(k, _NONE) for k in dimension.indices)])
            self._note(rows)
            sums |= self._added(dimension.indices, [row[1:] for row in rows])
        own = [sums[k] for k in sorted(sums)]
        rows = [own] if self._group is None else self._over_group(own, failed)
        if self._failing and not failed:
            which = ", ".join(map(str, sorted(self._failing)))
            raise RuntimeError(
                f"{self._label}: rank {which} raised an error; nothing was changed on any rank, the message there says "
                "what is wrong"
            )
        return rows

    def _flag(self, failed: bool) -> float:
        """0, or 1 more than a rank that has failed, which ranks of other groups learn of here."""
        return 1.0 + dist.get_rank() if failed else 1.0 + min(self._failing, default=-1)

    def _note(self, rows: list[Sums]) -> None:
        self._failing |= {int(row[0]) - 1 for row in rows if row[0]}

    def _added(self, indices: Sequence[int], rows: list[Sums]) -> dict[int, float]:
        out: dict[int, float] = {}
        for index, *values in zip(indices, *rows, strict=True):
            if shares := [x for x in values if x != _NONE]:
                out[index] = _fold(shares, self._norm_type)
        return out

    def _over_group(self, sums: Sums, failed: bool) -> list[Sums]:
        room = _room.get(self._group, 0)
        row = [self._flag(failed), float(len(sums)), *sums[:room]]
        rows = gathered(self._group, row + [0.0] * (2 + room - len(row)))
        self._note(rows)
        if self._failing or failed:
            return []
        counts = [int(row[1]) for row in rows]
        if max(counts) > room:
            _room[self._group] = room = max(counts)
            rows = gathered(self._group, [0.0, 0.0, *sums] + [0.0] * (room - len(sums)))
        return [row[2 : 2 + count] for row, count in zip(rows, counts, strict=True)]


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
        of_ranks = gathered(dimension.group, own)
        for place, k in enumerate(dimension.indices):
            at = slice(place * len(STATISTICS), (place + 1) * len(STATISTICS))
            shards = [row[at] for row in of_ranks]
            if rows[k][-1] >= 0:  # it has been updated
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
) -> Result:
    """``call`` with the exchange for its norm; an error before the others have been told goes to all ranks."""
    if group is None and not dimensions:
        return call(None)
    exchange = Exchange(label, group, dimensions, norm_type, numbers)
    try:
        return call(exchange)
    except Exception:
        if not exchange.entered:
            exchange.fail()
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
