"""The class of each optimizer in :mod:`fusedstep.numpy`."""

from __future__ import annotations

from typing import Any, Literal

from .. import _docs
from .._rule import RUN_TIME
from .._signatures import make_class
from ..rules import ALL, Rule
from ._optimizer import Optimizer

_NAMES = {"__name__": "fusedstep.numpy", "Any": Any, "Literal": Literal}
_PARAMS = "one array, a list of arrays, or a list of dicts with ``params`` and options of their own"


def _class_of(rule: type[Rule]) -> Any:
    example = _docs.example_of(rule)
    return make_class(rule, (Optimizer,), _PARAMS, rule.own.values(), RUN_TIME, _NAMES, example)


globals().update({rule.__name__: _class_of(rule) for rule in ALL})
__all__ = [rule.__name__ for rule in ALL]
