"""optimi as its constructors choose by default: a loop on the CPU, Triton on a GPU.

Its moments are kept divided by their bias corrections, so arrays of other optimizers cannot be shared.
"""

from __future__ import annotations

from harness.peers._common import ADAM, Package

LION, SGD = ("lr", "betas", "weight_decay"), ("lr", "momentum", "weight_decay")
KNOWN = {"SGD": SGD, "Adam": ADAM, "AdamW": ADAM, "Lion": LION}
PEERS = [Package("optimi", "torch-optimi", "optimi", KNOWN, fresh=True)]
