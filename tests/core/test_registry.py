"""Kernels, declarations and faces belong together: one that lacks the others fails here."""

from __future__ import annotations

import doctest
import inspect
import pickle
import re
import typing
from typing import Any

import pytest

import fusedstep.numpy
import fusedstep.torch
from fusedstep import _core, _docs, functional, reference
from fusedstep.rules import Rule
from tests.helpers.declared import RULES

CORE = {(r["name"], tuple(r["state"])): tuple(r["hyper"]) for r in _core.rules()}
SCALARS = {(r["name"], tuple(r["state"])): tuple(r["scalars"]) for r in _core.rules()}
OPTIMIZERS = [key for key in CORE if key[0] != "clip"]  # clipping in place is a rule of the core, but no optimizer
EVERY = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))


@EVERY
def test_every_variant_has_a_kernel_that_takes_what_is_declared(rule: type[Rule]) -> None:
    for states in rule.variants():
        assert set(CORE[rule.kernel, states]) <= set(rule.hyper_names)
        assert SCALARS[rule.kernel, states] == tuple(n.name for n in rule.numbers)
    assert {n for states in rule.variants() for n in CORE[rule.kernel, states]} == set(rule.hyper_names)
    assert rule.hyper("", rule.defaults).keys() == set(rule.hyper_names)


@pytest.mark.parametrize(("kernel", "states"), OPTIMIZERS)
def test_every_kernel_is_declared(kernel: str, states: tuple[str, ...]) -> None:
    assert any(states in rule.variants() for rule in RULES.values() if rule.kernel == kernel)


@EVERY
def test_defaults_are_in_their_ranges(rule: type[Rule]) -> None:
    rule.check("", rule.defaults)
    assert {s.when for s in rule.states} - {""} <= rule.options.keys()
    assert {s.start for s in rule.states} - {""} <= rule.options.keys()
    assert {n.start for n in rule.numbers if isinstance(n.start, str)} <= rule.options.keys()
    inside = {rule.decay_inside({**rule.defaults, **chosen}) for chosen in rule.variants().values()}
    assert not any(inside) or "weight_decay" in rule.hyper_names


@EVERY
def test_faces(rule: type[Rule]) -> None:
    assert rule.name() in functional.__all__
    assert rule.name() in reference.__all__
    for module in (fusedstep.numpy, fusedstep.torch):
        name = rule.__name__
        assert name in module.__all__
        cls = getattr(module, name)
        assert module.get(name.lower()) is module.get(name) is cls
        assert cls._rule is rule
        assert (cls.__module__, cls.__qualname__, cls.__name__) == (module.__name__, name, name)
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert isinstance(cls.__init__, type(test_faces))
        assert cls.__init__.__qualname__ == f"{name}.__init__"
        parameters = inspect.signature(cls).parameters
        assert list(parameters)[:2] == ["params", "lr"]
        assert typing.get_type_hints(cls.__init__).keys() == {"return", *parameters}
        for option, value in rule.defaults.items():
            assert parameters[option].default == value, (name, option)
        assert rule.__doc__ is not None
        assert cls.__doc__.startswith(rule.__doc__.split("\n")[0])
        assert all(f"    {option}: " in cls.__doc__ for option in rule.own)


@pytest.mark.parametrize("get", [fusedstep.numpy.get, fusedstep.torch.get])
def test_get_lists_what_there_is(get: Any) -> None:
    with pytest.raises(ValueError, match=r"no optimizer is called 'adamx', expected one of .*Adam, .*AdamW"):
        get("adamx")
    with pytest.raises(TypeError, match="expected one of "):
        get(None)
    assert get("Adam_W") is get("adam-w") is get("AdamW")


@EVERY
def test_example_runs(rule: type[Rule]) -> None:
    text = inspect.cleandoc(rule.__doc__ or "")
    test = doctest.DocTestParser().get_doctest(text, {}, rule.__name__, None, 0)
    assert len(test.examples) > 2
    assert doctest.DocTestRunner().run(test).failed == 0


@EVERY
def test_docstring_says_what_is_needed(rule: type[Rule]) -> None:
    text = rule.__doc__ or ""
    assert "Formula::" in text
    assert "Paper" in text
    assert "As :class:`torch.optim." in text or "Differs" in text
    assert re.fullmatch(r"[A-Z][^;]* \d{4}(; [A-Z][^;]* \d{4})*", _docs.papers_of(rule))


@pytest.mark.parametrize("module", [fusedstep, functional, reference, fusedstep.numpy, fusedstep.torch])
def test_everything_public_has_a_docstring(module: Any) -> None:
    assert module.__doc__
    for name, item in vars(module).items():
        if not name.startswith("_") and getattr(item, "__module__", None) == module.__name__ and callable(item):
            assert item.__doc__, f"{module.__name__}.{name}"
