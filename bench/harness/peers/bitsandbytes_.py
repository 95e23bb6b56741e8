"""bitsandbytes with states in 32 and 8 bits. Its 8-bit classes keep tensors of fewer than 4,096 elements in 32 bits."""

from __future__ import annotations

from typing import Any

from harness.cases import Case
from harness.peers import Unavailable
from harness.peers._common import ADAM, SIXTEEN, Package, steps_taken

KNOWN = {
    "SGD": ("lr", "momentum", "weight_decay"),
    "Adagrad": ("lr", "eps", "weight_decay"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay"),
    "Adam": ("lr", "betas", "eps"),  # its weight_decay is AdamW's
    "AdamW": ADAM,
    "Lion": ("lr", "betas", "weight_decay"),
}
WHY = {
    "momentum": "ignores RMSprop's momentum without a word",
    "centered": "rejects centered RMSprop",
    "amsgrad": "has no AMSGrad: ignored with 32 bits, rejected with 8",
    "weight_decay": "Adam decays weights as AdamW does",
    "nesterov": "ignores nesterov without a word",
    "dampening": "ignores dampening without a word",
}


class BitsAndBytes(Package):
    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        if case.rule.cls == "SGD" and not chosen["momentum"]:
            raise Unavailable("rejects SGD without momentum")
        if (case.rule.cls, self.fresh) == ("Lion", True):
            raise Unavailable("8 bits change signs, which are all that Lion takes: its update is off by 4.2%")
        return super().construct(case, params, chosen)

    def share(self, optimizer: Any, case: Case, state: dict[Any, dict[str, Any]]) -> None:
        if case.state_dtype.itemsize == 4:  # states are float32 whatever the parameters are
            for p, entry in state.items():
                arrays = {f"state{i}": entry[name] for i, name in enumerate(case.rule.states, 1)}
                optimizer.state[p] = {"step": steps_taken(entry), **arrays}


def with_bits(bits: int, tolerance: float) -> Package:
    names = f"bitsandbytes {bits}-bit", "bitsandbytes", "bitsandbytes.optim"
    return BitsAndBytes(*names, KNOWN, f"{{}}{bits}bit", tolerance, fresh=bits == 8, dtypes=SIXTEEN, why=WHY)


# With 8 bits, over 5 steps: Adam 1.0%, SGD with momentum 0.9%, others 0.5%.
PEERS = [with_bits(32, 1e-3), with_bits(8, 0.03)]
