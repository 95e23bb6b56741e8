"""NVIDIA Apex's fused optimizers, which update all tensors in a few launches; clipping with ``clip_grad_norm_``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import contend, load, on, options, steps_taken

# By class: the options it knows, and those that make it torch's class of that name.
KNOWN: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "SGD": (("lr", "momentum", "dampening", "nesterov", "weight_decay"), {}),
    "Adagrad": (("lr", "eps", "weight_decay"), {}),
    "Adam": (("lr", "betas", "eps", "weight_decay"), {"adam_w_mode": False}),
    "AdamW": (("lr", "betas", "eps", "weight_decay"), {"adam_w_mode": True}),
}


@dataclass(frozen=True)
class Apex:
    name: str = "apex"
    devices: tuple[str, ...] = ("cuda",)
    distribution: str | None = "apex"
    tolerance: float = 1e-3

    def prepare(self) -> None:
        load("apex.optimizers")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        # bfloat16 and float16: Adam has them with states of float32; SGD passes bfloat16 over without a word.
        on(case, "cuda", ("float32", "float16", *(("bfloat16",) if case.rule.cls in ("Adam", "AdamW") else ())))
        if case.rule.cls not in KNOWN:
            raise Unavailable(f"has no {case.rule.cls}")
        known, mode = KNOWN[case.rule.cls]
        chosen = options(case, known, {"amsgrad": "rejects AMSGrad"})
        try:
            optimizer = getattr(load("apex.optimizers"), f"Fused{case.rule.cls.removesuffix('W')}")(
                params, **chosen, **mode
            )
        except RuntimeError as error:  # installed without its CUDA extensions
            raise Unavailable(str(error)) from error
        if case.dtype == "float32" and state:
            for p, entry in state.items():
                optimizer.state[p] = {name: entry[name] for name in case.rule.states}
            if "step" in next(iter(state.values())):
                for group in optimizer.param_groups:  # its count is the group's
                    group["step"] = steps_taken(state[params[0]])
        return contend(optimizer, case, params)


PEERS = [Apex()]
