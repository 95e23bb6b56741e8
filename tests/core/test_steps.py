"""Step counts, the first ones and those beyond what a test trains: bias corrections and schedules are those of the
count, however large it is."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from fusedstep import functional, reference
from fusedstep.functional._updates import options_of
from fusedstep.rules import Rule
from tests.helpers import declared
from tests.helpers.bits import assert_same_bits

# Within the first seven RAdam begins to rectify. The last is the largest that is taken.
COUNTS = [*range(1, 8), 101, 1000, 2**24, 2**24 + 1, 2**53 - 1]
COUNTING = {
    name: rule
    for name, rule in declared.FUNCTIONS.items()
    if "step" in inspect.signature(getattr(functional, name)).parameters
}
VARIANTS = [(name, chosen) for name, rule in COUNTING.items() for chosen in rule.variants().values()]


def lists_of(rule: type[Rule], options: dict[str, Any], dtype: str) -> dict[str, list[np.ndarray]]:
    """A tensor per count: parameters, gradients, states in the middle of a training, numbers."""
    rng = np.random.default_rng(0)
    states = rule.state_names({**rule.defaults, **options})
    names = ("params", "grads", *(s.argument for s in rule.states if s.name in states))
    arrays = {name: [rng.uniform(0.5, 1.0, 37).astype(dtype) for _ in COUNTS] for name in names}
    return {**arrays, **{n.argument: [np.array(0.75, dtype) for _ in COUNTS] for n in rule.numbers}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_counts(backend: str, name: str, options: dict[str, Any], dtype: str) -> None:
    rule, lists = COUNTING[name], lists_of(COUNTING[name], options, dtype)
    options = declared.known(rule, {**options, "lr": 0.1, "weight_decay": 0.01})
    given = {n: v for n, v in options.items() if n in options_of(rule)}
    want = [
        getattr(reference, name)(
            *(lists[argument][k] for argument in ("params", "grads")),
            **{declared.keyword_of(rule, a): lists[a][k] for a in lists if a not in ("params", "grads")},
            step=count,
            **declared.numbers_of(rule, options),
        )
        for k, count in enumerate(COUNTS)
    ]

    def check(arrays: dict[str, list[np.ndarray]], k: int, at: int) -> None:
        written = [a for a in arrays if a != "grads"]
        for argument, value in zip(written, want[k], strict=True):
            assert_same_bits(arrays[argument][at], value, f"{argument} in step {COUNTS[k]}")

    for k, count in enumerate(COUNTS):  # one count for all
        one = {a: [arrays[k].copy()] for a, arrays in lists.items()}
        getattr(functional, name)(**one, step=count, **given)
        check(one, k, 0)
    getattr(functional, name)(**lists, step=COUNTS, **given)  # one each
    for k in range(len(COUNTS)):
        check(lists, k, k)
