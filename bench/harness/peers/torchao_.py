"""torchao's low-bit Adam and AdamW.

Each step goes through ``torch.compile``, one compilation per shape, so the first ones take seconds. Tensors of fewer
than 4,096 elements, or of a number that is no multiple of the block (256; 128 with 4 bits), are not quantised.
"""

from __future__ import annotations

from harness.peers._common import ADAM, Package

# Of 0.18 with torch 2.13: its tensor subclasses do not implement aten.maximum, which amsgrad=True leads to.
WHY = {"amsgrad": "AMSGrad fails to compile: its low-bit tensors have no maximum"}


def low_bit(name: str, suffix: str, tolerance: float) -> Package:
    known, dtypes = {"Adam": ADAM, "AdamW": ADAM}, ("float32", "bfloat16")
    how = {"fresh": True, "compiled": True}
    return Package(name, "torchao", "torchao.optim", known, f"{{}}{suffix}", tolerance, **how, dtypes=dtypes, why=WHY)


# Over 5 steps the update is off by 0.9%, 14% and 1.7%.
PEERS = [
    low_bit("torchao 8-bit", "8bit", 0.03),
    low_bit("torchao 4-bit", "4bit", 0.4),
    low_bit("torchao fp8", "Fp8", 0.05),
]
