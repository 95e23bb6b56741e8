"""The groups that the core takes: made once, kept, and checked when they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusedstep import _core, functional

ADAM: dict[str, Any] = {
    "label": "Adam",
    "rule": "adam",
    "states": ("exp_avg", "exp_avg_sq"),
    "state_args": ("exp_avgs", "exp_avg_sqs"),
    "hyper": {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8},
    "weight_decay": 0.01,
    "decoupled": False,
    "maximize": True,
    "max_norm": 0.5,
    "clip_value": None,
    "has_step": True,
}
RUN: dict[str, Any] = {"grad_scale": 1.0, "norm_type": 2.0, "per_tensor": False, "nonfinite": "propagate"}


def arrays() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    lists = [[rng.standard_normal(n).astype(np.float32) for n in (5, 1000)] for _ in range(4)]
    return [*lists[:3], [np.abs(v) for v in lists[3]]]


def assert_same(a: list[list[np.ndarray]], b: list[list[np.ndarray]]) -> None:
    for x, y in zip((x for xs in a for x in xs), (y for ys in b for y in ys), strict=True):
        np.testing.assert_array_equal(x, y)


def step(group: Any, lists: list[list[np.ndarray]], number: int) -> Any:
    return _core.step_arrays([(group, lists[0], lists[1], lists[2:], number, None)], **RUN)


def test_one_group_serves_many_calls() -> None:
    group = _core.Group(**ADAM)
    ours, theirs = arrays(), arrays()
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01, "maximize": True}
    for number in (1, 2, 3):
        norm = step(group, ours, number)
        assert norm == functional.adam(*theirs, step=number, max_norm=0.5, **options)
    assert_same(ours, theirs)


def test_one_group_twice_in_a_call() -> None:
    group = _core.Group(**ADAM)
    whole, split = arrays(), arrays()
    _core.step_arrays([(group, *whole[:2], whole[2:], 1, None)], **RUN)
    parts = [[lists[k : k + 1] for lists in split] for k in range(2)]
    _core.step_arrays([(group, *part[:2], part[2:], 1, [k]) for k, part in enumerate(parts)], **RUN)
    assert_same(whole, split)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"rule": "madam"}, ValueError, "no rule 'madam' with these state arrays"),
        ({"states": ("exp_avg",)}, ValueError, "no rule 'adam' with these state arrays"),
        ({"state_args": ("exp_avgs",)}, ValueError, "Adam: state_args has 1 names, expected 2 to match states"),
        ({"hyper": {"lr": 0.1}}, ValueError, "rule 'adam' has no number for 'beta1'"),
        ({"max_norm": "much"}, TypeError, "incompatible constructor arguments"),
    ],
)
def test_wrong_groups(wrong: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        _core.Group(**{**ADAM, **wrong})


@pytest.mark.parametrize("group", [None, (), (1, 2, 3, 4, 5, 6), (_core.Group(**ADAM), [], [])])
def test_what_is_no_group(group: Any) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.step_arrays([group], **RUN)


def test_torch_groups() -> None:
    torch = pytest.importorskip("torch")
    group, options, given = _core.Group(**ADAM), object(), []
    param = torch.zeros(7, requires_grad=True)
    param.grad = torch.arange(7.0)
    state: dict[Any, dict[str, Any]] = {}

    def init(p: Any, o: Any) -> dict[str, Any]:
        given.append((p, o))
        return {"step": torch.zeros(()), **{name: torch.zeros(7) for name in ADAM["states"]}}

    run: dict[str, Any] = {
        "grad_scale": 1.0,
        "found_inf": None,
        "report": np.zeros(4),
        "nonfinite": "propagate",
        "over_ranks": None,
    }
    for _ in range(2):
        with torch.no_grad():
            _core.step_torch(
                [(group, [param], None, options)], state, init, lambda s, p: s, before_write=lambda w: None, **run
            )
    assert len(given) == 1
    assert given[0][0] is param
    assert given[0][1] is options
    assert state[param]["step"] == 2
