"""timm's optimizers as it chooses by default: a loop on the CPU, torch._foreach functions on a GPU."""

from __future__ import annotations

from typing import Any

from harness.cases import Case
from harness.peers._common import ADAM, Package

KNOWN = {
    "AdaBelief": (*ADAM, "rectify", "amsgrad"),
    "Adan": (*ADAM, "no_prox"),
    "ADOPT": (*ADAM, "clip_exp"),
    "LaProp": ADAM,
    "Lion": ("lr", "betas", "weight_decay"),
}


class Timm(Package):
    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        import timm.optim

        cls = timm.optim.Adopt if case.rule.cls == "ADOPT" else getattr(timm.optim, case.rule.cls)
        return cls(params, **chosen)


PEERS = [Timm("timm", "timm", "timm.optim", KNOWN, fresh=True, dtypes=("float32", "float64"))]
