"""The groups that the core takes: made once, kept, and checked when they are made."""

from __future__ import annotations

import copy
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
    return _core.step_arrays([(group, lists[0], lists[1], lists[2:], number, None, None)], **RUN)


def test_one_group_serves_many_calls() -> None:
    group = _core.Group(**ADAM)
    ours, theirs = arrays(), arrays()
    options = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01, "maximize": True}
    for number in (1, 2, 3):
        norm = step(group, ours, number)
        assert norm == functional.adam(*theirs, step=number, max_norm=0.5, **options)
    assert_same(ours, theirs)


def test_one_group_twice_in_a_call() -> None:
    group = _core.Group(**ADAM)
    whole, split = arrays(), arrays()
    _core.step_arrays([(group, *whole[:2], whole[2:], 1, None, None)], **RUN)
    parts = [[lists[k : k + 1] for lists in split] for k in range(2)]
    _core.step_arrays([(group, *part[:2], part[2:], 1, [k], [k]) for k, part in enumerate(parts)], **RUN)
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

    def init(p: Any, o: Any, keys: tuple[str, ...]) -> dict[str, Any]:
        assert {*keys} == {"step", *ADAM["states"]}
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


# ------------------------------------------------------------------------------------- kept while options do not change


def pairs() -> tuple[Any, Any]:
    """An optimizer that has stepped, and how to make another that has done the same."""
    torch = pytest.importorskip("torch")
    import fusedstep.torch

    def make() -> Any:
        param = torch.nn.Parameter(torch.linspace(-1, 1, 50))
        param.grad = torch.linspace(1, 2, 50)
        opt = fusedstep.torch.Adam([param], lr=0.1)
        opt.step()
        return opt

    return make(), make()


def anew(opt: Any) -> Any:
    """A copy, which has kept nothing."""
    other = copy.deepcopy(opt)
    for mine, its in zip(other.param_groups[0]["params"], opt.param_groups[0]["params"], strict=True):
        mine.grad = its.grad.clone()
    return other


CHANGES: dict[str, list[Any]] = {
    "lr": [0.5, 1],
    "betas": [(0.5, 0.9), [0.5, 0.9]],
    "eps": [1e-2],
    "weight_decay": [0.3],
    "maximize": [True],
    "decoupled_weight_decay": [True],
    "max_norm": [0.1],
    "clip_value": [0.1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CHANGES.items() for value in values])
def test_a_changed_option_is_seen(name: str, value: Any) -> None:
    opt, plain = pairs()
    opt.param_groups[0][name] = value
    fresh = anew(opt)
    for other in (opt, fresh, plain):
        if name == "decoupled_weight_decay":
            other.param_groups[0]["weight_decay"] = 0.3
        other.step()
    values = [o.param_groups[0]["params"][0].detach().numpy() for o in (opt, fresh, plain)]
    assert (values[0] == values[1]).all()
    assert (values[0] != values[2]).any()


def test_what_changes_in_place_is_read_anew() -> None:
    torch = pytest.importorskip("torch")
    opt, plain = pairs()
    for option, change in (("betas", lambda x: x.__setitem__(0, 0.25)), ("lr", lambda x: x.fill_(0.7))):
        group = opt.param_groups[0]
        group[option] = list(group["betas"]) if option == "betas" else torch.tensor(0.1)
        opt.step()
        change(group[option])
        fresh = anew(opt)
        opt.step()
        fresh.step()
        assert torch.equal(opt.param_groups[0]["params"][0], fresh.param_groups[0]["params"][0])
    plain.defaults["lr"] = 0.9  # counts where a group lacks the key
    del plain.param_groups[0]["lr"]
    before = plain.param_groups[0]["params"][0].detach().clone()
    plain.step()
    first = (plain.param_groups[0]["params"][0] - before).abs().max()
    plain.defaults["lr"] = 0.0
    before = plain.param_groups[0]["params"][0].detach().clone()
    plain.step()
    assert first > 0.5
    assert torch.equal(plain.param_groups[0]["params"][0], before)


def test_options_that_stay_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opt, _ = pairs()
    made = []
    rule = type(opt)._rule
    original = rule.group
    monkeypatch.setattr(rule, "group", lambda *a, **k: made.append(1) or original(*a, **k))
    for _ in range(3):
        opt.step()
    assert made == []
    opt.param_groups[0]["lr"] = 0.3
    for _ in range(3):
        opt.step()
    assert made == [1]
