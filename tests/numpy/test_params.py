"""``fusedstep.numpy``: parameters, groups and state that were changed by hand; what belongs to a run; messages."""

from __future__ import annotations

import collections
import copy
import math
import pickle
import types
from typing import Any

import numpy as np
import pytest

import fusedstep.numpy as fnp
from fusedstep import functional, reference
from tests.helpers.bits import assert_same_bits
from tests.helpers.declared import RULES

CLASSES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "RMSprop": {"centered": True}}
SHAPES = [(3, 4), (5,), (2, 2), (7,)]


def arrays(seed: int, dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def make(cls: str, params: Any, **options: Any) -> fnp.Optimizer:
    return getattr(fnp, cls)(params, lr=0.1, **OPTIONS.get(cls, {}), **options)


def alone(cls: str, k: int, steps: list[int], **options: Any) -> np.ndarray:
    """Parameter k in an optimizer of its own, with the gradients of those steps."""
    p = arrays(0)[k]
    opt = make(cls, [p], **options)
    for seed in steps:
        opt.step([arrays(seed)[k]])
    return p


# ------------------------------------------------------------------------------------- parameters changed by hand


@pytest.mark.parametrize("cls", CLASSES)
def test_state_belongs_to_its_parameter(cls: str) -> None:
    """Whatever is removed, appended or moved, each goes on as if it were alone."""
    p = arrays(0)
    opt = make(cls, p[:3])
    members, steps = [0, 1, 2], {k: [] for k in range(4)}  # type: ignore[var-annotated]

    def step(seed: int) -> None:
        opt.step([arrays(seed)[k] for k in members])
        for k in members:
            steps[k].append(seed)
        assert [s["step"] for s in opt.state] == [len(steps[k]) for k in members]

    step(1)
    params = opt.param_groups[0]["params"]
    del params[1]
    members = [0, 2]
    step(2)
    params.append(p[3])
    members = [0, 2, 3]
    step(3)
    params.reverse()
    members = [3, 2, 0]
    step(4)
    opt.param_groups[0]["params"] = [p[2], p[3]]
    opt.param_groups.append({"params": [p[0]]})
    members = [2, 3, 0]
    step(5)
    opt.param_groups.reverse()
    members = [0, 2, 3]
    step(6)
    for k in range(4):
        assert_same_bits(p[k], alone(cls, k, steps[k]), f"parameter {k} after steps {steps[k]}")


@pytest.mark.parametrize("cls", CLASSES)
def test_state_that_is_cleared_starts_anew(cls: str) -> None:
    opt, other = make(cls, arrays(0)), make(cls, arrays(0))
    for seed in range(3):
        opt.step(arrays(seed))
    opt.state.clear()
    for a, b in zip(opt.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        b[...] = a
    for seed in range(3):
        opt.step(arrays(seed))
        other.step(arrays(seed))
    for a, b in zip(opt.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        assert_same_bits(a, b)
    assert [s["step"] for s in opt.state] == [3] * 4


def test_a_group_appended_by_hand() -> None:
    p = arrays(0)
    opt = make("Adam", p[:2], betas=(0.5, 0.75))
    opt.param_groups.append({"params": p[2:], "lr": 0.25})
    opt.param_groups.append({"params": []})
    g = arrays(1)
    opt.step(g)
    other = make("Adam", [{"params": (q := arrays(0))[:2]}, {"params": q[2:], "lr": 0.25}], betas=(0.5, 0.75))
    other.step(g)
    for a, b in zip(p, q, strict=True):
        assert_same_bits(a, b)
    saved = opt.state_dict()
    assert saved["group.1.lr"] == 0.25
    assert saved["group.1.betas"].tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda o: o.param_groups.append({"params": [np.ones(1)], "learning": 1}),
            TypeError,
            "unexpected option 'learning'",
        ),
        (lambda o: o.param_groups.append({"lr": 1.0}), ValueError, "a group without 'params'"),
        (lambda o: o.param_groups.append([np.ones(1)]), ValueError, "a group without 'params'"),
        (lambda o: o.param_groups.append({"params": [np.ones(1)], "lr": -1.0}), ValueError, "lr is -1.0"),
        (lambda o: o.param_groups.append({"params": [np.ones(1, int)]}), TypeError, r"params\[4\] has dtype int64"),
        (lambda o: o.param_groups[0]["params"].append("w"), TypeError, r"params\[4\]"),
        (lambda o: o.param_groups[0]["params"].append(None), TypeError, r"params\[4\]"),
        (lambda o: o.state.pop(), ValueError, r"state has 3 dicts, expected 4.*state\.clear\(\) starts anew"),
        (lambda o: o.state.append({}), ValueError, "state has 5 dicts, expected 4"),
        (lambda o: o.state[1].clear(), ValueError, r"state\[1\] has no 'step'"),
        (lambda o: o.state[1].pop("exp_avg_sq"), ValueError, r"state\[1\] has no 'exp_avg_sq'"),
    ],
)
def test_what_cannot_be_right_is_said_and_changes_nothing(change: Any, error: type, message: str) -> None:
    opt = make("Adam", p := arrays(0))
    opt.step(arrays(1))
    change(opt)
    before = [a.copy() for a in p]
    counts = [s.get("step") for s in opt.state]
    with pytest.raises(error, match=f"Adam: .*{message}|Adam: {message}"):
        opt.step([*arrays(2), np.ones(1)][: max(4, sum(len(g["params"]) for g in opt.param_groups if "params" in g))])
    assert all((a == b).all() for a, b in zip(p, before, strict=True))
    assert [s.get("step") for s in opt.state] == counts


# ------------------------------------------------------------------------------------------------- what is of the run


def test_options_of_the_run_are_not_saved() -> None:
    opt = make("AdamW", arrays(0), max_norm=1.0, clip_value=0.5, nonfinite="skip")
    opt.step(arrays(1))
    saved = opt.state_dict()
    assert not [k for k in saved if k.split(".")[-1] in ("max_norm", "clip_value", "nonfinite")]
    other = make("AdamW", arrays(0), max_norm=0.1)
    other.load_state_dict(saved)
    group = other.param_groups[0]
    assert (group["max_norm"], group["clip_value"], group["nonfinite"]) == (0.1, None, "propagate")
    saved |= {"group.0.max_norm": np.asarray(9.0), "group.0.clip_value": np.asarray(9.0), "group.0.lr": np.asarray(0.5)}
    other.load_state_dict(saved)  # as an older version saved it
    assert (group["max_norm"], group["clip_value"], group["lr"]) == (0.1, None, 0.5)
    assert copy.deepcopy(other).param_groups[0]["max_norm"] == 0.1


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("first", [True, False])
def test_skip(cls: str, value: float, first: bool) -> None:
    p = arrays(0)
    opt, other = make(cls, p, max_norm=0.5, nonfinite="skip"), make(cls, q := arrays(0), max_norm=0.5)
    if not first:
        for each in (opt, other):
            each.step(arrays(1))
    bad = arrays(2)
    bad[2][1, 1] = value
    before = copy.deepcopy((p, opt.state))
    norm = opt.step(bad)
    assert norm is not None
    assert not math.isfinite(norm)
    assert (opt.skipped_steps, opt.clipped_steps) == (1, int(not first))
    assert math.isnan(opt.total_norm) == math.isnan(value)
    for a, b in zip(p, before[0], strict=True):
        assert_same_bits(a, b)
    for state, old in zip(opt.state, before[1], strict=True):
        assert state["step"] == old["step"]
        assert all((np.asarray(state[k]) == old[k]).all() for k in old)
    for seed in (3, 4):
        assert opt.step(arrays(seed)) == other.step(arrays(seed))
        assert opt.clip_coefficient == reference.clip_coefficient(opt.total_norm, 0.5) == other.clip_coefficient
    for a, b in zip(p, q, strict=True):
        assert_same_bits(a, b)
    assert (opt.skipped_steps, opt.clipped_steps) == (1, 3 - int(first))


def test_masked_arrays_are_no_state() -> None:
    opt = make("Adam", arrays(0))
    saved = opt.state_dict()
    saved["state.1.exp_avg"] = np.ma.masked_array(saved["state.1.exp_avg"], mask=True)
    with pytest.raises(TypeError, match=r"Adam: state\.1\.exp_avg of the state_dict is a masked array"):
        opt.load_state_dict(saved)


def test_raise_and_nonsense() -> None:
    p = arrays(0)
    opt = make("SGD", p, max_norm=0.5, nonfinite="raise")
    bad = arrays(1)
    bad[0][0, 0] = math.nan
    before = [a.copy() for a in p]
    with pytest.raises(RuntimeError, match="SGD: the total norm is non-finite"):
        opt.step(bad)
    assert all((a == b).all() for a, b in zip(p, before, strict=True))
    opt.param_groups[0]["max_norm"] = None
    with pytest.raises(ValueError, match="without max_norm"):
        opt.step(arrays(1))
    for options in ({"nonfinite": "skip"}, {"nonfinite": "other", "max_norm": 1.0}, {"nonfinite": 1, "max_norm": 1.0}):
        with pytest.raises(ValueError, match="nonfinite"):
            make("SGD", p, **options)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_functional(value: float) -> None:
    p, g = np.ones(3000, np.float32), np.ones(3000, np.float32)
    g[2999] = value
    norm = functional.sgd(p, g, lr=0.5, max_norm=1.0, nonfinite="skip")
    assert norm == value or math.isnan(norm)
    assert (p == 1).all()
    with pytest.raises(RuntimeError, match="non-finite"):
        functional.sgd(p, g, lr=0.5, max_norm=1.0, nonfinite="raise")
    assert (p == 1).all()
    functional.sgd(p, g, lr=0.5, max_norm=1.0, nonfinite="propagate")
    assert not (p == 1).all()
    for options, message in (
        ({"nonfinite": "skip"}, "without max_norm"),
        ({"nonfinite": "skip", "max_norm": 1.0, "per_tensor": True}, "with per_tensor"),
        ({"nonfinite": "skip", "max_norm": 1.0, "error_if_nonfinite": True}, "expected one of them"),
        ({"nonfinite": "x", "max_norm": 1.0}, "expected one of"),
    ):
        with pytest.raises(ValueError, match=f"sgd: .*{message}"):
            functional.sgd(p, g, lr=0.5, **options)


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "betas",
    [[0.5, 0.75], np.array([0.5, 0.75]), np.array([0.5, 0.75], np.float32), collections.deque([0.5, 0.75])],
    ids=str,
)
def test_betas_may_be_any_two(betas: Any) -> None:
    opt, other = make("Adam", p := arrays(0), betas=betas), make("Adam", q := arrays(0), betas=(0.5, 0.75))
    for seed in range(2):
        opt.step(arrays(seed))
        other.step(arrays(seed))
    assert all((a == b).all() for a, b in zip(p, q, strict=True))
    other.load_state_dict(opt.state_dict())


@pytest.mark.parametrize("betas", [0.9, (0.9,), np.ones(3), "ab", None, {0: 0.5, 1: 0.5}, np.float64(0.5)], ids=str)
def test_betas_that_are_no_two(betas: Any) -> None:
    with pytest.raises(ValueError, match=r"Adam: betas is .*, expected a sequence of two numbers"):
        make("Adam", arrays(0), betas=betas)


@pytest.mark.parametrize(
    "wrap", [tuple, lambda x: dict(enumerate(x)).values(), iter, lambda x: (a for a in x), collections.deque]
)
def test_arrays_may_come_in_any_iterable(wrap: Any) -> None:
    p, q = arrays(0), arrays(0)
    opt, other = make("SGD", wrap(p)), make("SGD", q)
    assert len(opt.state) == 4
    for seed in range(2):
        opt.step(wrap(arrays(seed)))
        other.step(arrays(seed))
    assert all((a == b).all() for a, b in zip(p, q, strict=True))
    assert functional.total_norm(wrap(p)) == reference.total_norm(p)


@pytest.mark.parametrize("bad", [{"w": np.ones(2)}, "w", 3, None, types.SimpleNamespace()], ids=str)
def test_what_is_no_array(bad: Any) -> None:
    opt = make("SGD", [w := np.ones(2)])
    if bad is None:
        opt.step([bad])  # no gradient
        assert (w == 1).all()
        return
    with pytest.raises(
        TypeError, match=r"SGD: grads\[0\] is a .*, expected a NumPy array, a torch tensor or another DLPack"
    ):
        opt.step(bad)
    with pytest.raises(ValueError, match="SGD: grads has 3 arrays, expected 1 to match params"):
        opt.step(iter([w, w, w]))
    assert (w == 1).all()


@pytest.mark.parametrize("cls", RULES)
def test_a_list_is_of_groups_or_of_arrays(cls: str) -> None:
    w = np.ones(3)
    for mixed, index in (([{"params": [w]}, 5], 1), ([{"params": [w]}, np.ones(2)], 1), ([w, w, {"params": [w]}], 0)):
        message = rf"^{cls}: params mixes groups and arrays: params\[{index}\] is a {type(mixed[index]).__name__}, "
        with pytest.raises(TypeError, match=message + "expected all dicts or none"):
            getattr(fnp, cls)(mixed)
    assert len(getattr(fnp, cls)([{"params": w}, {"params": [np.ones(2)]}]).param_groups) == 2


# ------------------------------------------------------------------------------------ step counts that are set by hand


@pytest.mark.parametrize(
    "bad", [-5, -1, 2**53 - 1, 2**62, 10**30, 1.5, math.nan, None, "x", [1], np.array([1, 2])], ids=str
)
@pytest.mark.parametrize("cls", RULES)
def test_a_wrong_step_count_is_named_and_changes_nothing(cls: str, bad: Any) -> None:
    params = [np.ones(3), np.ones(4)]
    opt = getattr(fnp, cls)(params, max_norm=1.0)
    grads = [np.full(3, 0.5), np.full(4, 0.25)]
    opt.step(grads)
    opt.state[1]["step"] = bad
    before = pickle.dumps((params, opt.state, opt.total_norm))
    with pytest.raises((TypeError, ValueError), match=rf"^{cls}: state\[1\]\.step is .*, expected an integer"):
        opt.step(grads)
    assert pickle.dumps((params, opt.state, opt.total_norm)) == before
    opt.step([grads[0], None])
    assert opt.state[0]["step"] == 2


@pytest.mark.parametrize("count", [0, 7, 2**53 - 2])
@pytest.mark.parametrize("kind", [int, np.int64, np.array], ids=lambda kind: kind.__name__)
def test_a_step_count_may_be_any_integer(kind: Any, count: int) -> None:
    w, expected = np.ones(3), np.ones(3)
    opt = fnp.Adagrad(w, lr=0.5, lr_decay=0.1)
    opt.state[0]["step"] = kind(count)
    opt.step(np.ones(3))
    functional.adagrad(expected, np.ones(3), np.zeros(3), step=count + 1, lr=0.5, lr_decay=0.1)
    assert_same_bits(w, expected)
    assert type(opt.state[0]["step"]) is int
    assert opt.state[0]["step"] == count + 1


# ------------------------------------------------------------------------------------------------- keys of checkpoints


@pytest.mark.parametrize("cls", RULES)
def test_every_option_has_to_be_in_a_checkpoint(cls: str) -> None:
    groups = [{"params": [np.ones(3)]}, {"params": [np.ones(2)], "lr": 0.5}]
    opt = getattr(fnp, cls)(groups)
    saved = opt.state_dict()
    before = pickle.dumps((opt.param_groups, opt.state))
    for key in [key for key in saved if key.startswith("group.1.")]:
        with pytest.raises(ValueError, match=rf"^{cls}: state_dict has no key '{key}'$"):
            opt.load_state_dict({k: v for k, v in saved.items() if k != key})
    with pytest.raises(ValueError, match=rf"^{cls}: state_dict has the unexpected key 'group\.1\.foo'$"):
        opt.load_state_dict({**saved, "group.1.foo": np.zeros(1)})
    assert pickle.dumps((opt.param_groups, opt.state)) == before
    opt.load_state_dict({**saved, "group.0.max_norm": np.array(3.0), "group.1.nonfinite": np.array("skip")})
    assert opt.param_groups[0]["max_norm"] is None
    assert opt.param_groups[1]["nonfinite"] == "propagate"
    assert {k: v.tolist() for k, v in opt.state_dict().items()} == {k: v.tolist() for k, v in saved.items()}
