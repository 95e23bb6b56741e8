"""The class of each optimizer in :mod:`fusedstep.numpy`."""

from __future__ import annotations

from inspect import Signature
from typing import Any

from .. import _docs
from .._rule import RUN_TIME
from .._signatures import make_class, parameter
from ..rules import ALL, Rule
from ._optimizer import Optimizer

_NAMES = {"__name__": "fusedstep.numpy", "Any": Any}
_TYPES = {"max_norm": "float | None", "clip_value": "float | None", "nonfinite": "str"}


def _signature_of(rule: type[Rule]) -> Signature:
    options = [parameter(n, o.annotation, o.default, o.keyword_only) for n, o in rule.own.items()]
    run_time = [parameter(n, _TYPES[n], default, True) for n, default in RUN_TIME.items()]
    return Signature([parameter("self"), parameter("params"), *options, *run_time], return_annotation="None")


def _doc_of(rule: type[Rule]) -> str:
    entries = [("params", "one array, a list of arrays, or a list of dicts with ``params`` and options of their own")]
    entries += [(n, o.text + _docs.default_of(o)) for n, o in rule.own.items()]
    entries.append((", ".join(RUN_TIME), "see :class:`Optimizer`"))
    return f"{_docs.text_of(rule)}\n\n{_docs.example_of(rule)}\n\n{_docs.arguments(entries)}\n"


def _class_of(rule: type[Rule]) -> Any:
    return make_class((Optimizer,), _signature_of(rule), _doc_of(rule), _NAMES, {"_rule": rule})


globals().update({rule.__name__: _class_of(rule) for rule in ALL})
__all__ = [rule.__name__ for rule in ALL]
