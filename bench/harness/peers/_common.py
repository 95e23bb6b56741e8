"""What several peers need; no peer itself."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Contender, Unavailable, first_line
from harness.peers.torch_ import clipped, tensors_of

SIXTEEN = ("float32", "bfloat16", "float16")
ADAM = ("lr", "betas", "eps", "weight_decay")


def load(module: str) -> Any:
    """Import a peer's package; Unavailable says whether it is absent or broken."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # what an import runs may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
            raise Unavailable("not installed") from error
        raise Unavailable(f"import fails: {first_line(error)}") from error


def options(case: Case, known: Mapping[str, Collection[str]], why: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The rule's options that a peer knows, by class; Unavailable if it lacks one that is not the default."""
    if case.rule.cls not in known:
        raise Unavailable(f"has no {case.rule.cls}")
    unset, given = case.rule.spec.defaults, case.rule.options
    for name, value in given.items():
        if name not in known[case.rule.cls] and value != unset[name]:
            raise Unavailable((why or {}).get(name, f"{case.rule.cls} has no {name}"))
    return {name: given[name] for name in known[case.rule.cls]}


def on(case: Case, devices: Collection[str], dtypes: Collection[str] | None = None) -> None:
    """Unavailable on other devices or for other dtypes than a peer's."""
    if case.device not in devices:
        raise Unavailable("runs on the CPU only" if "cpu" in devices else "runs on a GPU only")
    if dtypes is not None and case.dtype not in dtypes:
        raise Unavailable(f"no {case.dtype} parameters")


def steps_taken(entry: Mapping[str, Any] | None) -> int:
    """Of a parameter's state in torch's format; SGD's has no count, and no buffer before the first step."""
    return int(entry["step"]) if entry and "step" in entry else int(bool(entry))


@dataclass(frozen=True)
class Package:
    """A peer whose optimizers are classes as torch's, in a package; clipping with ``clip_grad_norm_``."""

    name: str
    distribution: str
    module: str  # that has the classes
    known: Mapping[str, Collection[str]]  # the options of each class of fusedstep's that it has
    spelled: str = "{}"  # its name of such a class
    tolerance: float = 1e-3
    fresh: bool = False
    compiled: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: Collection[str] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)  # more of its constructors
    why: Mapping[str, str] = field(default_factory=dict)  # what to say of an option that it lacks

    def prepare(self) -> None:
        load(self.module)

    def construct(self, case: Case, params: list[Any], chosen: dict[str, Any]) -> Any:
        return getattr(load(self.module), self.spelled.format(case.rule.cls))(params, **chosen, **self.arguments)

    def share(self, optimizer: Any, case: Case, state: dict[Any, dict[str, Any]]) -> None:
        """Give it the shared state, unless it is ``fresh``."""

    def tensors(self, optimizer: Any) -> list[torch.Tensor]:
        return tensors_of(optimizer.state)

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, self.devices, self.dtypes)
        optimizer = self.construct(case, params, options(case, self.known, self.why))
        if not self.fresh:
            self.share(optimizer, case, state)
        step = clipped(optimizer.step, case, params, True if case.device != "cpu" else None)  # the fast path there
        return Contender(step, lambda: self.tensors(optimizer))
