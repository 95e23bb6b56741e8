"""``fusedstep.numpy``: each class against the reference stepped by hand, bit for bit; state; use without torch."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedstep import functional, reference
from fusedstep import numpy as fnp
from tests.helpers import declared
from tests.helpers.bits import assert_same_bits, reals
from tests.helpers.declared import RULES

CLIP = {"max_norm": 0.75, "clip_value": 0.25, "maximize": True, "weight_decay": 0.1}
CASES: list[tuple[str, dict[str, Any]]] = [
    *declared.CASES,
    *(
        (cls, declared.known(rule, {**chosen, **CLIP}))
        for cls, rule in RULES.items()
        for chosen in rule.variants().values()
    ),
    *((cls, {"max_norm": 1e-3}) for cls in RULES),
    *((cls, declared.known(rule, {"lr": 0.3, "weight_decay": 0.2})) for cls, rule in RULES.items()),
]


class Model:
    """What the optimizer should do, by hand: the reference, once per parameter."""

    def __init__(self, cls: str, groups: list[tuple[list[np.ndarray], dict[str, Any]]]) -> None:
        self.cls = cls
        self.params: list[np.ndarray] = []
        self.options: list[dict[str, Any]] = []
        for arrays, options in groups:
            self.params += [reals(a) for a in arrays]
            self.options += [{**RULES[cls].defaults, **options}] * len(arrays)
        rule = RULES[cls]
        self.names = [rule.state_keys(o) for o in self.options]
        self.states = [
            [*(np.full_like(p, v) for v in rule.starts(o).values()), *map(np.array, rule.number_starts(o).values())]
            for p, o in zip(self.params, self.options, strict=True)
        ]
        self.steps = [0] * len(self.params)

    def step(self, grads: list[Any], lr: float | None = None, grad_scale: float = 1.0) -> float | None:
        live = [(k, reals(g)) for k, g in enumerate(grads) if g is not None]
        normed = [g for k, g in live if self.options[k]["max_norm"] is not None]
        norm = reference.total_norm(normed) / grad_scale
        for k, grad in live:
            own = self.options[k] if lr is None else {**self.options[k], "lr": lr}
            options = {**declared.numbers_of(RULES[self.cls], own), "clip_value": own["clip_value"]}
            if own["max_norm"] is not None:
                options["clip_coef"] = reference.clip_coefficient(norm, own["max_norm"])
            states = dict(zip(self.names[k], self.states[k], strict=True))
            self.steps[k] += 1
            rule = getattr(reference, RULES[self.cls].name())
            new = rule(self.params[k], grad, **states, step=self.steps[k], grad_scale=grad_scale, **options)
            self.params[k], self.states[k] = new[0], list(new[1:])
        return norm if normed else None

    def check(self, opt: fnp.Optimizer) -> None:
        params = [p for group in opt.param_groups for p in group["params"]]
        for k, (param, state) in enumerate(zip(params, opt.state, strict=True)):
            assert_same_bits(reals(param), self.params[k], f"param {k}")
            assert state["step"] == self.steps[k]
            assert set(state) == {"step", *self.names[k]}
            for name, value in zip(self.names[k], self.states[k], strict=True):
                assert_same_bits(reals(state[name]), value, f"{name} {k}")


def random(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(shape)
    return np.asarray(x + 1j * rng.standard_normal(shape) if dtype in "FD" else x).astype(dtype)


SHAPES = [(3000,), (17, 5), (), (0,), (2, 3, 4), (1,)]


def make(dtype: str = "f", shapes: list[tuple[int, ...]] = SHAPES) -> tuple[list[Any], Callable[[], list[Any]]]:
    """Parameters, and a source of gradients."""
    rng = np.random.default_rng(11)
    return [random(s, dtype, rng) for s in shapes], lambda: [random(s, dtype, rng) for s in shapes]


def equal_norms(got: float | None, expected: float | None) -> None:
    assert (got is None) == (expected is None)
    if got is not None:
        assert isinstance(got, float)
        assert_same_bits(np.float64(got), np.float64(expected))


def run(opt: fnp.Optimizer, model: Model, gradients: Callable[[], list[Any]], steps: int = 3, **options: Any) -> None:
    for _ in range(steps):
        grads = gradients()
        before = [None if g is None else g.copy() for g in grads]
        norm = opt.step(grads, **options)
        equal_norms(norm, model.step(grads, **options))
        equal_norms(opt.total_norm, norm)
        model.check(opt)
        for grad, old in zip(grads, before, strict=True):
            assert grad is None or np.array_equal(grad, old, equal_nan=True)


def fit(options: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Complex numbers have no order to clip by, and are refused."""
    return {k: v for k, v in options.items() if k != "clip_value" or dtype in "fd"}


@pytest.mark.parametrize(("cls", "options"), CASES)
@pytest.mark.parametrize("dtype", "fdFD")
def test_equals_the_reference(cls: str, options: dict[str, Any], dtype: str) -> None:
    options = fit(options, dtype)
    params, gradients = make(dtype)
    model = Model(cls, [(params, options)])
    run(getattr(fnp, cls)(params, **options), model, gradients)


def spread(array: np.ndarray, kind: str) -> np.ndarray:
    """The same values in another layout."""
    n, m = array.shape
    view: np.ndarray = {
        "Fortran": lambda: np.zeros((n, m), array.dtype, order="F"),
        "transposed": lambda: np.zeros((m, n), array.dtype).T,
        "sliced": lambda: np.zeros((2 * n + 1, m + 3), array.dtype)[1::2, 2:-1],
        "reversed": lambda: np.zeros((n, m), array.dtype)[::-1, ::-1],
        "strided and reversed": lambda: np.zeros((3 * n, 2 * m), array.dtype).T[::-2, ::3].T,
        "field": lambda: np.zeros((n, m), [("other", array.dtype), ("value", array.dtype)])["value"],
    }[kind]()
    view[...] = array
    return view


LAYOUTS = ["Fortran", "transposed", "sliced", "reversed", "strided and reversed", "field"]


@pytest.mark.pairwise("options", "dtype", "layout")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", "fF")
@pytest.mark.parametrize(("cls", "options"), [case for case in CASES if "max_norm" in case[1] and len(case[1]) > 1])
def test_layouts(cls: str, options: dict[str, Any], dtype: str, layout: str) -> None:
    options = fit(options, dtype)
    params, gradients = make(dtype, [(41, 13), (70, 65)])
    model = Model(cls, [(params, options)])
    other = LAYOUTS[LAYOUTS.index(layout) - 1]
    layouts = [layout, other]
    params = [spread(p, kind) for p, kind in zip(params, layouts, strict=True)]
    run(
        getattr(fnp, cls)(params, **options),
        model,
        lambda: [spread(g, kind) for g, kind in zip(gradients(), reversed(layouts), strict=True)],
    )


def test_around_a_view_nothing_is_written() -> None:
    base, expected = np.full((40, 9), 7, np.float32), np.full((40, 9), 7, np.float32)
    expected[1::2, 3:6] = 6
    fnp.SGD(base[1::2, 3:6], lr=1.0).step(np.ones((20, 3), np.float32))
    assert_same_bits(base, expected)


@pytest.mark.parametrize("cls", RULES)
def test_groups_missing_gradients_and_rates(cls: str) -> None:
    params, gradients = make()
    own = [
        {},
        declared.known(RULES[cls], {"lr": 0.5, "max_norm": 0.1, "weight_decay": 0.3}),
        {"maximize": True, "clip_value": 0.1, "max_norm": 2.0},
    ]
    if cls in ("SGD", "RMSprop"):
        own[2]["momentum"] = 0.8
    parts = [params[:2], params[2:4], params[4:]]
    common = {"lr": 0.25}
    model = Model(cls, [(part, {**common, **options}) for part, options in zip(parts, own, strict=True)])
    groups = [{"params": part, **options} for part, options in zip(parts, own, strict=True)]
    opt = getattr(fnp, cls)(groups[:2], **common)
    opt.add_param_group(groups[2])
    absent = iter([{0}, {3, 4}, set(), {0, 1, 2}, {2, 5}, {1}])

    def some() -> list[Any]:
        missing = next(absent)
        return [None if k in missing else g for k, g in enumerate(gradients())]

    run(opt, model, some)
    run(opt, model, some, 1, lr=0.125)
    run(opt, model, some, 1, grad_scale=1024.0)
    for k, group in enumerate(opt.param_groups):
        group["lr"] = 0.1 * k
        for index in range(2 * k, 2 * k + 2):
            model.options[index] = {**model.options[index], "lr": 0.1 * k}
    run(opt, model, some, 1, grad_scale=3.0)
    assert [g["lr"] for g in opt.param_groups] == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("cls", RULES)
def test_complex_has_no_clip_value(cls: str) -> None:
    params, gradients = make("F")
    before, opt = [p.copy() for p in params], getattr(fnp, cls)(params, clip_value=1.0)
    with pytest.raises(TypeError, match=rf"{cls}: params\[0\].*complex64"):
        opt.step(gradients())
    assert all(map(np.array_equal, params, before))


@pytest.mark.parametrize("cls", RULES)
def test_no_gradient_at_all(cls: str) -> None:
    params, gradients = make()
    model = Model(cls, [(params, {})])
    opt = getattr(fnp, cls)(params)
    assert opt.step([None] * len(params)) is None
    model.check(opt)
    run(opt, model, gradients)


@pytest.mark.parametrize("value", [inf, -inf, nan])
@pytest.mark.parametrize("cls", RULES)
def test_gradient_that_is_not_finite(cls: str, value: float) -> None:
    for options in ({}, {"max_norm": 1.0}, {"clip_value": 1.0}):
        params, gradients = make()
        model = Model(cls, [(params, options)])

        def bad(gradients: Callable[[], list[Any]] = gradients) -> list[Any]:
            grads = gradients()
            grads[1][3, 2] = value
            return grads

        run(getattr(fnp, cls)(params, **options), model, bad, 2)


@pytest.mark.parametrize("p", [1, 2, 2.5, inf])
def test_no_arrays(p: float) -> None:
    assert functional.total_norm([], p) == 0.0
    assert reference.total_norm([], p) == 0.0
    assert functional.clip_grad_norm([], 1.0, p) == 0.0
    assert functional.total_norm([], p, per_tensor=True) == []
    assert functional.sgd([], [], lr=0.1) is None
    assert functional.sgd([], [], lr=0.1, max_norm=1.0, norm_type=p) == 0.0
    assert functional.sgd([], [], lr=0.1, max_norm=1.0, norm_type=p, per_tensor=True) == []


@pytest.mark.parametrize("cls", RULES)
def test_signature(cls: str) -> None:
    parameters = inspect.signature(getattr(fnp, cls)).parameters
    assert next(iter(parameters)) == "params"
    shown = {k: p.default for k, p in parameters.items() if k != "params"}
    rides = {"l1": 0.0, "mask": None, "cautious": False, "cautious_decay": False, "decay_mode": "lr", "ema_decay": None}
    rides |= {"ema_warmup": None, "stats": False, "decay_lr": None}
    assert shown == RULES[cls].defaults | rides


# ------------------------------------------------------------------------------------------------------------- state


def through_npz(opt: fnp.Optimizer, new: fnp.Optimizer, path: Path) -> fnp.Optimizer:
    np.savez(path / "state.npz", **opt.state_dict())
    with np.load(path / "state.npz") as file:  # without pickle
        new.load_state_dict(file)
    return new


def through_dict(opt: fnp.Optimizer, new: fnp.Optimizer, path: Path) -> fnp.Optimizer:
    state = opt.state_dict()
    new.load_state_dict(state)
    for value in state.values():  # it was copied, so this reaches neither
        if value.ndim:
            value[...] = nan
    return new


def through_pickle(opt: fnp.Optimizer, new: fnp.Optimizer, path: Path) -> fnp.Optimizer:
    return pickle.loads(pickle.dumps(opt))


def through_deepcopy(opt: fnp.Optimizer, new: fnp.Optimizer, path: Path) -> fnp.Optimizer:
    return copy.deepcopy(opt)


@pytest.mark.parametrize("through", [through_npz, through_dict, through_pickle, through_deepcopy])
@pytest.mark.parametrize(("cls", "options"), CASES)
def test_goes_on_where_it_was(cls: str, options: dict[str, Any], through: Any, tmp_path: Path) -> None:
    params, gradients = make()
    model = Model(cls, [(params[:3], options), (params[3:], {**options, "lr": 0.03})])

    def new(params: list[Any], **other: Any) -> fnp.Optimizer:
        return getattr(fnp, cls)([{"params": params[:3]}, {"params": params[3:], "lr": 0.03}], **{**options, **other})

    opt = new(params)
    run(opt, model, gradients, 2)
    opt.param_groups[0]["lr"] = 0.07
    model.options[:3] = [{**o, "lr": 0.07} for o in model.options[:3]]
    old = [p.copy() for p in params]
    again = through(opt, new([p.copy() for p in params], lr=9.0), tmp_path)
    run(again, model, gradients, 2)
    for param, value in zip(params, old, strict=True):
        assert_same_bits(param, value, "the first optimizer's parameters")
    assert [g["lr"] for g in again.param_groups] == [0.07, 0.03]
    kinds = {k: type(v) for k, v in opt.param_groups[0].items()}
    assert {k: type(v) for k, v in again.param_groups[0].items()} == kinds


@pytest.mark.parametrize("count", [200, 2**24, 2**53 - 4])
@pytest.mark.parametrize(("cls", "options"), declared.CASES)
def test_goes_on_after_many_steps(cls: str, options: dict[str, Any], count: int) -> None:
    params, gradients = make()
    model = Model(cls, [(params, options)])
    opt = getattr(fnp, cls)(params, **options)
    run(opt, model, gradients, 1)
    state = opt.state_dict()
    opt.load_state_dict({key: np.array(count) if key.endswith(".step") else value for key, value in state.items()})
    model.steps = [count] * len(params)
    run(opt, model, gradients, 3)


WRONG: list[dict[Any, Any]] = [  # changes to a state_dict, ... removes
    {"foo": 1},
    {3: 1},
    {"group.0.foo": 1},
    {"group.0.params": np.ones(3)},
    {"group.2.lr": 1},
    {"state.6.step": 1},
    {"state.-1.step": 1},
    {"group.1.lr": ...},
    {"group.1.lr": -1.0},
    {"group.1.lr": "x"},
    {"group.1.betas": (0.9, 1.0)},
    {"group.1.amsgrad": True},
    {"state.5.exp_avg": ...},
    {"state.5.foo": np.zeros(1)},
    *({"state.5.exp_avg": np.zeros(1, dtype)} for dtype in ("f8", "i8", "F", "O")),
    {"state.5.exp_avg": np.zeros(2, np.float32)},
    *({"state.5.step": step} for step in (..., -1, 1.5, nan, None, "x", [1, 2], 10**30)),
]


@pytest.mark.parametrize("kind", WRONG, ids=str)
def test_wrong_state_dict_is_refused(kind: dict[Any, Any]) -> None:
    params, gradients = make()
    opt = fnp.Adam([{"params": params[:3]}, {"params": params[3:], "lr": 0.5}])
    opt.step(gradients())
    state = opt.state_dict()
    for key, value in kind.items():
        state.pop(key) if value is ... else state.update({key: value})
    before = pickle.dumps((opt.param_groups, opt.state))
    for bad in (state, {}, None, 3, fnp.SGD(params).state_dict(), fnp.Adam(params).state_dict()):
        with pytest.raises((TypeError, ValueError)):
            opt.load_state_dict(bad)
        assert pickle.dumps((opt.param_groups, opt.state)) == before
    opt.step(gradients())


def test_state_dict_is_a_flat_dict_of_copies() -> None:
    params, gradients = make()
    opt = fnp.AdamW(params, max_norm=1.0)
    opt.step(gradients())
    state = opt.state_dict()
    kept = {k: np.array(v) for k, v in state.items()}
    assert all(isinstance(k, str) and isinstance(v, np.ndarray) and v.dtype != object for k, v in state.items())
    assert not any(np.shares_memory(v, p) for v in state.values() for p in params)
    opt.step(gradients())
    for key, value in kept.items():
        assert_same_bits(state[key], value, key)


# ----------------------------------------------------------------------------------------------------- without torch

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("no module named torch", name="torch")
sys.meta_path.insert(0, Block())
"""
USE = """
import numpy as np, fusedstep, fusedstep.__main__
w = np.ones(5, np.float32)
opt = fusedstep.numpy.AdamW([w], max_norm=1.0)
opt.step([w.copy()])
fusedstep.functional.sgd(w, w.copy(), lr=0.1)
try:
    fusedstep.functional.sgd([w, None], [w, w], lr=0.1)
except TypeError:
    pass
fusedstep.__main__.main()
assert "torch" not in sys.modules
print(float(w[0]))
"""


@pytest.mark.parametrize("start", [BLOCK, "import sys"], ids=["blocked", "not imported"])
def test_without_torch(start: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", start + "\n" + USE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert isfinite(float(done.stdout.split()[-1]))
