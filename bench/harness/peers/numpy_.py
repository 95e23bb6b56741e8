"""The specification as it stands in ``fusedstep.rules``: NumPy, one operation after the other, a new array for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedstep import reference
from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import on, steps_taken


@dataclass(frozen=True)
class NumPy:
    name: str = "numpy"
    devices: tuple[str, ...] = ("cpu",)
    arrays: float = 6  # temporaries
    distribution: str | None = None
    tolerance: float = 1e-3  # its norm is NumPy's own

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, self.devices)
        if "bfloat16" in (case.dtype, case.state):
            raise Unavailable("NumPy has no bfloat16")
        if case.rule.clips_alone:
            raise Unavailable("clips within its step")
        rule = case.rule
        weights, grads = [p.detach().numpy() for p in params], [p.grad.numpy() for p in params]
        starts = rule.spec.starts(rule.options)
        states: list[dict[str, Any]] = []
        for p, w in zip(params, weights, strict=True):
            kept: dict[str, Any] = {k: state[p][k].numpy() for k in starts} if state else {}
            kept = kept or {k: np.full(w.shape, x, str(case.state_dtype)[6:]) for k, x in starts.items()}
            first = rule.spec.number_starts(rule.options)
            numbers = {n: np.array(float(state[p][n]) if state else x, "f4") for n, x in first.items()}
            states.append({**kept, **numbers})
        count = steps_taken(state.get(params[0]))

        def step() -> None:
            nonlocal count
            count += 1
            coefficient = 1.0
            if case.max_norm is not None:
                wide = (np.asarray(g, np.promote_types(g.dtype, "f4")) for g in grads)
                norm = math.sqrt(sum(float(np.vdot(g, g)) for g in wide))
                coefficient = reference.clip_coefficient(norm, case.max_norm)
            for w, g, kept in zip(weights, grads, states, strict=True):
                new = dict(kept)
                w[...] = rule.step(w, g, new, count, coefficient)
                for name, array in kept.items():
                    array[...] = new[name]

        return Contender(step, lambda: [array for kept in states for array in kept.values()])


PEERS = [NumPy()]
