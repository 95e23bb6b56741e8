"""One case: every peer set up, checked against the specification, and timed in turns with the others and the limit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

import fusedstep
from harness import limits, measure
from harness.cases import Case
from harness.check import check
from harness.peers import Contender, Unavailable, all_peers, first_line
from harness.results import LIMIT, rounded

T = TypeVar("T")
Row = dict[str, Any]
HOST_SECONDS = 0.05  # for the host's part of each contender
LEAST_SECONDS = 1.0  # of a case, however late it is
RIDE_BYTES = {"EMA": 8, "mask": 1}  # per element, for arrays that an optimizer makes at its first step
OWN_STATE = 4  # arrays that a peer may need which says nothing of it: its own state, and temporaries
SPARE = 2**30  # bytes that stay free: a machine that swaps, or kills, measures nothing


def _prepare(name: str) -> str | None:
    """Why a peer is not here; None when it is."""
    try:
        all_peers()[name].prepare()
    except Unavailable as error:
        return str(error)
    except Exception as error:  # what a build or an import may raise
        return first_line(error)
    return None


@cache
def _checked(name: str, case: Case) -> float | str:
    """The error of a peer's update; why it is not compared."""
    try:
        return check(all_peers()[name], case)
    except Unavailable as error:
        return str(error)


class Runner:
    """Measures cases with the same peers and settings."""

    def __init__(self, peers: Sequence[str], *, least: int = 5, setup: float = 60.0) -> None:
        self.peers, self.least, self.setup = list(peers), least, setup
        self._too_many: dict[str, int] = {}  # tensors with which a peer was not ready in time: it is not tried again
        self._threads = torch.get_num_threads()
        self._target = fusedstep.active_target()
        self.missing = {name: why for name in self.peers if (why := _prepare(name))}

    def run(self, case: Case, budget: float) -> dict[str, Any]:
        """The case's entry of the result file; what fails is a row that says why."""
        torch.set_num_threads(case.threads or self._threads)
        fusedstep.use_target(case.target or self._target)
        on_cpu = case.device == "cpu"
        where = {"threads": torch.get_num_threads(), "target": fusedstep.active_target()} if on_cpu else {}
        entry: dict[str, Any] = {
            "case": {**case.describe(), **where},
            "tensors": len(case.shapes.tensors),
            "elements": case.shapes.elements,
            "rows": [],
        }
        home = {name: getattr(peer, "devices", ("cpu", "cuda")) for name, peer in all_peers().items()}
        here = [p for p in self.peers if p not in self.missing and case.device in home[p]]  # elsewhere it has no row
        here = [p for p in here if case.low or not getattr(all_peers()[p], "dtype", None)]
        takes = ("both", "rides" if case.ride else "plain")
        here = [p for p in here if getattr(all_peers()[p], "takes", "plain") in takes]
        rows: dict[str, Row] = {name: {"peer": name} for name in [*here, LIMIT]}
        try:
            self._measure(case, here, max(budget, LEAST_SECONDS), entry, rows)
        except Exception as error:  # out of memory outside of any contender, say: the other cases go on
            for row in rows.values():
                if "seconds" not in row:
                    row.setdefault("failed", first_line(error))
        finally:
            torch.set_num_threads(self._threads)
            fusedstep.use_target(self._target)
            gc.collect()
        entry["rows"] = list(rows.values())
        return entry

    def _measure(self, case: Case, names: list[str], budget: float, entry: Row, rows: dict[str, Row]) -> None:
        # What the entry says until it is known from the tensors.
        size, states = case.torch_dtype.itemsize, case.state_dtype.itemsize * len(case.rule.states)
        entry["bytes_per_element"] = size * (3 + case.clip) + 2 * states
        if why := self._lacks(case, 2 * (2 + states / size)):  # the limit has arrays of its own
            for row in rows.values():
                row["failed"] = why
            return
        data = measure.Data(case)
        shared = data, data.state(case)
        arrays = [x for own in shared[1].values() for x in own.values() if x.dim()]
        entry["bytes_by_format"] = measure.moved(case, data.params, arrays)
        entry["bytes_per_element"] = sum(entry["bytes_by_format"].values()) + RIDE_BYTES.get(case.ride or "", 0)
        contenders: dict[str, tuple[Contender, Case, measure.Data]] = {}
        for name in names:
            row = rows[name]
            made = attempted(row, lambda name=name, row=row: self._set_up(case, name, budget, shared, row))
            if made is not None:
                contenders[name] = made
        steps = {name: contender.step for name, (contender, _, _) in contenders.items()}
        if (limit := attempted(rows[LIMIT], lambda: limits.limit(case, entry["bytes_per_element"]))) is not None:
            steps[LIMIT], gradient = limit

        def refresh(name: str) -> None:
            data.fill(gradient) if name == LIMIT else contenders[name][2].refresh()

        samples, failed = measure.take_turns(steps, case.device, refresh, budget, self.least)
        for name, error in failed.items():
            rows[name]["failed"] = first_line(error)
        for name, taken in samples.items():
            row = rows[name]
            row["seconds"] = rounded([sample.seconds for sample in taken])
            if case.device != "cpu":
                row["host_seconds"] = rounded([sample.host or 0.0 for sample in taken])
                row["wall_seconds"] = rounded([sample.wall or 0.0 for sample in taken])
                row["waits"] = sum(sample.waits for sample in taken) > len(taken) / 2
            if name in contenders:
                contender, its_case, own = contenders[name]
                row["bytes_by_format"] = measure.moved(its_case, own.params, contender.state())
                row["bytes_per_element"] = float(f"{sum(row['bytes_by_format'].values()):.4g}")
        for name in samples.keys() & contenders.keys():
            contender, its_case, _ = contenders[name]
            if case.device == "cpu" or contender.core:
                row = rows[name]
                row |= attempted(row, lambda c=its_case, name=name: self._host_part(c, name), "host_failed") or {}

    def _lacks(self, case: Case, arrays: float) -> str | None:
        """Why there is no memory for so many arrays of the parameters' size; None if there is."""
        needed = arrays * case.shapes.elements * case.torch_dtype.itemsize + SPARE
        free = measure.free_bytes(case.device)
        if needed <= free:
            return None
        return f"out of memory: needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"

    def _set_up(
        self, case: Case, name: str, budget: float, shared: tuple[measure.Data, dict[Any, dict[str, Any]]], row: Row
    ) -> tuple[Contender, Case, measure.Data]:
        """A contender that can take its turns, the case as it does it, and its parameters with gradients."""
        peer, tensors = all_peers()[name], len(case.shapes.tensors)
        if dtype := getattr(peer, "dtype", None):
            case = case.but(dtype=dtype, state=None)
        if tensors >= self._too_many.get(name, tensors + 1):
            less = f"{self._too_many[name]:,} tensors in another case"
            raise Unavailable(f"not ready after {self.setup:.0f} s with {less}")
        try:
            with measure.limited(self.setup):
                if not getattr(peer, "is_part", False):
                    error = _checked(name, case.but(shapes=None, threads=None))  # the check brings its shapes
                    if isinstance(error, str):
                        raise Unavailable(error)
                    row["update_error"] = float(f"{error:.3g}")
                if why := self._lacks(case, getattr(peer, "arrays", OWN_STATE)):
                    raise Unavailable(why)
                data, state = shared
                if dtype:
                    data = measure.Data(case)
                    state = data.state(case)
                contender = peer.make(case, data.params, state)
                contender.step()
                two = [measure.sampler(case.device)(contender.step) for _ in range(2)]  # one may be disturbed
                seconds = min(sample.wall or sample.seconds for sample in two)
                if seconds * self.least <= budget:
                    return contender, case, data
        except measure.TooLong:
            self._too_many[name] = tensors
            raise
        raise Unavailable(f"a step takes {seconds:.2g} s: too long for {self.least} of them in {budget:.2g} s")

    def _host_part(self, case: Case, name: str) -> dict[str, list[float]]:
        """The same step with two elements in each tensor: what is left is paid around the arithmetic.

        ``host_seconds``: the whole step, which on a GPU the real step has told already. ``core_seconds``: the call
        into the compiled core alone.
        """
        if getattr(all_peers()[name], "compiled", False):
            raise Unavailable("not measured: would compile once more")
        tiny = measure.Data(case, tiny=True)
        with measure.limited(self.setup):
            contender = all_peers()[name].make(case, tiny.params, tiny.state(case))
            steps = {"host_seconds": contender.step} if case.device == "cpu" else {}
            if contender.core:
                steps["core_seconds"] = contender.core
            for step in steps.values():
                step()
            taken, failed = measure.take_turns(
                steps, case.device, lambda _: tiny.refresh(), HOST_SECONDS * len(steps), self.least
            )
        for error in failed.values():
            raise error
        return {name: rounded([s.host or s.seconds for s in samples]) for name, samples in taken.items()}


def attempted(row: Row, action: Callable[[], T], key: str = "failed") -> T | None:
    """What goes wrong with one contender is told in its row, and the rest goes on."""
    try:
        return action()
    except (Unavailable, measure.TooLong) as error:
        row[key] = str(error)
    except Exception as error:  # peers raise whatever they like, out of memory included
        row[key] = first_line(error)
    return None
