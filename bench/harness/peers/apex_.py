"""NVIDIA Apex's fused optimizers, which update all tensors in a few launches."""

from __future__ import annotations

from typing import Any

from harness.cases import Case
from harness.peers import Unavailable
from harness.peers._common import ADAM, SIXTEEN, Package, load, on, steps_taken

KNOWN = {
    "SGD": ("lr", "momentum", "dampening", "nesterov", "weight_decay"),
    "Adagrad": ("lr", "eps", "weight_decay"),
    "Adam": ADAM,
    "AdamW": ADAM,
}


class Apex(Package):
    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        # 16 bits: Adam has them with states of float32; SGD passes bfloat16 over without a word.
        if case.rule.cls not in ("Adam", "AdamW"):
            on(case, self.devices, ("float32", "float16"))
        else:
            chosen = {**chosen, "adam_w_mode": case.rule.cls == "AdamW"}
        try:
            return getattr(load(self.module), f"Fused{case.rule.cls.removesuffix('W')}")(params, **chosen)
        except RuntimeError as error:  # installed without its CUDA extensions
            raise Unavailable(str(error)) from error

    def share(self, optimizer: Any, case: Case, state: dict[Any, dict[str, Any]]) -> None:
        if case.state_dtype.itemsize == 4:
            for p, entry in state.items():
                optimizer.state[p] = {name: entry[name] for name in case.rule.states}
                if "step" in entry:
                    for group in optimizer.param_groups:  # its count is the group's
                        group["step"] = steps_taken(entry)


WHY = {"amsgrad": "rejects AMSGrad"}
PEERS = [Apex("apex", "apex", "apex.optimizers", KNOWN, devices=("cuda",), dtypes=SIXTEEN, why=WHY)]
