"""One case: every peer set up, checked against the specification, and timed in turns with the others and the limit."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

import fusedstep
from harness import limits, measure
from harness.cases import Case, flops_per_element
from harness.check import check
from harness.peers import Contender, Peer, Unavailable, all_peers
from harness.results import rounded

T = TypeVar("T")
Tell = Callable[[str], None]
HOST_SECONDS = 0.05  # for the host overhead of each contender
LEFT_OUT = "left out: compiles for each case; name it in --peers"
LEAST_SECONDS = 1.0  # of a case, however late it is
OWN_STATE = 4  # arrays that a peer may need which says nothing of it: its own state, and temporaries
SPARE = 2**30  # bytes that stay free: a machine that swaps, or kills, measures nothing


@cache
def _prepared(name: str) -> str | None:
    """Why a peer is not here; None when it is."""
    try:
        all_peers()[name].prepare()
    except Unavailable as error:
        return str(error)
    except Exception as error:  # what a build or an import may raise
        return first_line(error)
    return None


_checked: dict[tuple[Any, ...], float | str] = {}


def checked(peer: Peer, case: Case) -> float:
    """The error of a peer's update for this rule, dtype, clipping and device; Unavailable if it is too large."""
    key = (peer.name, case.rule.label, case.dtype, case.clip, case.device, case.target)
    if key not in _checked:
        try:
            _checked[key] = check(peer, case)
        except Unavailable as error:
            _checked[key] = str(error)
    found = _checked[key]
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Runner:
    """Measures cases with the same peers and settings."""

    def __init__(
        self, peers: Sequence[str], *, least: int = 5, setup: float = 60.0, tell: Tell = lambda text: None
    ) -> None:
        self.peers = list(peers)
        self.least, self.setup, self.tell = least, setup, tell
        self._too_many: dict[str, int] = {}  # tensors with which a peer was not ready in time: it is not tried again
        self._threads = torch.get_num_threads()
        self._target = fusedstep.active_target()
        self.missing = {name: why for name in self.peers if (why := _prepared(name))}

    def run(self, case: Case, budget: float, without: Sequence[str] = ()) -> dict[str, Any]:
        """The case's entry of the result file; what fails is a row that says why."""
        budget = max(budget, LEAST_SECONDS)
        torch.set_num_threads(case.threads or self._threads)
        fusedstep.use_target(case.target or self._target)
        left_out = [{"peer": p, "failed": LEFT_OUT} for p in without if p in self.peers and p not in self.missing]
        entry: dict[str, Any] = {
            "case": {
                **case.describe(),
                "threads": torch.get_num_threads() if case.device == "cpu" else None,
                "target": fusedstep.active_target() if case.device == "cpu" else None,
            },
            "sweep": case.sweep,
            "tensors": len(case.shapes.tensors),
            "elements": case.shapes.elements,
            "bytes_per_element": case.bytes_per_element,
            "flops_per_element": flops_per_element(case),
            "rows": [],
        }
        try:
            here = [p for p in self.peers if p not in (*self.missing, *without) and case.device in devices_of(p)]
            self._measure(case, here, budget, entry["rows"])
        except Exception as error:  # out of memory outside of any contender, say: the other cases go on
            for row in entry["rows"]:
                if "seconds" not in row:
                    row.setdefault("failed", first_line(error))
        finally:
            torch.set_num_threads(self._threads)
            fusedstep.use_target(self._target)
            gc.collect()
        entry["rows"] += left_out
        return entry

    def _measure(self, case: Case, names: list[str], budget: float, rows: list[dict[str, Any]]) -> None:
        by_name: dict[str, dict[str, Any]] = {name: {"peer": name} for name in [*names, "limit"]}
        rows += by_name.values()
        if why := self._lacks(case, 2 + len(case.rule.states)):
            for row in rows:
                row["failed"] = why
            return
        timed = self._time(case, names, budget, by_name)
        if case.device == "cpu":
            for name in timed:
                self.tell(f"{name}, host overhead")
                host = _try(by_name[name], lambda name=name: self._host_overhead(case, name), "host_failed")
                by_name[name] |= {"host_seconds": host} if host else {}

    def _time(self, case: Case, names: list[str], budget: float, by_name: dict[str, dict[str, Any]]) -> list[str]:
        """Set up and time all of these and the limit; the peers that were timed."""
        data = measure.Data(case)
        state = data.state(case)
        contenders: dict[str, Contender] = {}
        for name in names:
            self.tell(f"{name}, set-up")
            row = by_name[name]
            made = _try(row, lambda name=name, row=row: self._set_up(case, name, budget, data, state, row))
            if made is not None:
                contenders[name] = made
        steps = {name: contender.step for name, contender in contenders.items()}
        self.tell("limit, set-up")
        limit = _try(by_name["limit"], lambda: self._set_up_limit(case))
        if limit is not None:
            steps["limit"], gradient = limit

        def refresh(name: str) -> None:
            if name == "limit":
                data.fill(gradient)
            else:
                data.refresh()

        samples, failed = measure.take_turns(steps, case, refresh, budget, self.least, self.tell)
        for name, error in failed.items():
            by_name[name]["failed"] = first_line(error)
        for name, taken in samples.items():
            row = by_name[name]
            row["seconds"] = rounded([sample.seconds for sample in taken])
            if case.device != "cpu":
                row["host_seconds"] = rounded([sample.host or 0.0 for sample in taken])
                row["wall_seconds"] = rounded([sample.wall or 0.0 for sample in taken])
                row["waits"] = sum(sample.waits for sample in taken) > len(taken) / 2
        contenders = {name: contender for name, contender in contenders.items() if name in samples}
        for name, contender in contenders.items():
            by_name[name] |= (
                _try(by_name[name], lambda n=name, c=contender: self._memory(n, c, case), "memory_failed") or {}
            )
        return list(contenders)

    def _lacks(self, case: Case, arrays: float) -> str | None:
        """Why there is no memory for so many arrays of the parameters' size; None if there is."""
        needed, free = arrays * case.shapes.elements * case.itemsize + SPARE, measure.free_bytes(case.device)
        if needed <= free:
            return None
        return f"out of memory: needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"

    def _set_up(
        self,
        case: Case,
        name: str,
        budget: float,
        data: measure.Data,
        state: dict[Any, dict[str, Any]],
        row: dict[str, Any],
    ) -> Contender:
        peer, tensors = all_peers()[name], len(case.shapes.tensors)
        if tensors >= self._too_many.get(name, tensors + 1):
            raise Unavailable(
                f"not ready after {self.setup:.0f} s with {self._too_many[name]:,} tensors in another case"
            )
        try:
            with measure.limited(self.setup):
                row["update_error"] = float(f"{checked(peer, case):.3g}")
                if why := self._lacks(case, getattr(peer, "arrays", OWN_STATE)):
                    raise Unavailable(why)
                contender = peer.make(case, data.params, state)
                contender.step()
                for _ in range(2):  # once more if the first was disturbed
                    seconds = _waited(contender)
                    if seconds * self.least <= budget:
                        return contender
        except measure.TooLong:
            self._too_many[name] = tensors
            raise
        raise Unavailable(f"a step takes {seconds:.2g} s: too long for {self.least} of them in {budget:.2g} s")

    def _set_up_limit(self, case: Case) -> tuple[Callable[[], Any], torch.Tensor]:
        arrays = 2 + len(case.rule.states) if case.device == "cpu" else case.bytes_per_element / case.itemsize
        if why := self._lacks(case, arrays):
            raise Unavailable(why)
        step, gradient = limits.limit(case)
        step()
        return step, gradient

    def _memory(self, name: str, contender: Contender, case: Case) -> dict[str, Any]:
        state = measure.nbytes(contender.state()) / case.shapes.elements
        hidden = case.device != "cpu" and getattr(all_peers()[name], "hidden_memory", False)
        return {
            "state_bytes_per_element": float(f"{state:.4g}"),
            "bytes_per_element": float(f"{case.itemsize * (3 + case.clip) + 2 * state:.4g}"),
            # Memory of a pool that is not torch's, or of a graph, is in no statistics of torch's.
            "peak_bytes": None if hidden else measure.peak_bytes(contender.step, case.device),
        }

    def _host_overhead(self, case: Case, name: str) -> list[float]:
        """The same step with two elements in each tensor: what is left is paid around the arithmetic."""
        if getattr(all_peers()[name], "compiled", False):
            raise Unavailable("not measured: would compile once more")
        tiny = measure.Data(case, tiny=True)
        with measure.limited(self.setup):
            step = all_peers()[name].make(case, tiny.params, tiny.state(case)).step
            step()
            warm = case.but(cache="warm")
            taken, failed = measure.take_turns({"": step}, warm, lambda _: tiny.refresh(), HOST_SECONDS, self.least)
        for error in failed.values():
            raise error
        return rounded([sample.seconds for sample in taken[""]])


def devices_of(name: str) -> tuple[str, ...]:
    """Where a peer is at home: elsewhere it has no row."""
    devices: tuple[str, ...] = getattr(all_peers()[name], "devices", ("cpu", "cuda"))
    return devices


def _waited(contender: Contender) -> float:
    start = time.perf_counter()
    contender.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _try(row: dict[str, Any], action: Callable[[], T], key: str = "failed") -> T | None:
    """What goes wrong with one contender is told in its row, and the rest goes on."""
    try:
        return action()
    except (Unavailable, measure.TooLong) as error:
        row[key] = str(error)
    except Exception as error:  # peers raise whatever they like, out of memory included
        row[key] = first_line(error)
    return None
