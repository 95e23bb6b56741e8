"""flashoptim as its constructors choose by default: states in 8 bits, kernels in Triton; ``clip_grad_norm_`` before.

Parameters of 16 bits have their error corrected with 8 more, which float32 parameters cannot have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import contend, load, on, options

KNOWN = {
    "SGD": ("lr", "momentum", "nesterov", "weight_decay"),  # its dampening begins at the first step
    "Adam": ("lr", "betas", "eps", "weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
}


def tensors(value: Any) -> list[torch.Tensor]:
    """Of one state: a tensor, or its class that holds either the data or numbers of 8 bits and their scales."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [value.quantized, value.scales] if value.is_quantized() else [value.data]


@dataclass(frozen=True)
class FlashOptim:
    name: str = "flashoptim"
    devices: tuple[str, ...] = ("cuda",)
    distribution: str | None = "flashoptim"
    tolerance: float = 0.02  # over 5 steps 0.5% where its quantisation is emulated on a CPU; not run on a GPU
    fresh: bool = True

    def prepare(self) -> None:
        load("flashoptim")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, "cuda", ("float32", "bfloat16", "float16"))
        if case.rule.cls not in KNOWN:
            raise Unavailable(f"has no {case.rule.cls}")
        chosen = options(case, KNOWN[case.rule.cls])
        correction = None if case.dtype == "float32" else 24
        optimizer = getattr(load("flashoptim"), f"Flash{case.rule.cls}")(
            params, **chosen, master_weight_bits=correction
        )
        step = contend(optimizer, case, params).step
        return Contender(
            step, lambda: [t for entry in optimizer.state.values() for v in entry.values() for t in tensors(v)]
        )


PEERS = [FlashOptim()]
