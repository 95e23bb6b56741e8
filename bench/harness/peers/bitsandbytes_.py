"""bitsandbytes with states in 32 and 8 bits, clipping with ``clip_grad_norm_``.

Its 8-bit classes keep tensors of fewer than 4,096 elements in 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import contend, load, on, options, steps_taken

KNOWN = {
    "SGD": ("lr", "momentum", "weight_decay"),
    "Adagrad": ("lr", "eps", "weight_decay"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay"),
    "Adam": ("lr", "betas", "eps"),  # its weight_decay is AdamW's
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
}
WHY = {
    "momentum": "ignores RMSprop's momentum without a word",
    "centered": "rejects centered RMSprop",
    "amsgrad": "has no AMSGrad: ignored with 32 bits, rejected with 8",
    "weight_decay": "Adam decays weights as AdamW does",
    "nesterov": "ignores nesterov without a word",
    "dampening": "ignores dampening without a word",
}


@dataclass(frozen=True)
class BitsAndBytes:
    name: str
    bits: int
    tolerance: float
    distribution: str | None = "bitsandbytes"

    @property
    def fresh(self) -> bool:
        return self.bits == 8

    def prepare(self) -> None:
        load("bitsandbytes")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, dtypes=("float32", "bfloat16", "float16"))
        if case.rule.cls not in KNOWN:
            raise Unavailable(f"has no {case.rule.cls}")
        chosen = options(case, KNOWN[case.rule.cls], WHY)
        if case.rule.cls == "SGD" and not chosen["momentum"]:
            raise Unavailable("rejects SGD without momentum")
        optimizer = getattr(load("bitsandbytes").optim, f"{case.rule.cls}{self.bits}bit")(params, **chosen)
        if self.bits == 32 and case.dtype == "float32":  # states are float32 whatever the parameters are
            for p, entry in state.items():
                arrays = {f"state{i}": entry[name] for i, name in enumerate(case.rule.states, 1)}
                optimizer.state[p] = {"step": steps_taken(entry), **arrays}
        return contend(optimizer, case, params)


PEERS = [
    BitsAndBytes("bitsandbytes 32-bit", 32, 1e-3),
    BitsAndBytes("bitsandbytes 8-bit", 8, 0.03),  # over 5 steps: Adam 1.0%, SGD with momentum 0.9%, others 0.5%
]
