"""Who takes part: one module per peer, each with a list ``PEERS``.

A module imports its package only when asked, so that a missing one costs a line that says so. What a peer cannot do
raises :class:`Unavailable` with the reason, which becomes its row.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from harness.cases import Case


class Unavailable(Exception):
    """The peer cannot do this case, or is not here; the text says why."""


def first_line(error: BaseException) -> str:
    """What a table has room for of an error."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass
class Contender:
    """A peer that is set up for a case."""

    step: Callable[[], Any]
    """One step on the current gradients, clipping to ``case.max_norm`` included. On a GPU it need not wait."""
    state: Callable[[], list[Any]]
    """Every array that the optimizer keeps between steps: tensors or NumPy arrays."""
    core: Callable[[], Any] | None = None
    """The same step without what lies around the compiled core; None where nothing can be taken away."""


class Peer(Protocol):
    """A way to do an optimizer step."""

    name: str  # as in the tables: "bitsandbytes 8-bit"
    distribution: str | None  # the package on PyPI whose version is recorded; None where that is torch or NumPy
    tolerance: float  # largest error of the update relative to the specification's, in the 2-norm; 0: equal bits
    # Read where a peer has them:
    #   devices: tuple[str, ...]   where it is at home; elsewhere it has no row. ("cpu", "cuda")
    #   arrays: float              of a parameter's size that it needs beyond parameters, gradients and shared state. 4
    #   fresh: bool                starts at step 1 with a state of its own. False
    #   dtype: str                 takes part in cases of 16 bits, in this dtype and on memory of its own
    #   is_built(): bool           of a peer that takes minutes to build: --quick does without unless it is built
    #   version: str               where it comes from no installed distribution
    #   takes: str                 whether with what rides along: "plain" cases, "rides", or "both". "plain"
    #   is_part: bool              does a part of the work: its answer is not compared. False
    #   compiled: bool             compiles for each case: its host's part is not measured apart. False

    def prepare(self) -> None:
        """Import or build what is needed, once; raises :class:`Unavailable` with the reason."""

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        """Set up for these ``torch.nn.Parameter``\\ s, whose ``.grad`` is set and later refreshed in place.

        ``state`` is in torch's format ({param: {"step": ..., "exp_avg": ...}}); peers that keep the same arrays share
        them, so that all run on the same memory, and copy states of one number. Where it is empty all start from
        nothing. Raises :class:`Unavailable`.
        """


@cache
def all_peers() -> dict[str, Peer]:
    """By name, in the order of the tables: fusedstep, torch, the others by module name."""
    found: list[Peer] = []
    modules = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    for name in sorted(modules, key=lambda m: (m != "fusedstep_", m != "torch_", m)):
        found += importlib.import_module(f"{__name__}.{name}").PEERS
    return {peer.name: peer for peer in found}
