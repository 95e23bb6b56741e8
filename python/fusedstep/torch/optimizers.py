"""The class of each optimizer in :mod:`fusedstep.torch`."""

from __future__ import annotations

from inspect import Signature
from typing import Any, Literal

import torch

from .. import _docs
from .._rule import RUN_TIME, Option
from .._signatures import make_class, parameter
from ..rules import ALL, Rule
from ._base import FusedOptimizer

_NAMES = {
    "__name__": "fusedstep.torch",
    "Any": Any,
    "Literal": Literal,
    "Tensor": torch.Tensor,
}
# What every class has beside torch's: type and default.
OURS: dict[str, tuple[str, Any]] = {
    "max_norm": ("float | None", RUN_TIME["max_norm"]),
    "clip_value": ("float | None", RUN_TIME["clip_value"]),
    "error_if_nonfinite": ("bool", False),
    "nonfinite": ('Literal["propagate", "skip", "raise"]', RUN_TIME["nonfinite"]),
    "norm_group": ("Any", None),
}


def _annotation_of(o: Option) -> str:
    """Tensors are taken where torch takes them."""
    if o.kind == "pair":
        return "tuple[float | Tensor, float | Tensor]"
    return "float | Tensor" if o.name == "lr" else o.annotation


def _signature_of(rule: type[Rule]) -> Signature:
    options = [parameter(n, _annotation_of(o), o.default, o.keyword_only) for n, o in rule.options.items()]
    ours = [parameter(n, annotation, default, True) for n, (annotation, default) in OURS.items()]
    return Signature([parameter("self"), parameter("params"), *options, *ours], return_annotation="None")


def _doc_of(rule: type[Rule]) -> str:
    entries = [("params", "tensors, named tensors or groups, as torch.optim takes them")]
    entries += [(n, o.text + _docs.default_of(o)) for n, o in rule.options.items()]
    entries.append((", ".join(OURS), "see :class:`FusedOptimizer`"))
    return f"{_docs.text_of(rule)}\n\n{_docs.arguments(entries)}\n"


def _class_of(rule: type[Rule]) -> Any:
    torchs = (getattr(torch.optim, rule.torch_class),) if rule.torch_class else ()
    keys = tuple(n for n, o in rule.options.items() if o.kind != "torch" or n == "capturable")
    members = {"_rule": rule, "_keys": keys}
    return make_class((FusedOptimizer, *torchs), _signature_of(rule), _doc_of(rule), _NAMES, members)


globals().update({rule.__name__: _class_of(rule) for rule in ALL})
__all__ = [rule.__name__ for rule in ALL]
