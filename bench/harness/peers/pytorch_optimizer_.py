"""pytorch_optimizer by torch._foreach functions, its default, and as a loop, which is faster for some rules."""

from __future__ import annotations

from typing import Any

from harness.cases import Case
from harness.peers import Unavailable
from harness.peers._common import ADAM, Package

KNOWN = {
    "AdaBelief": (*ADAM, "rectify"),
    "AdEMAMix": (*ADAM, "alpha"),
    "Adan": ADAM,
    "ADOPT": ADAM,
    "LaProp": ADAM,
    "Lion": ("lr", "betas", "weight_decay"),
    "SignSGD": ("lr", "momentum", "weight_decay"),
    "Yogi": (*ADAM, "initial_accumulator"),
}


class PytorchOptimizer(Package):
    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        given = case.rule.options
        if case.rule.cls == "LaProp":
            raise Unavailable("LaProp adds 1e-15 to the mean of squares: its update is off by 1.3%")
        if case.rule.cls == "ADOPT":  # counts from 1 where the authors' code counts from 0
            chosen["clip_lambda"] = lambda step: (step - 1) ** given["clip_exp"]
        return super().construct(case, params, {**chosen, "weight_decouple": case.rule.spec.is_decoupled(given)})


def peer(name: str, **arguments: Any) -> Package:
    how = {"fresh": True, "dtypes": ("float32", "float64"), "arguments": arguments}
    return PytorchOptimizer(name, "pytorch_optimizer", "pytorch_optimizer", KNOWN, **how)


PEERS = [peer("pytorch_optimizer"), peer("pytorch_optimizer loop", foreach=False)]
