"""Which cases are run: what is drawn from a product leaves out no pair, and no rule with any pair of the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Hashable
from itertools import product

import pytest

from tests.helpers.covering import Case, pairs, pairwise
from tests.helpers.tools import ROOT

PRODUCTS: list[list[Case]] = [
    list(product("ab", range(3), "xyz")),
    list(product(range(3), range(2), range(8), range(3))),
    list(product(range(3), range(2), *[range(5)] * 3)),
    [case for case in product(range(9), range(7), range(12)) if case[0] <= case[1]],  # not all of a product
    [(1,)],
    [(1, 2)],
]


def test_pairs() -> None:
    assert pairs(("a", "b", "a")) == {(0, "a", 1, "b"), (0, "a", 2, "a"), (1, "b", 2, "a")}


def all_pairs(cases: set[Case] | list[Case]) -> set[tuple[int, Hashable, int, Hashable]]:
    return set().union(*map(pairs, cases))


@pytest.mark.parametrize("turn", [0, 1, 5])
@pytest.mark.parametrize("cases", PRODUCTS, ids=len)
def test_every_pair_is_drawn(cases: list[Case], turn: int) -> None:
    drawn = pairwise(cases, turn)
    assert drawn <= set(cases)
    assert all_pairs(drawn) == all_pairs(cases)
    assert drawn == pairwise(cases, turn)
    assert len(cases) < 20 or len(drawn) < len(cases) / 2


def collected(*arguments: str) -> list[str]:
    """The ids of the cases of a test that would run."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^(\S+::test_small_tensors\[.*\])$", done.stdout, re.MULTILINE)


def test_each_rule_meets_every_pair_of_the_rest() -> None:
    file = "tests/core/test_equality.py"

    def split(ids: list[str]) -> dict[str, list[Case]]:
        found: dict[str, list[Case]] = {}
        for name in ids:
            match = re.search(r"\[(\w+?)-(.*?)-((?:b?float\d\d-)+)(\w+)-(\d)\]$", name)
            assert match, name
            backend, rule, storage, *rest = match.groups()
            found.setdefault(rule, []).append((backend, *storage.strip("-").split("-"), *rest))
        return found

    some, every = collected(file), collected(file, "--full")
    assert len(some) < len(every) / 2
    drawn, cases = split(some), split(every)
    assert drawn.keys() == cases.keys()
    assert all(all_pairs(drawn[rule]) == all_pairs(cases[rule]) for rule in cases)
    assert len({frozenset(rows) for rows in drawn.values()}) > 1  # rules do not all run the same
    left = next(name for name in every if name not in some)
    assert collected(left) == [left]
