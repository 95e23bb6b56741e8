"""The one table of cases, made from the declarations in ``fusedstep.rules``: a new rule is tested without an edit here.

:data:`CASES` are the optimizers with options, for the classes. :data:`KERNELS` are the rows of the compiled registry
that they use, for the core. :data:`FUNCTIONS` are the same rules by the names in ``fusedstep.functional``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedstep import _core
from fusedstep._rule import FINITE, FRACTION, GROWING, LIMIT, NON_NEGATIVE, POSITIVE, SHRINKING, STEPS, UNIT, Option
from fusedstep.rules import ALL, Rule

RULES: dict[str, type[Rule]] = {rule.__name__: rule for rule in ALL}
FUNCTIONS: dict[str, type[Rule]] = {rule.name(): rule for rule in ALL}
# A value in each range that is no option's default.
ALTERED = {id(FRACTION): 0.8, id(UNIT): 0.7, id(SHRINKING): 0.6, id(NON_NEGATIVE): 0.5, id(FINITE): 0.3}
ALTERED |= {id(GROWING): 1.1, id(LIMIT): 0.04, id(POSITIVE): 0.4, id(STEPS): 3.0}
NOT_NUMBERS = ("x", (), {}, 1j, object())


def switches(rule: type[Rule]) -> set[str]:
    """The options that state arrays depend on."""
    return {s.when for s in rule.states if s.when}


def altered(o: Option) -> Any:
    values = tuple(ALTERED[id(r)] + 0.15 * k / max(1, len(o.ranges) - 1) for k, r in enumerate(o.ranges))
    return values if o.kind == "several" else values[0]


def known(rule: type[Rule], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that the rule has: not every rule decays."""
    return {name: value for name, value in options.items() if name in rule.defaults}


def is_valid(rule: type[Rule], options: dict[str, Any]) -> bool:
    try:
        rule.check("", {**rule.defaults, **options})
    except ValueError:
        return False
    return True


def cases(rule: type[Rule]) -> list[dict[str, Any]]:
    """Options for every variant: alone, with all numbers altered and maximize, with each flag turned, each None."""
    found: list[dict[str, Any]] = []
    own = rule.own
    numbers = {n: altered(o) for n, o in own.items() if o.kind != "flag" and n not in {"lr", *switches(rule)}}
    for chosen in rule.variants().values():
        found += [chosen, {**chosen, **numbers, "maximize": True}]
        for name, o in own.items():
            if o.kind == "flag" and name not in {"maximize", *switches(rule)}:
                other = {**chosen, name: not o.default, "weight_decay": 0.1}
                found += [other] if is_valid(rule, other) else []
            elif o.none is not None and o.default is not None:
                found.append({**chosen, name: None})
    return found


# A row has the rule's name and the names of its state arrays, numbers and scalars. Classes may share a kernel.
# core/test_registry.py says what is declared and not compiled, or compiled and not declared.
_COMPILED = {(r["name"], tuple(r["state"])): r for r in _core.rules()}
_DECLARED = dict.fromkeys((rule.kernel, states) for rule in ALL for states in rule.variants())
KERNELS: list[dict[str, Any]] = [_COMPILED[key] for key in _DECLARED if key in _COMPILED]

CASES: list[tuple[str, dict[str, Any]]] = [(name, options) for name, rule in RULES.items() for options in cases(rule)]


def roundings(kernel: dict[str, Any]) -> list[str]:
    """Of a row of the registry: how each of its state arrays is rounded where it is stored as bfloat16."""
    rules = [rule for rule in ALL if rule.kernel == kernel["name"]]
    declared = {s.name: s for rule in rules for s in rule.states}
    arrays = [declared[name] for name in kernel["state"]]
    options = {name: False for rule in rules for name in rule.defaults} | {s.when: True for s in arrays if s.when}
    return [s.rounding(options) for s in arrays]


def arrays_of(rule: type[Rule]) -> tuple[str, ...]:
    """The arguments of the function that are arrays like the parameter, in its order."""
    return ("params", "grads", *(s.argument for s in rule.states))


def number_arguments(rule: type[Rule], count: int, dtype: str = "float64") -> dict[str, list[np.ndarray]]:
    """The arguments of the function that are states of one number, as before a first step by default options."""
    starts = rule.number_starts(rule.defaults)
    return {n.argument: [np.array(starts[n.name], dtype) for _ in range(count)] for n in rule.numbers}


def keyword_of(rule: type[Rule], argument: str) -> str:
    """What the specification calls an argument of the function that is a list of states."""
    return {s.argument: s.name for s in (*rule.states, *rule.numbers)}[argument]


def numbers_of(rule: type[Rule], options: dict[str, Any]) -> dict[str, Any]:
    """The specification's keywords for options of a class or a function."""
    return rule.specified("", {**rule.defaults, **options})


def bad_values(o: Option) -> list[Any]:
    """Values out of range, each as the option takes it."""
    if o.kind != "several":
        return [bad for r in o.ranges for bad in r.bad]
    good = o.default
    return [(*good[:k], bad, *good[k + 1 :]) for k, r in enumerate(o.ranges) for bad in r.bad]
