"""torchao's low-bit Adam and AdamW, clipping with ``clip_grad_norm_``.

Each step goes through ``torch.compile``, one compilation per shape, so the first ones take seconds. Tensors of fewer
than 4,096 elements, or of a number that is no multiple of the block (256; 128 with 4 bits), are not quantised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import contend, load, on, options

KNOWN = ("lr", "betas", "eps", "weight_decay")
# Of 0.18 with torch 2.13: its tensor subclasses do not implement aten.maximum, which amsgrad=True leads to.
WHY = {"amsgrad": "AMSGrad fails to compile: its low-bit tensors have no maximum"}


@dataclass(frozen=True)
class TorchAO:
    name: str
    suffix: str
    tolerance: float
    distribution: str | None = "torchao"
    fresh: bool = True
    compiled: bool = True

    def prepare(self) -> None:
        load("torchao.optim")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, dtypes=("float32", "bfloat16"))
        if case.rule.cls not in ("Adam", "AdamW"):
            raise Unavailable(f"has no {case.rule.cls}")
        # It makes a tensor of the learning rate itself; a number would be compiled in.
        optimizer = getattr(load("torchao.optim"), case.rule.cls + self.suffix)(params, **options(case, KNOWN, WHY))
        return contend(optimizer, case, params)


# Over 5 steps the update is off by 0.9%, 14% and 1.7%.
PEERS = [
    TorchAO("torchao 8-bit", "8bit", 0.03),
    TorchAO("torchao 4-bit", "4bit", 0.4),
    TorchAO("torchao fp8", "Fp8", 0.05),
]
