"""fusedstep itself, clipping within the step; on a GPU also replayed from a CUDA graph; in float32 beside 16 bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import fusedstep.torch
from fusedstep import _core
from harness.cases import Case
from harness.measure import mask_of
from harness.peers import Contender, Unavailable
from harness.peers.torch_ import adopt, capturable, captured, tensors_of


def core_of(case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Callable[[], Any]:
    """The call into the core alone: its group is kept, and the arrays are in lists already."""
    spec, options = case.rule.spec, {**case.rule.options, "max_norm": case.max_norm, "state_dtype": case.state}
    group = spec.group(case.rule.cls, options)
    states = [[state[p][key] for p in params] for key in spec.state_keys(options)]
    weights, grads = [p.detach() for p in params], [p.grad for p in params]
    on_gpu = case.device != "cpu" and case.clip  # else the call would wait for the norm
    norm = torch.empty((), dtype=torch.float64, device=case.device) if on_gpu else None
    steps = itertools.count(2)

    def core() -> None:
        lists = (group, weights, grads, states, next(steps), None, None)
        _core.step_arrays(
            [lists], grad_scale=1.0, norm_type=2.0, per_tensor=False, nonfinite="propagate", norm_out=norm
        )

    return core


@dataclass(frozen=True)
class FusedStep:
    name: str
    graph: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    arrays: float = 0
    dtype: str | None = None
    distribution: str | None = "fusedstep"
    tolerance: float = 0.0
    takes: str = "both"

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        if case.rule.clips_alone:
            if self.graph:
                raise Unavailable("clipping alone is measured without a graph")
            return Contender(lambda: fusedstep.torch.clip_grad_norm_(params, case.max_norm), list)
        cls = fusedstep.torch.get(case.rule.cls)
        options = {**case.rule.chosen, **capturable(case, self.graph), "max_norm": case.max_norm, **case.ride_options}
        optimizer = cls(params, **options, **({"state_dtype": case.state} if case.state else {}))
        adopt(optimizer, state, counts_on_device=self.graph)
        if case.ride == "mask":
            optimizer.set_mask({p: mask_of(p.shape).to(p.device) for p in params})
        draws = case.rule.spec.draws(case.rule.cls, {**case.rule.options, "state_dtype": case.state})
        for k, entry in enumerate(optimizer.state.values()):
            # A number beside the step count lies where its parameter does.
            entry.update({s.name: entry[s.name].to(params[0].device) for s in case.rule.spec.numbers})
            if draws:  # as the optimizer makes it: the step count is exact beyond 2**24
                entry.update(tensor_id=k, step=entry["step"].double())
        if self.graph:
            return Contender(captured(optimizer.step, case), lambda: tensors_of(optimizer.state))
        core = core_of(case, params, optimizer.state) if state and not case.ride else None
        return Contender(optimizer.step, lambda: tensors_of(optimizer.state), core)


PEERS = [
    FusedStep("fusedstep"),
    FusedStep("fusedstep graph", graph=True, devices=("cuda",)),
    FusedStep("fusedstep float32", dtype="float32", arrays=6),
]
