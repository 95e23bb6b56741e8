"""fusedstep itself, clipping within the step; on a GPU also replayed from a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fusedstep.torch
from harness.cases import Case
from harness.peers import Contender
from harness.peers.torch_ import adopt, captured, tensors_of


@dataclass(frozen=True)
class FusedStep:
    name: str
    graph: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    arrays: float = 0
    hidden_memory: bool = True  # its scratch on a GPU comes from a pool of its own
    distribution: str | None = "fusedstep"
    tolerance: float = 0.0

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        flags = {"capturable": True} if self.graph and "capturable" in case.rule.spec.options else {}
        make = getattr(fusedstep.torch, case.rule.cls)
        optimizer = make(params, **case.rule.options, **flags, max_norm=case.max_norm)
        adopt(optimizer, state, counts_on_device=self.graph)
        step = captured(optimizer.step, case) if self.graph else optimizer.step
        return Contender(step, lambda: tensors_of(optimizer.state))


PEERS = [FusedStep("fusedstep"), FusedStep("fusedstep graph", graph=True, devices=("cuda",))]
