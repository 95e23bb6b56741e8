"""optimi as its constructors choose by default: a loop on the CPU, Triton on a GPU.

Parameters of 16 bits are summed up after Kahan unless it is told not to.
Its moments are kept divided by their bias corrections, so arrays of other optimizers cannot be shared.
"""

from __future__ import annotations

from harness.peers._common import ADAM, Package

LION, SGD = ("lr", "betas", "weight_decay"), ("lr", "momentum", "weight_decay")
KNOWN = {"SGD": SGD, "Adam": ADAM, "AdamW": ADAM, "Lion": LION}
PLAIN = {"dtypes": ("bfloat16", "float16"), "arguments": {"kahan_sum": False}}
PEERS = [
    Package("optimi", "torch-optimi", "optimi", KNOWN, fresh=True),
    Package("optimi without Kahan", "torch-optimi", "optimi", KNOWN, fresh=True, **PLAIN),
]
