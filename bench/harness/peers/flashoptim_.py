"""flashoptim as its constructors choose by default: states in 8 bits, kernels in Triton.

Parameters of 16 bits have their error corrected with 8 more, which float32 parameters cannot have.
"""

from __future__ import annotations

from typing import Any

import torch

from harness.cases import Case
from harness.peers._common import ADAM, SIXTEEN, Package

# Its dampening begins at the first step.
KNOWN = {"SGD": ("lr", "momentum", "nesterov", "weight_decay"), "Adam": ADAM, "AdamW": ADAM}
TOLERANCE = 0.02  # over 5 steps 0.5% where its quantisation is emulated on a CPU; not run on a GPU


def parts(value: Any) -> list[torch.Tensor]:
    """Of one state: a tensor, or its class that holds either the data or numbers of 8 bits and their scales."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [value.quantized, value.scales] if value.is_quantized() else [value.data]


class FlashOptim(Package):
    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        correction = None if case.dtype == "float32" else 24
        return super().construct(case, params, {**chosen, "master_weight_bits": correction})

    def tensors(self, optimizer: Any) -> list[torch.Tensor]:
        return [t for entry in optimizer.state.values() for value in entry.values() for t in parts(value)]


HOW = {"fresh": True, "devices": ("cuda",), "dtypes": SIXTEEN}
PEERS = [FlashOptim("flashoptim", "flashoptim", "flashoptim", KNOWN, "Flash{}", TOLERANCE, **HOW)]
