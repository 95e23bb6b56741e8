"""The class of each optimizer in :mod:`fusedstep.numpy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import DTypeLike

from .. import _docs
from .._rule import DECAY_LR, OF_A_RUN, RIDES, RUN_TIME, SEED
from .._signatures import make_class
from ..rules import ALL, Rule
from ._optimizer import Optimizer

_NAMES: dict[str, Any] = {"__name__": "fusedstep.numpy", "Any": Any, "Literal": Literal}
_NAMES |= {"DTypeLike": DTypeLike, "Mapping": Mapping}
_SHARED = {**OF_A_RUN, "seed": SEED, **RIDES, "decay_lr": DECAY_LR}
_SHARED["state_dtype"] = replace(RUN_TIME["state_dtype"], annotation="DTypeLike | Mapping[str, DTypeLike] | None")
_PARAMS = "one array, a list of arrays, or a list of dicts with ``params`` and options of their own"


def _class_of(rule: type[Rule]) -> Any:
    example = _docs.example_of(rule)
    return make_class(rule, (Optimizer,), _PARAMS, rule.own.values(), _SHARED, _NAMES, example)


globals().update({rule.__name__: _class_of(rule) for rule in ALL})
__all__ = [rule.__name__ for rule in ALL]
