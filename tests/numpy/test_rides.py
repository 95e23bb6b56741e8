"""What rides along with a step of the NumPy classes: options, masks, averages, statistics, checkpoints."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest

from fusedstep import numpy as fnp
from fusedstep import reference
from tests.helpers.bits import BFLOAT16, assert_same_bits
from tests.helpers.declared import RULES

SHAPES: list[tuple[int, ...]] = [(3, 5), (), (0, 2), (300, 7)]
DTYPES = {"f32": np.dtype("f4"), "f64": np.dtype("f8"), "bf16": BFLOAT16}
POWER = {"kind": "power", "update_after_step": 1}


def arrays(dtype: Any = "f4", seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]


def masks(seed: int = 5) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {k: rng.random(SHAPES[k]) < 0.6 for k in (0, 3)}


def expect(opt: Any, grads: list[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a step must leave, by the specification, and the statistics it must give."""
    rule, found, stats = opt._rule, [], {}
    params = [(p, {**rule.defaults, **group}, group) for group in opt.param_groups for p in group["params"]]
    kept = [s.get("mask", group["mask"]) for s, (_, _, group) in zip(opt.state, params, strict=True)]
    counted = [
        reference.masked(np.asarray(reference.decode(g)), reference.kept(reference.decode(p), m))
        for (p, _, _), g, m in zip(params, grads, kept, strict=True)
        if g is not None
    ]
    norm = reference.total_norm(counted)
    for k, ((p, full, group), g, state) in enumerate(zip(params, grads, opt.state, strict=True)):
        average = {} if "ema" not in state else {"ema": state["ema"]}
        if group["ema_decay"] is not None:
            n = group.get("ema_step", 0)
            full_power = {"gamma": 1.0, "power": 2 / 3, "min_decay": 0.0, **POWER}
            asked = group["ema_warmup"]
            warmup = full_power if asked == POWER else asked and {"kind": asked}
            weight = reference.ema_weight(n, group["ema_decay"], warmup)
            average = {"ema": state.get("ema", reference.decode(p).copy())}
        if g is None:
            new = dict(state)
            if average:
                new["ema"] = reference.moved_average(average["ema"], reference.decode(p), weight)
            found.append({"param": p.copy(), **new})
            continue
        options = rule.specified("", full) | {n: group[n] for n in ("l1", "cautious", "cautious_decay", "decay_mode")}
        options |= {"clip_value": full["clip_value"], "decay_lr": group.get("decay_lr"), "mask": kept[k]}
        options |= {"starts": rule.starts(full), "seed": full["seed"], "tensor": state.get("tensor_id", 0)}
        if full["max_norm"] is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, full["max_norm"])
        names, row = rule.state_keys(full), np.empty(7)
        own = {name: state[name] for name in names}
        if group["ema_decay"] is not None:
            options |= {**average, "ema_weight": weight}
        new = getattr(reference, rule.name())(p, g, **own, step=state["step"] + 1, stats=row, **options)
        values = dict(zip(["param", *names, *(["ema"] if group["ema_decay"] is not None else [])], new, strict=True))
        found.append({**state, **values, "step": state["step"] + 1})
        row[4] /= max(p.size, 1)
        stats[str(k)] = dict(zip(reference.STATISTICS, row.tolist(), strict=True))
    return found, stats


def step_as_specified(opt: Any, grads: list[Any]) -> None:
    want, stats = expect(opt, grads)
    opt.step(grads)
    params = [p for group in opt.param_groups for p in group["params"]]
    for k, (p, state, expected) in enumerate(zip(params, opt.state, want, strict=True)):
        assert {"param", *state} == expected.keys()
        for name, value in expected.items():
            assert_same_bits({"param": p, **state}[name], value, f"{name} of parameter {k}")
    if opt.param_groups[0]["stats"]:
        assert opt.stats() == stats


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_steps_equal_the_specification(name: str, dtype: Any) -> None:
    rule = RULES[name]
    opt = getattr(fnp, name)(
        arrays(dtype),
        lr=0.05,
        **({"weight_decay": 0.1} if "weight_decay" in rule.own else {}),
        l1=0.3,
        cautious="unscaled",
        ema_decay=0.9,
        ema_warmup=POWER,
        stats=True,
        max_norm=1.0,
        clip_value=0.01,
        **({"decay_mode": "squared", "cautious_decay": True} if rule.is_decoupled(rule.defaults) else {}),
    )
    opt.set_mask(masks())
    for seed in range(5):
        grads: list[Any] = arrays(dtype, 10 + seed)
        if seed == 2:
            grads[3] = None  # its average follows
        step_as_specified(opt, grads)
    assert [group["ema_step"] for group in opt.param_groups] == [5]
    for k, mask in masks().items():
        assert (opt.param_groups[0]["params"][k][~mask] == 0).all()


def test_options_belong_to_groups_and_may_change() -> None:
    params = arrays()
    opt = fnp.AdamW([{"params": params[:2], "l1": 0.5}, {"params": params[2:], "mask": "nonzero"}], lr=0.05)
    assert [group["l1"] for group in opt.param_groups] == [0.5, 0.0]
    assert [group["mask"] for group in opt.param_groups] == [None, "nonzero"]
    assert "l1" not in opt.param_groups[1]
    for seed, changes in enumerate([{}, {"l1": 0.1}, {"cautious": "unscaled"}, {"l1": 0.0, "stats": True}, {}]):
        opt.param_groups[1].update(changes)
        opt.param_groups[0].update(changes)
        step_as_specified(opt, arrays(seed=seed))
    opt.param_groups[0]["l1"] = -1.0
    before = [p.copy() for p in params]
    with pytest.raises(ValueError, match=r"AdamW: l1 is -1\.0, expected a finite number >= 0"):
        opt.step(arrays())
    for p, old in zip(params, before, strict=True):
        assert_same_bits(p, old)


def test_a_plain_group_has_no_key_of_a_ride_along() -> None:
    opt = fnp.AdamW(arrays())
    opt.step(arrays(seed=1))
    assert opt.param_groups[0].keys() == {"params", *RULES["AdamW"].defaults}
    assert opt.state[0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert not [key for key in opt.state_dict() if "ema" in key or "decay_lr" in key]
    with pytest.raises(KeyError):
        opt.param_groups[0]["no such option"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"l1": np.inf}, ValueError, "AdamW: l1 is inf, expected a finite number >= 0"),
        ({"mask": "zero"}, ValueError, "AdamW: mask is 'zero', expected None or 'nonzero'; opt.set_mask"),
        ({"mask": np.ones(3, bool)}, ValueError, "AdamW: mask is a ndarray, expected None or 'nonzero'; opt.set_mask"),
        ({"cautious": True}, ValueError, "AdamW: cautious is True, expected False or 'unscaled'"),
        ({"decay_mode": None}, ValueError, "AdamW: decay_mode is None, expected one of 'lr'"),
        ({"decay_mode": "relative", "lr": 0.0}, ValueError, "AdamW: decay_lr is 0.0, expected a finite number > 0"),
        ({"decay_lr": -1}, ValueError, "AdamW: decay_lr is -1, expected a finite number > 0"),
        ({"ema_decay": 1.1}, ValueError, "AdamW: ema_decay is 1.1, expected 0 <= ema_decay <= 1"),
        ({"ema_warmup": "mean"}, ValueError, "AdamW: ema_warmup without ema_decay, expected both or neither"),
        (
            {"ema_decay": 0.9, "ema_warmup": "slow"},
            ValueError,
            "AdamW: ema_warmup is 'slow', expected 'linear'",
        ),
        ({"ema_decay": 0.9, "ema_warmup": {"kind": "slow"}}, ValueError, r"AdamW: ema_warmup\['kind'\] is 'slow'"),
        (
            {"ema_decay": 0.9, "ema_warmup": {"kind": "power", "gama": 1}},
            ValueError,
            "AdamW: ema_warmup has 'gama', expected for 'power' the name of gamma, power, min_decay, update_after_step",
        ),
        (
            {"ema_decay": 0.9, "ema_warmup": {"kind": "mean", "gamma": 1}},
            ValueError,
            "AdamW: ema_warmup has 'gamma', expected for 'mean' the name of none",
        ),
        (
            {"ema_decay": 0.9, "ema_warmup": {"kind": "power", "gamma": 0}},
            ValueError,
            r"AdamW: ema_warmup\['gamma'\] is 0, expected a finite number > 0",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fnp.AdamW(arrays(), **options)
    opt = fnp.AdamW(arrays())
    with pytest.raises(error, match=text):
        opt.add_param_group({"params": arrays(), **options})
    assert len(opt.param_groups) == 1


def test_masks_that_are_refused() -> None:
    opt = fnp.AdamW([*arrays(), np.ones(2, "c8")])
    opt.add_param_group({"params": [np.ones(2)], "mask": "nonzero"})
    good = masks()[0]
    for bad, error, text in [
        ({7: good}, ValueError, "AdamW: set_mask names 7, expected an index below 6"),
        ({True: good}, ValueError, "AdamW: set_mask names True, expected an index below 6"),
        ({0: np.ma.MaskedArray(good, good)}, TypeError, r"AdamW: mask of params\[0\] is a masked array, expected a"),
        ({"0": good}, ValueError, "AdamW: set_mask names '0', expected an index below 6"),
        ({0: good.astype("f4")}, TypeError, r"AdamW: mask of params\[0\] has dtype float32, expected bool"),
        ({0: good.T}, ValueError, r"AdamW: mask of params\[0\] has shape \(5, 3\), expected \(3, 5\) to match it"),
        ({4: np.ones(2, bool)}, TypeError, r"AdamW: mask of params\[4\]: the parameter has dtype complex64"),
        ({5: np.ones(2, bool)}, ValueError, r"AdamW: mask of params\[5\] in a group with mask='nonzero'"),
    ]:
        with pytest.raises(error, match=text):
            opt.set_mask({3: masks()[3], **bad})
        assert not any("mask" in state for state in opt.state)
    with pytest.raises(TypeError, match="AdamW: masks is a list, expected a dict of masks by the index"):
        opt.set_mask([good])  # type: ignore[arg-type]
    opt.set_mask({np.int64(0): good})  # type: ignore[dict-item]
    opt.param_groups[0]["mask"] = "nonzero"
    with pytest.raises(ValueError, match="AdamW: mask is 'nonzero' for parameters that have masks of their own"):
        opt.step([*arrays(), np.ones(2, "c8"), np.ones(2)])


def test_a_mask_is_a_copy_and_can_be_taken_away() -> None:
    opt, given = fnp.SGD(arrays(), lr=0.1, momentum=0.9), masks()
    opt.set_mask(given)
    given[0][...] = True
    step_as_specified(opt, arrays(seed=1))
    assert (opt.param_groups[0]["params"][0][~masks()[0]] == 0).all()
    opt.set_mask({0: None, 1: None})
    assert "mask" not in opt.state[0]
    step_as_specified(opt, arrays(seed=2))
    assert (opt.param_groups[0]["params"][0] != 0).all()


def test_state_returns_to_where_it_starts() -> None:
    opt = fnp.Adagrad(arrays(), lr=0.1, initial_accumulator_value=0.25)
    opt.set_mask(masks())
    step_as_specified(opt, arrays(seed=1))
    assert (opt.state[0]["sum"][~masks()[0]] == 0.25).all()


def test_averages() -> None:
    params = arrays(BFLOAT16)
    opt = fnp.AdamW(params, lr=0.1, ema_decay=0.5)
    assert [e.dtype for e in opt.ema_parameters()] == [np.float32] * 4
    opt.step(arrays(BFLOAT16, 1))
    opt.step(arrays(BFLOAT16, 2))
    averages, kept = opt.ema_parameters(), [p.copy() for p in params]
    assert averages[0] is opt.state[0]["ema"]
    with opt.swap_ema():
        for p, e in zip(params, averages, strict=True):
            assert_same_bits(p, e.astype(BFLOAT16))
        with pytest.raises(RuntimeError, match=r"AdamW: step\(\) within swap_ema\(\)"):
            opt.step(arrays(BFLOAT16, 3))
        with pytest.raises(RuntimeError, match=r"AdamW: swap_ema\(\) within swap_ema\(\)"), opt.swap_ema():
            pass
    with pytest.raises(KeyError), opt.swap_ema():
        raise KeyError
    for p, old in zip(params, kept, strict=True):
        assert_same_bits(p, old)
    step_as_specified(opt, arrays(BFLOAT16, 3))
    for name in ("ema_parameters", "swap_ema"):
        with pytest.raises(ValueError, match=rf"SGD: {name}\(\) without ema_decay, expected it in a group"):
            list(fnp.SGD(arrays()).ema_parameters()) if name == "ema_parameters" else fnp.SGD(
                arrays()
            ).swap_ema().__enter__()


def test_averages_start_anew_with_the_state() -> None:
    opt = fnp.AdamW(arrays(), ema_decay=0.9, ema_warmup="mean")
    for seed in range(3):
        opt.step(arrays(seed=seed))
    opt.state.clear()
    opt.ema_parameters()
    opt.step(arrays(seed=4))
    assert opt.param_groups[0]["ema_step"] == 1
    for p, e in zip(opt.param_groups[0]["params"], opt.ema_parameters(), strict=True):
        assert_same_bits(e, p)
    step_as_specified(opt, arrays(seed=5))
    opt.param_groups[0]["ema_step"] = -1
    with pytest.raises(ValueError, match="AdamW: ema_step is -1, expected an integer from 0"):
        opt.step(arrays(seed=6))


def test_a_swap_that_fails_leaves_everything() -> None:
    params = arrays()
    opt = fnp.AdamW(params, ema_decay=0.5)
    opt.step(arrays(seed=1))
    opt.step(arrays(seed=2))
    before = [p.copy() for p in params]
    params[3].flags.writeable = False
    with pytest.raises(ValueError, match=r"AdamW: swap_ema\(\) with params\[3\] read-only"), opt.swap_ema():
        pass
    params[3].flags.writeable = True
    for p, old in zip(params, before, strict=True):
        assert_same_bits(p, old)
    step_as_specified(opt, arrays(seed=3))


def test_a_law_that_comes_later_has_the_rate_before_it() -> None:
    opt = fnp.AdamW(arrays(), lr=0.2, weight_decay=0.1)
    opt.param_groups[0]["decay_mode"] = "relative"
    opt.step(arrays(seed=1), lr=0.1)
    assert opt.param_groups[0]["decay_lr"] == 0.2
    opt.param_groups[0]["lr"] = 0.05
    step_as_specified(opt, arrays(seed=2))
    assert opt.param_groups[0]["decay_lr"] == 0.2


def test_a_skipped_step_moves_nothing() -> None:
    opt = fnp.AdamW(arrays(), max_norm=1.0, nonfinite="skip", ema_decay=0.5, stats=True)
    opt.step(arrays(seed=1))
    before = [e.copy() for e in opt.ema_parameters()]
    bad = arrays(seed=2)
    bad[0][0, 0] = np.nan
    opt.step(bad)
    assert opt.skipped_steps == 1
    assert opt.param_groups[0]["ema_step"] == 1
    assert opt.stats() == {}
    for e, old in zip(opt.ema_parameters(), before, strict=True):
        assert_same_bits(e, old)


def test_statistics_need_the_option() -> None:
    opt = fnp.AdamW(arrays())
    with pytest.raises(ValueError, match=r"AdamW: stats\(\) without stats=True, expected it in a group"):
        opt.stats()
    opt.param_groups[0]["stats"] = True
    assert opt.stats() == {}
    opt.step([*arrays(seed=1)[:3], None])
    assert list(opt.stats()) == ["0", "1", "2"]


def make() -> Any:
    opt = fnp.AdamW(arrays(), lr=0.1, weight_decay=0.1, ema_decay=0.9, ema_warmup="mean", decay_mode="relative")
    opt.set_mask(masks())
    return opt


@pytest.mark.parametrize("how", ["dict", "file"])
def test_checkpoints(how: str) -> None:
    opt = make()
    for seed in range(3):
        opt.step(arrays(seed=seed))
    saved: Any = opt.state_dict()
    assert {"state.0.mask", "state.1.ema", "group.0.ema_step", "group.0.decay_lr"} <= saved.keys()
    assert not [key for key in saved if key.endswith((".l1", ".ema_decay", ".stats", ".decay_mode"))]
    if how == "file":
        file = io.BytesIO()
        np.savez(file, **saved)
        file.seek(0)
        saved = np.load(file)
    params = [p.copy() for p in opt.param_groups[0]["params"]]
    new = fnp.AdamW(params, lr=0.7, ema_decay=0.9, ema_warmup="mean", decay_mode="relative")
    new.load_state_dict(saved)
    assert new.param_groups[0]["decay_lr"] == 0.1
    assert new.param_groups[0]["ema_step"] == 3
    for each in (opt, new):
        step_as_specified(each, arrays(seed=9))
    for a, b in zip(opt.param_groups[0]["params"], params, strict=True):
        assert_same_bits(a, b)
    plain = fnp.AdamW([p.copy() for p in params])
    plain.load_state_dict(saved)
    assert "decay_lr" not in plain.param_groups[0]
    assert "mask" in plain.state[0]
    plain.step(arrays(seed=9))
    assert (plain.param_groups[0]["params"][0][~masks()[0]] == 0).all()


def test_a_checkpoint_without_ride_alongs_loads() -> None:
    plain = fnp.AdamW(arrays(), lr=0.1)
    plain.step(arrays(seed=1))
    opt = make()
    opt.step(arrays(seed=1))
    opt.load_state_dict(plain.state_dict())
    assert opt.param_groups[0]["ema_step"] == 0
    assert opt.param_groups[0]["decay_lr"] == 0.1
    assert "mask" not in opt.state[0]
    step_as_specified(opt, arrays(seed=2))


def test_checkpoints_that_are_refused() -> None:
    opt = make()
    opt.step(arrays(seed=1))
    for key, value, text in [
        ("state.0.mask", np.ones((3, 5)), r"state\[0\].mask of the state_dict has shape \(3, 5\) and dtype float64"),
        ("state.0.mask", np.ones(3, bool), r"state\[0\].mask of the state_dict has shape \(3,\)"),
        ("state.0.ema", np.ones(3, "f4"), r"state\[0\].ema of the state_dict has shape \(3,\), expected \(3, 5\)"),
        ("group.0.ema_step", np.array(-1), r"group.0.ema_step of the state_dict is -1, expected an integer"),
        ("group.0.decay_lr", np.array(0.0), r"decay_lr is 0.0, expected a finite number > 0"),
    ]:
        before = opt.state_dict()
        with pytest.raises(ValueError, match=text):
            opt.load_state_dict({**before, key: value})
        after = opt.state_dict()
        assert before.keys() == after.keys()
        for name in before:
            assert_same_bits(after[name], before[name], name)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_copies(copied: Any) -> None:
    opt = make()
    opt.step(arrays(seed=1))
    other = copied(opt)
    for each in (opt, other):
        step_as_specified(each, arrays(seed=2))
    for a, b in zip(opt.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        assert_same_bits(a, b)
