"""What rides along with a step: every rule with every ride-along equals the specification, bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fusedstep import _rides, functional, reference
from tests.helpers.bits import BFLOAT16, Array, assert_same_bits
from tests.helpers.covering import pairwise
from tests.helpers.declared import FUNCTIONS

STORED = {"float32": np.dtype("f4"), "float64": np.dtype("f8"), "bfloat16": BFLOAT16, "float16": np.dtype("f2")}
SIZES = [0, 1, 7, 33, 700, 5000]
COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "all": {"weight_decay": 0.1, "max_norm": 0.7, "grad_scale": 2.0, "clip_value": 0.01, "maximize": True},
}
LAWS = {"lr": {}, "fixed": {"decay_mode": "fixed"}, "relative": {"decay_mode": "relative", "decay_lr": 0.03}}
LAWS["squared"] = {"decay_mode": "squared", "decay_lr": 0.03}
# Each rule, decoupled where it can be.
DECOUPLED = {
    name: options
    for name, rule in FUNCTIONS.items()
    for options in ({}, {rule.decoupled_by: True})
    if options.keys() <= rule.own.keys() and rule.is_decoupled({**rule.defaults, **options})
}


def arrays(rng: np.random.Generator, dtype: Any, special: bool) -> list[Array]:
    values = [rng.standard_normal(n) for n in SIZES]
    for v in values:
        v[rng.random(v.size) < 0.2] = 0.0
        if special and v.size > 30:
            v[rng.choice(v.size, 6, replace=False)] = [np.nan, np.inf, -np.inf, -0.0, 1e-40, -1e30]
    with np.errstate(over="ignore"):
        return [v.astype(dtype) for v in values]


def every_other(a: Array) -> Array:
    """The same, with as many elements of other arrays between."""
    between = np.zeros((a.size, 2), a.dtype)[:, 0]
    between[...] = a
    return between


def check(
    name: str,
    dtype: Any,
    options: dict[str, Any],
    ride: dict[str, Any],
    *,
    mask: str = "",
    ema: float | None = None,
    stats: bool = False,
    special: bool = False,
    strided: bool = False,
    step: int = 3,
) -> None:
    rule, rng = FUNCTIONS[name], np.random.default_rng(len(name))
    params, grads = arrays(rng, dtype, special), arrays(rng, dtype, special)
    state_dtype = dtype if dtype == np.float64 else np.float32
    options = {n: v for n, v in options.items() if n in rule.own or n != "weight_decay"}
    full = {**rule.defaults, **options, "lr": 0.05}
    names = rule.state_of(full)
    states = [[np.abs(a) for a in arrays(rng, state_dtype, False)] for _ in names]
    numbers = [[np.array(v) for _ in params] for v in rule.number_starts(full).values()]
    masks: Any = None
    if mask == "array":
        masks = [None if k == 4 else rng.random(p.shape) < 0.7 for k, p in enumerate(params)]
    elif mask:
        masks = mask
    emas = None if ema is None else arrays(rng, state_dtype, False)
    rows = np.full((len(params), 7), -1.0) if stats else None

    # Norms count what the masks leave.
    keeps = [
        reference.kept(reference.decode(p), masks if isinstance(masks, str) or masks is None else masks[k])
        for k, p in enumerate(params)
    ]
    norm = reference.total_norm([reference.masked(reference.decode(g), k) for g, k in zip(grads, keeps, strict=True)])
    spec = rule.specified("", full) | ride
    for given in ("clip_value", "grad_scale"):
        if given in options:
            spec[given] = options[given]
    if "max_norm" in options:
        spec["clip_coef"] = reference.clip_coefficient(norm / options.get("grad_scale", 1.0), options["max_norm"])
    want_rows = np.full((len(params), 7), -1.0)
    want = []
    for k, (p, g) in enumerate(zip(params, grads, strict=True)):
        own = {s.name: states[i][k] for i, s in enumerate(names)}
        own |= {n.name: numbers[i][k] for i, n in enumerate(rule.numbers)}
        beside = {} if emas is None else {"ema": emas[k], "ema_weight": ema}
        mine = masks if masks is None or isinstance(masks, str) else masks[k]
        new = getattr(reference, name)(
            p, g, **own, step=step, mask=mine, stats=want_rows[k], tensor=k, **beside, **spec
        )
        want.append(new)

    if strided:
        params, grads, *states = ([every_other(a) for a in own] for own in (params, grads, *states))
        masks = [m if m is None else every_other(m) for m in masks] if isinstance(masks, list) else masks
        emas = emas and [every_other(a) for a in emas]
    lists = {s.argument: states[i] for i, s in enumerate(names)} | {
        n.argument: numbers[i] for i, n in enumerate(rule.numbers)
    }
    call = {
        n: v
        for n, v in options.items()
        if n in functional._updates.options_of(rule) or n in ("grad_scale", "max_norm", "clip_value")
    }
    counted = {"step": step} if rule.needs_step or any(s.kind == "unsigned" for s in rule.states) else {}
    got_norm = getattr(functional, name)(
        params,
        grads,
        **lists,
        **counted,
        **call,
        **ride,
        lr=0.05,
        masks=masks,
        emas=emas,
        ema_weight=ema,
        stats_out=rows,
    )
    if "max_norm" in options:
        assert_same_bits(np.float64(got_norm), np.float64(norm / options.get("grad_scale", 1.0)), "norm")
    for k, results in enumerate(want):
        got = [params[k], *(s[k] for s in states), *(n[k] for n in numbers)] + ([] if emas is None else [emas[k]])
        for what, (a, b) in enumerate(zip(got, results, strict=True)):
            assert_same_bits(a, b, f"array {what} of tensor {k}")
        if rows is not None:
            assert_same_bits(rows[k], want_rows[k], f"statistics of tensor {k}")


def test_a_plain_call_does_not_look_for_what_rides_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of_core", "check_together", "mask_arrays"):
        monkeypatch.delattr(_rides, name)
    p, g, m, v = (np.ones(3, np.float32) for _ in range(4))
    functional.adamw(p, g, m, v, step=1, lr=0.1)
    with pytest.raises(AttributeError):
        functional.adamw(p, g, m, v, step=1, lr=0.1, l1=0.1)


def test_messages_name_the_argument() -> None:
    p, g, m, v = (np.ones(3, np.float32) for _ in range(4))
    for bad in (np.ones((2, 7)), np.ones(7, np.float32), np.ones((1, 14))[:, ::2]):
        with pytest.raises(ValueError, match=r"adamw: stats_out\[0\] is .*, expected 1 x 7 contiguous float64 on cpu"):
            functional.adamw(p, g, m, v, step=1, lr=0.1, stats_out=bad)
        assert (p == 1).all()


VARIANTS = [(name, v) for name, rule in FUNCTIONS.items() for v in rule.variants().values()]
IDS = ["-".join([name, *map(str, v)]) for name, v in VARIANTS]


RIDES = {
    "-".join(map(str, ride)): ride
    for ride in sorted(
        pairwise(
            list(
                itertools.product(
                    ["plain", "nonzero", "array"],
                    ["none", "copy", "average"],
                    ["no_l1", "l1"],
                    ["bold", "unscaled"],
                    COMMON,
                    ["tame", "special"],
                    ["flat", "strided"],
                )
            )
        )
    )
}


@pytest.mark.pairwise("backend", "dtype", "ride", each=["name", "options"])
@pytest.mark.parametrize("ride", RIDES)
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_rides(backend: str, name: str, options: dict[str, Any], dtype: str, ride: str) -> None:
    mask, ema, l1, cautious, common, special, layout = RIDES[ride]
    check(
        name,
        STORED[dtype],
        {**options, **COMMON[common]},
        {"l1": 0.4 if l1 == "l1" else 0.0, "cautious": cautious == "unscaled" and "unscaled"},
        mask="" if mask == "plain" else mask,
        ema={"none": None, "copy": 1.0, "average": 0.01}[ema],
        stats=common != "decay",
        special=special == "special",
        strided=layout == "strided",
    )


@pytest.mark.pairwise("backend", "dtype", "law", "cautious_decay", "cautious", "step", each=["name"])
@pytest.mark.parametrize("step", [1, 3])  # some rules do not decay in the first
@pytest.mark.parametrize("cautious", ["", "unscaled"])
@pytest.mark.parametrize("cautious_decay", [False, True])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("name", DECOUPLED)
def test_decay(backend: str, name: str, dtype: str, law: str, cautious_decay: bool, cautious: str, step: int) -> None:
    ride = {**LAWS[law], "cautious_decay": cautious_decay, "cautious": cautious or False}
    options = {**DECOUPLED[name], "weight_decay": 0.2}
    check(name, STORED[dtype], options, ride, stats=True, special=True, step=step)


# ------------------------------------------------------------------------------- what the options mean, in numbers


def step_of(p: Any, g: Any, **options: Any) -> Any:
    """Plain gradient descent with a learning rate of 0.5, by the specification."""
    new = reference.sgd(
        np.array(p, "f4"),
        np.array(g, "f4"),
        **{"lr": 0.5, "momentum": 0.0, "dampening": 0.0, "nesterov": False, **options},
    )
    return [a.tolist() for a in new]


def test_l1_is_soft_thresholding() -> None:
    assert step_of([3.0, -3.0, 0.25, -0.25, 0.0], [0.0] * 5, l1=1.0) == [[2.5, -2.5, 0.0, 0.0, 0.0]]
    assert step_of([3.0], [2.0], l1=1.0) == [[1.5]]  # after the step


def test_masks_stop_elements() -> None:
    mask = np.array([True, False, True])
    assert step_of([1.0, 1.0, 0.0], [2.0, 2.0, 2.0], mask=mask) == [[0.0, 0.0, -1.0]]
    assert step_of([1.0, 0.0, np.inf], [2.0, 2.0, 2.0], mask="nonzero") == [[0.0, 0.0, np.inf]]
    assert np.isnan(step_of([np.nan], [2.0], mask="nonzero")[0]).all()
    p, b = step_of(
        [1.0, 1.0],
        [2.0, 2.0],
        momentum=0.5,
        momentum_buffer=np.array([8.0, 8.0], "f4"),
        step=2,
        mask=np.array([True, False]),
    )
    assert (p, b) == ([-2.0, 0.0], [6.0, 0.0])


def test_a_masked_state_returns_to_its_start() -> None:
    one, zero = np.ones(2, "f4"), np.zeros(2, "f4")
    mask = np.array([True, False])
    _, total = reference.adagrad(one, one, one, lr=0.1, eps=1e-10, step=1, mask=mask, starts={"sum": 0.25})
    assert total.tolist() == [2.0, 0.25]
    _, total = reference.adagrad(one, zero, one, lr=0.1, eps=1e-10, step=1, mask=mask)
    assert total.tolist() == [1.0, 0.0]


def test_cautious_steps_leave_out_what_would_go_against_the_gradient() -> None:
    buffer = np.array([8.0, -8.0, 0.0, np.nan], "f4")
    p, b = step_of([1.0] * 4, [-1.0, -1.0, 0.0, 1.0], momentum=0.5, momentum_buffer=buffer, step=2, cautious="unscaled")
    assert p[:3] == [1.0, 3.5, 1.0]
    assert np.isnan(p[3])
    assert b[:3] == [3.0, -5.0, 0.0]  # the state moves on


def test_cautious_decay_acts_where_the_step_goes_to_zero() -> None:
    options = {"decoupled": True, "weight_decay": 0.5, "cautious_decay": True}
    # lr * weight_decay is a quarter; the step is half of the gradient.
    assert step_of([4.0, 4.0, -4.0, -4.0, 4.0], [2.0, -2.0, 2.0, -2.0, 0.0], **options) == [[2.0, 5.0, -5.0, -2.0, 3.0]]


@pytest.mark.parametrize(
    ("mode", "left"), [("lr", 0.75), ("fixed", 0.5), ("relative", 0.875), ("squared", 0.9375)], ids=list(LAWS)
)
def test_laws_of_decay(mode: str, left: float) -> None:
    options = {"decoupled": True, "weight_decay": 0.5, "decay_mode": mode, "decay_lr": 2.0}
    assert step_of([8.0], [0.0], **options) == [[8.0 * left]]


def test_averages_follow_what_is_stored() -> None:
    p, g, ema = np.array([1.0], BFLOAT16), np.array([2**-9], "f4"), np.array([3.0], "f4")
    new, average = reference.sgd(p, g, lr=1.0, momentum=0.0, dampening=0.0, nesterov=False, ema=ema, ema_weight=0.25)
    assert new.tolist() == [1.0]  # half of the distance to the next one is lost
    assert average.tolist() == [2.5]
    assert reference.moved_average(ema, np.array([7.0], "f4"), 1.0).tolist() == [7.0]


def test_an_average_of_a_weight_that_rests_does_not_drift() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype("f4")
    assert_same_bits(reference.moved_average(values, values, 1e-4), values)


def test_ema_weights() -> None:
    weight = reference.ema_weight
    assert [weight(n, 0.9) for n in (0, 1, 100)] == [1.0, 1.0 - 0.9, 1.0 - 0.9]
    linear = [weight(n, 0.9, {"kind": "linear"}) for n in range(200)]
    assert linear[:2] == [1.0, 1.0 - 2 / 11]
    assert linear[100] == 1.0 - 0.9
    assert [weight(n, 0.9, {"kind": "mean"}) for n in range(4)] == [1.0, 1 / 2, 1 / 3, 1 / 4]
    power = {"kind": "power", "gamma": 1.0, "power": 2 / 3, "min_decay": 0.1, "update_after_step": 2}
    weights = [weight(n, 0.9, power) for n in range(300)]
    assert weights[:4] == [1.0] * 4
    for n in range(4, 300):
        timms = max(min(1 - (1 + (n - 3) / 1.0) ** (-2 / 3), 0.9), 0.1)
        assert weights[n] == pytest.approx(1 - timms, rel=1e-14)
    assert weights[-1] == 1.0 - 0.9


def test_statistics() -> None:
    p, g, d = (np.array(x, "f4") for x in ([3.0, 4.0, 9.0], [6.0, -8.0, np.inf], [0.6, -0.8, np.nan]))
    keep = np.array([True, True, False])
    row = reference.statistics(p, g, d, mask=keep, grad_scale=2.0, clip_value=3.5)
    expected = [
        np.sqrt(106.0),
        5.0,
        np.sqrt(float(np.float32(0.6)) ** 2 + float(np.float32(0.8)) ** 2),
        np.float32(0.8),
    ]
    assert row.tolist() == [*expected, 1.0, 0.0, 0.0]
    row = dict(zip(reference.STATISTICS, reference.statistics(p, g, d).tolist(), strict=True))
    assert row["inf"] == 1
    assert row["nan"] == 0
    assert np.isnan(row["update_max"])
    assert np.isinf(row["grad_norm"])


# -------------------------------------------------------------------------------------------------------------- errors


def call(**options: Any) -> Any:
    params = [np.ones(3, "f4"), np.ones((2, 2), "f4")]
    grads = [np.ones(3, "f4"), np.ones((2, 2), "f4")]
    moments = [[np.zeros_like(p) for p in params] for _ in range(2)]
    before = [p.copy() for p in params]
    try:
        functional.adamw(params, options.pop("grads", grads), *moments, step=1, lr=0.1, **options)
    except Exception:
        for p, old in zip(params, before, strict=True):
            assert_same_bits(p, old, "after an error")
        raise


EMAS = [np.zeros(3, "f4"), np.zeros((2, 2), "f4")]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"l1": -1.0}, ValueError, "adamw: l1 is -1.0, expected a finite number >= 0"),
        ({"l1": "x"}, TypeError, "adamw: l1 is 'x', expected a number"),
        ({"cautious": True}, ValueError, "adamw: cautious is True, expected False or 'unscaled'"),
        ({"cautious": "scaled"}, ValueError, "adamw: cautious is 'scaled', expected False or 'unscaled'"),
        ({"cautious_decay": "yes"}, TypeError, "adamw: cautious_decay is 'yes', expected True or False"),
        (
            {"decay_mode": "cubed"},
            ValueError,
            "adamw: decay_mode is 'cubed', expected one of 'lr', 'fixed', 'relative'",
        ),
        ({"decay_mode": "relative"}, ValueError, "adamw: decay_mode is 'relative' without decay_lr"),
        (
            {"decay_mode": "squared", "decay_lr": 0.0},
            ValueError,
            "adamw: decay_lr is 0.0, expected a finite number > 0",
        ),
        ({"masks": "zero"}, ValueError, "adamw: masks is 'zero', expected arrays of bool, 'nonzero' or None"),
        ({"masks": [None]}, ValueError, "adamw: masks has 1 arrays, expected 2 to match params"),
        ({"masks": [None, np.ones((2, 2))]}, TypeError, r"adamw: masks\[1\] has dtype float64, expected bool"),
        ({"masks": [np.ones(4, bool), None]}, ValueError, r"adamw: masks\[0\] has shape \(4,?\), expected \(3,?\)"),
        ({"emas": EMAS}, ValueError, "adamw: emas without ema_weight, expected both or neither"),
        ({"ema_weight": 0.5}, ValueError, "adamw: ema_weight without emas, expected both or neither"),
        ({"emas": EMAS, "ema_weight": 1.5}, ValueError, "adamw: ema_weight is 1.5, expected 0 <= ema_weight <= 1"),
        ({"emas": EMAS[:1], "ema_weight": 0.5}, ValueError, "adamw: emas has 1 arrays, expected 2 to match params"),
        (
            {"emas": [EMAS[0].astype("f8"), EMAS[1]], "ema_weight": 0.5},
            TypeError,
            r"adamw: emas\[0\] has dtype float64",
        ),
        ({"grads": [None, np.ones((2, 2), "f4")]}, TypeError, r"adamw: grads\[0\]"),
        ({"stats_out": np.zeros((2, 6))}, ValueError, r"adamw: stats.*expected 2 x 7"),
        ({"stats_out": np.zeros((2, 7), "f4")}, ValueError, r"adamw: stats.*float64"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(**options)


@pytest.mark.parametrize("options", [{"decay_mode": "fixed"}, {"cautious_decay": True}])
def test_laws_of_decay_that_a_rule_cannot_have(options: dict[str, Any]) -> None:
    p, g = np.ones(3), np.ones(3)
    (name,) = options
    with pytest.raises(ValueError, match=f"sgd: {name} is .*where decay is not decoupled$"):
        functional.sgd(p, g, lr=0.1, **options)
    way = "; decoupled_weight_decay=True decays the parameter itself"
    with pytest.raises(ValueError, match=f"adam: {name} is .*not decoupled{way}$"):
        functional.adam(p, g, p.copy(), p.copy(), step=1, lr=0.1, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"l1": 0.1},
        {"cautious": "unscaled"},
        {"masks": [np.ones(3, bool)]},
        {"masks": "nonzero"},
        {"cautious_decay": True},
    ],
    ids=str,
)
def test_complex_numbers_have_no_order(options: dict[str, Any]) -> None:
    arrays = [np.ones(3, "c8") for _ in range(4)]
    with pytest.raises(TypeError, match="complex64"):
        functional.adamw(*arrays, step=1, lr=0.1, **options)
    assert all((a == 1).all() for a in arrays)


def test_a_parameter_without_gradient_only_follows() -> None:
    p, m, v = np.ones(3, "f4"), np.zeros(3, "f4"), np.zeros(3, "f4")
    ema, rows = np.zeros(3, "f4"), np.full((1, 7), -1.0)
    functional.adamw(
        [p], [None], [m], [v], step=1, lr=0.1, weight_decay=0.5, l1=1.0, emas=[ema], ema_weight=0.25, stats_out=rows
    )
    assert p.tolist() == [1.0] * 3
    assert ema.tolist() == [0.25] * 3
    assert (rows == -1).all()
