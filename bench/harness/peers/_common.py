"""What several peers need; no peer itself."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers.torch_ import clipped, tensors_of


def load(module: str) -> Any:
    """Import a peer's package; Unavailable says whether it is absent or broken."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # what an import runs may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
            raise Unavailable("not installed") from error
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise Unavailable(f"import fails: {type(error).__name__}: {text}") from error


def all_options(case: Case) -> dict[str, Any]:
    """The rule's options in torch's names, defaults included: a peer's own defaults may be others."""
    return {**case.rule.spec.defaults, **case.rule.options}


def options(case: Case, known: Collection[str], why: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Those of :func:`all_options` that a peer knows; Unavailable if one that it does not know is not the default."""
    unset = case.rule.spec.defaults
    given = all_options(case)
    for name, value in given.items():
        if name not in known and value != unset[name]:
            raise Unavailable((why or {}).get(name, f"{case.rule.cls} has no {name}"))
    return {name: given[name] for name in known}


def on(case: Case, device: str | None = None, dtypes: Collection[str] | None = None) -> None:
    """Unavailable on other devices or for other dtypes than a peer's."""
    if device is not None and (case.device == "cpu") != (device == "cpu"):
        raise Unavailable("runs on the CPU only" if device == "cpu" else "runs on a GPU only")
    if dtypes is not None and case.dtype not in dtypes:
        raise Unavailable(f"no {case.dtype} parameters")


def steps_taken(entry: Mapping[str, Any] | None) -> int:
    """Of a parameter's state in torch's format; SGD's has no count, and no buffer before the first step."""
    return int(entry["step"]) if entry and "step" in entry else int(bool(entry))


def contend(optimizer: torch.optim.Optimizer, case: Case, params: list[Any]) -> Contender:
    """A torch-like optimizer after ``clip_grad_norm_``, which is asked for its fast path on a GPU."""
    step = clipped(optimizer.step, case, params, True if case.device != "cpu" else None)
    return Contender(step, lambda: tensors_of(optimizer.state))
