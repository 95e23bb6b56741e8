"""Norms over the ranks of a ``torch.distributed`` group: one double per tensor and rank, and whether a rank failed.

All ranks get the same list of lists and add it up in the same order, so that they clip alike to the bit.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

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


class Exchange:
    """One collective, called by the core with this rank's sums when everything else has been validated."""

    def __init__(self, label: str, group: Any) -> None:
        self._label, self._group = label, group
        self.entered = False

    def __call__(self, sums: Sums) -> list[Sums]:
        """The sums of every rank. RuntimeError if one of them has failed."""
        return self._run(sums, failed=False)

    def fail(self) -> None:
        """Instead of the call: the others learn of an error here."""
        self._run([], failed=True)

    def _run(self, sums: Sums, failed: bool) -> list[Sums]:
        self.entered = True
        room = _room.get(self._group, 0)
        rows = self._gather([float(failed), float(len(sums)), *sums[:room]], 2 + room)
        if failed:
            return []
        if failing := [rank for rank, row in enumerate(rows) if row[0]]:
            which = ", ".join(str(dist.get_global_rank(self._group, rank)) for rank in failing)
            raise RuntimeError(
                f"{self._label}: rank {which} of norm_group raised an error; nothing was changed on any rank, "
                "the message there says what is wrong"
            )
        counts = [int(row[1]) for row in rows]
        if max(counts) > room:
            _room[self._group] = room = max(counts)
            rows = self._gather([0.0, 0.0, *sums], 2 + room)
        return [row[2 : 2 + count] for row, count in zip(rows, counts, strict=True)]

    def _gather(self, row: Sums, size: int) -> list[Sums]:
        device = _transport(self._group)
        mine = torch.tensor(row + [0.0] * (size - len(row)), dtype=torch.float64, device=device)
        rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(self._group))]
        _messages.setdefault(self._group, deque(maxlen=8)).append([mine, *rows])
        dist.all_gather(rows, mine, group=self._group)
        gathered: list[Sums] = torch.stack(rows).tolist()
        return gathered


def together(label: str, group: Any, call: Callable[[Exchange | None], Result]) -> Result:
    """``call`` with the exchange for its norm; an error before the others have been told goes to all ranks."""
    if group is None:
        return call(None)
    exchange = Exchange(label, group)
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
