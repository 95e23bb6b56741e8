"""The class of each optimizer in :mod:`fusedstep.torch`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from .._rule import DECAY_LR, ERROR_IF_NONFINITE, GRAD_ATTR, OF_A_RUN, RIDES, SEED, Option, of_call
from .._signatures import make_class
from ..rules import ALL, Rule
from ._base import FusedOptimizer

_NAMES: dict[str, Any] = {"__name__": "fusedstep.torch", "Any": Any, "Literal": Literal, "Mapping": Mapping}
_NAMES |= {"Tensor": torch.Tensor, "dtype": torch.dtype}
_PARAMS = "tensors, named tensors or groups, as torch.optim takes them"
_NORM_GROUP = of_call("norm_group", None, "Any", "a process group whose ranks hold the rest of a sharded model")
# What every class has beside torch's.
OURS: dict[str, Option] = {**OF_A_RUN, **{o.name: o for o in (ERROR_IF_NONFINITE, SEED, GRAD_ATTR, _NORM_GROUP)}}
OURS |= {**RIDES, DECAY_LR.name: DECAY_LR}
OURS["state_dtype"] = replace(OURS["state_dtype"], annotation="str | dtype | Mapping[str, str | dtype] | None")


def _own(rule: type[Rule]) -> Iterator[Option]:
    """Tensors are taken where torch takes them."""
    for o in rule.options.values():
        if o.kind == "several" or o.name == "lr":
            yield replace(o, annotation=re.sub(r"\bfloat\b", "float | Tensor", o.annotation))
        else:
            yield o


def _class_of(rule: type[Rule]) -> Any:
    torchs = (getattr(torch.optim, rule.torch_class),) if rule.torch_class else ()
    keys = tuple(n for n, o in rule.options.items() if o.kind != "torch" or n == "capturable")
    return make_class(rule, (FusedOptimizer, *torchs), _PARAMS, _own(rule), OURS, _NAMES, _keys=keys)


globals().update({rule.__name__: _class_of(rule) for rule in ALL})
__all__ = [rule.__name__ for rule in ALL]
