"""C++ rules, specification, functions and classes belong together: one that lacks the others fails here."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest

import fusedstep.numpy
import fusedstep.torch
from fusedstep import _core, _rules, functional, reference

CORE = [(r["name"], tuple(r["state"]), tuple(r["hyper"])) for r in _core.rules()]
OPTIMIZERS = [r for r in CORE if r[0] != "clip"]  # clipping in place is a rule of the core, but no optimizer


def variants(rule: _rules.Rule) -> set[tuple[str, ...]]:
    """State arrays of every choice of options that selects some."""
    switches = [k for k, v in rule.defaults.items() if isinstance(v, bool)] + ["momentum"] * (
        "momentum" in rule.defaults
    )
    return {
        rule.states({**_rules.COMMON, **rule.defaults, **dict(zip(switches, values, strict=True))})
        for values in itertools.product([0, 1], repeat=len(switches))
    }


@pytest.mark.parametrize(("name", "states", "hyper"), CORE)
def test_core_rule_is_specified(name: str, states: tuple[str, ...], hyper: tuple[str, ...]) -> None:
    parameters = inspect.signature(getattr(reference, name)).parameters
    assert {*states, *hyper} <= parameters.keys()


@pytest.mark.parametrize(("name", "states", "hyper"), OPTIMIZERS)
def test_core_rule_can_be_called(name: str, states: tuple[str, ...], hyper: tuple[str, ...]) -> None:
    parameters = inspect.signature(getattr(functional, name)).parameters
    assert {f"{s}s" for s in states} | set(hyper) <= parameters.keys()
    assert name in functional.__all__
    families = [r for r in _rules.RULES.values() if r.name == name]
    assert any(states in variants(r) for r in families)


@pytest.mark.parametrize("name", _rules.RULES)
def test_every_variant_of_a_class_has_a_kernel(name: str) -> None:
    rule = _rules.RULES[name]
    for states in variants(rule):
        hyper = next(h for n, s, h in CORE if (n, s) == (rule.name, states))
        assert set(hyper) <= rule.hyper({**_rules.COMMON, **rule.defaults}).keys()


@pytest.mark.parametrize("module", [fusedstep.numpy, fusedstep.torch])
def test_classes(module: Any) -> None:
    classes = {n for n in module.__all__ if n[0].isupper() and not n.endswith("Optimizer")}
    assert classes == _rules.RULES.keys()
    for name in classes:
        cls = getattr(module, name)
        assert cls._rule is _rules.RULES[name]
        defaults = {**_rules.COMMON, **_rules.RULES[name].defaults}
        if name == "AdamW":  # decoupled is what it is, not an option
            defaults.pop("decoupled_weight_decay", None)
        parameters = inspect.signature(cls).parameters
        for option, value in defaults.items():
            assert parameters[option].default == value, (name, option)
        assert cls.__doc__


@pytest.mark.parametrize("module", [fusedstep, functional, reference, fusedstep.numpy, fusedstep.torch])
def test_everything_public_has_a_docstring(module: Any) -> None:
    assert module.__doc__
    for name, item in vars(module).items():
        if not name.startswith("_") and getattr(item, "__module__", None) == module.__name__ and callable(item):
            assert item.__doc__, f"{module.__name__}.{name}"
