"""optimi as its constructors choose by default: a loop on the CPU, Triton on a GPU; clipping with ``clip_grad_norm_``.

Its moments are kept divided by their bias corrections, so arrays of other optimizers cannot be shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import contend, load, options

KNOWN = {
    "SGD": ("lr", "momentum", "weight_decay"),
    "Adam": ("lr", "betas", "eps", "weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
}


@dataclass(frozen=True)
class Optimi:
    name: str = "optimi"
    distribution: str | None = "torch-optimi"
    tolerance: float = 1e-3
    fresh: bool = True

    def prepare(self) -> None:
        load("optimi")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        if case.rule.cls not in KNOWN:
            raise Unavailable(f"has no {case.rule.cls}")
        chosen = options(case, KNOWN[case.rule.cls])
        return contend(getattr(load("optimi"), case.rule.cls)(params, **chosen), case, params)


PEERS = [Optimi()]
