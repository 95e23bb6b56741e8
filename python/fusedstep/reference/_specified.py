"""The specification of each optimizer as a function of :mod:`fusedstep.reference`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Signature, signature
from typing import Any

import numpy as np

from .._arithmetic import Array, after, before, kept, masked, moved_average
from .._formats import decode, encode_like, stochastic_key
from .._signatures import KEYWORD_ONLY, POSITIONAL, make, parameter
from ..rules import ALL, Rule
from ._sums import statistics

_NAMES = {"__name__": "fusedstep.reference", "Any": Any, "Array": Array, "Mapping": Mapping}


def _signature_of(rule: type[Rule]) -> Signature:
    """``(param, grad, *states, *, step, numbers, ...)`` with step in any case, then what every function takes."""
    own = list(signature(rule.specification).parameters.values())
    states = [parameter(p.name, p.annotation, p.default) for p in own[2:] if p.kind is POSITIONAL]
    keywords = [p.replace(annotation=str(p.annotation)) for p in own if p.kind is KEYWORD_ONLY]
    if not rule.needs_step:
        keywords.insert(0, parameter("step", "int", 1, True))
    common = [
        p.replace(annotation=str(p.annotation), default=rule.decoupled if name == "decoupled" else p.default)
        for name, p in (signature(before).parameters | signature(after).parameters).items()
        if p.kind is KEYWORD_ONLY
    ]
    arrays = [parameter("param", "Array"), parameter("grad", "Array"), *states]
    beside = [
        parameter("starts", "Mapping[str, float] | None", None, True),
        parameter("ema", "Array | None", None, True),
        parameter("ema_weight", "float", 1.0, True),
        parameter("stats", "Array | None", None, True),
    ]
    if "weight_decay" in {p.name for p in keywords}:  # of the direction, or before it
        inside = rule.decay_inside(rule.defaults)
        common = [p for p in common if p.name != "weight_decay"] + [parameter("decay_inside", "bool", inside, True)]
    drawn = [parameter("seed", "int", 0, True), parameter("tensor", "int", 0, True)]
    return Signature([*arrays, *keywords, *common, *beside, *drawn], return_annotation="tuple[Array, ...]")


_BEFORE, _AFTER, _STATISTICS = (
    {name for name, p in signature(f).parameters.items() if p.kind is KEYWORD_ONLY} for f in (before, after, statistics)
)


def _part(options: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {n: v for n, v in options.items() if n in names}


def _starts(rule: type[Rule], options: Mapping[str, Any], given: Mapping[str, float] | None) -> dict[str, float]:
    """What the arrays of elements that a mask leaves out become: where they start from."""
    known = {**rule.defaults, **options}
    return {s.name: float(known[s.start]) if s.start else 0.0 for s in rule.states} | dict(given or {})


def _function_of(rule: type[Rule]) -> Any:
    own = signature(rule.specification).parameters
    states = [n for n, p in own.items() if p.kind is POSITIONAL][2:]
    keywords = {n for n, p in own.items() if p.kind is KEYWORD_ONLY}

    def specified(
        param: Array,
        grad: Array,
        *given: Array,
        starts: Mapping[str, float] | None,
        ema: Array | None,
        ema_weight: float,
        stats: Array | None,
        seed: int,
        tensor: int,
        **options: Any,
    ) -> tuple[Array, ...]:
        arrays = dict(zip(states, given, strict=False)) | {n: options.pop(n) for n in states if n in options}
        numbers = {n: options[n] for n in keywords if n in options}
        for s in rule.states:
            if numbers.get(s.when) and arrays.get(s.name) is None:
                text = f"{s.when} is {numbers[s.when]} with no {s.name}"
                raise ValueError(f"{rule.name()}: {text}, expected both or neither")
        common = {n: v for n, v in options.items() if n in _BEFORE | _AFTER and n not in keywords}
        if "weight_decay" in keywords and not options["decay_inside"]:
            common["weight_decay"], numbers["weight_decay"] = numbers["weight_decay"], 0.0
        if rule.spares_first and options["step"] == 1 and common["decoupled"]:
            common["weight_decay"] = 0.0
        kinds = {s.name: s.kind for s in rule.states if arrays.get(s.name) is not None}
        old, keep = decode(param), kept(decode(param), common["mask"])
        with np.errstate(all="ignore"):
            shrunk, g = before(old, decode(grad), options["lr"], **_part(common, _BEFORE))
            d, *new = rule.specification(g, shrunk, **arrays | {n: decode(arrays[n]) for n in kinds}, **numbers)
            p, d = after(old, shrunk, g, d, options["lr"], **_part(common, _AFTER))
        if stats is not None:
            stats[...] = statistics(param, grad, d, **_part(common, _STATISTICS))
        start_of = _starts(rule, options, starts)
        for k, (name, kind) in enumerate(kinds.items()):
            key = stochastic_key(seed, options["step"], tensor, 1 + k) if kind == "unsigned" else None
            new[k] = encode_like(masked(new[k], keep, start_of[name]), arrays[name], key)
        stored = encode_like(p, param)
        if ema is not None:
            with np.errstate(all="ignore"):
                new.append(moved_average(ema, decode(stored), ema_weight))
        return stored, *new

    return make(rule.name(), rule.name(), _signature_of(rule), specified, rule.__doc__ or "", _NAMES)


globals().update({rule.name(): _function_of(rule) for rule in ALL})
__all__ = sorted(rule.name() for rule in ALL)
