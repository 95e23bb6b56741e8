"""The list of planted faults fits the sources and the tests: it cannot rot unseen."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.helpers.tools import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import mutants
from mutants_list import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_can_be_planted(mutant: Mutant) -> None:
    text = mutants.planted(mutant)
    assert text != (ROOT / mutant.file).read_text()
    if not mutant.is_cpp:
        ast.parse(text)
    assert mutants.tests_of(mutant)
    known = {**mutants.units(), "target": []}
    assert set(mutant.units) <= known.keys()
    assert not mutant.is_cpp or mutant.units or mutant.file.removeprefix("csrc/") in known


def test_names_are_told_apart() -> None:
    names = [m.name for m in MUTANTS]
    assert len(set(names)) == len(names)
    assert 5 <= sum(m.quick for m in MUTANTS) <= 10
    assert len({m.is_cpp for m in MUTANTS if m.quick}) == 2


def test_a_text_that_is_not_there() -> None:
    gone = Mutant("gone", "csrc/rules/sgd.h", "no such text", "", "core/test_equality.py")
    with pytest.raises(mutants.Unusable, match=r"0 times in csrc/rules/sgd.h, expected once"):
        mutants.planted(gone)
    lost = Mutant("lost", "csrc/rules/sgd.h", "u.lr * g", "", "test_of_nothing.py")
    with pytest.raises(mutants.Unusable, match=r"there is no tests/test_of_nothing.py"):
        mutants.tests_of(lost)
