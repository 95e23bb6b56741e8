"""``fusedstep.numpy`` and ``fusedstep.functional`` with 16-bit parameters, gradients and state."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fusedstep import functional, reference
from fusedstep import numpy as fnp
from tests.helpers import declared
from tests.helpers.bits import BFLOAT16, assert_same_bits
from tests.helpers.declared import RULES

DTYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": BFLOAT16}
SMALL = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
SHAPES: list[tuple[int, ...]] = [(3, 5), (), (0, 2), (300, 7)]
Groups = list[dict[str, Any]]


def arrays(dtype: Any, seed: int = 0, shapes: list[tuple[int, ...]] = SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def positive(given: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(np.abs(a)) for a in given]


def allowed(rule: Any, options: dict[str, Any]) -> dict[str, str]:
    """bfloat16 for all arrays that may be, of a variant."""
    full = {**rule.defaults, **options}
    return {s.name: "bfloat16" for s in rule.state_of(full) if s.rounding(full) != "exact"}


def expect(opt: Any, grads: list[Any]) -> list[dict[str, Any]]:
    """What a step must leave of each parameter and its state, by the specification."""
    rule, found = opt._rule, []
    norm = reference.total_norm(grads)
    params = [(p, group) for group in opt.param_groups for p in group["params"]]
    for (p, group), g, state in zip(params, grads, opt.state, strict=True):
        options = declared.numbers_of(rule, group) | {"clip_value": group["clip_value"], "seed": group["seed"]}
        if group["max_norm"] is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, group["max_norm"])
        names, step = rule.state_keys(group), state["step"] + 1
        own = {name: state[name] for name in names}
        tensor = state.get("tensor_id", 0)
        new = getattr(reference, rule.name())(p, g, **own, step=step, tensor=tensor, **options)
        found.append(dict(zip(["param", *names], new, strict=True)) | {"step": step})
    return found


def step_as_specified(opt: Any, grads: list[Any]) -> None:
    expected = expect(opt, grads)
    opt.step(grads)
    params = [p for group in opt.param_groups for p in group["params"]]
    for k, (p, want) in enumerate(zip(params, expected, strict=True)):
        got = {"param": p, **opt.state[k]}
        for name, value in want.items():
            assert_same_bits(got[name], value, f"{name} {k}")


def bits_of(opt: Any) -> list[dict[str, Any]]:
    return [{k: (v.dtype, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in s.items()} for s in opt.state]


def through_file(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return np.load(file)


def drawing(params: Any, **options: Any) -> Any:
    return fnp.Adam(params, lr=0.05, state_dtype="bfloat16", **options)


# ---------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.pairwise("options", "dtype", "stored", "max_norm")
@pytest.mark.parametrize(("cls", "options"), declared.CASES)
@pytest.mark.parametrize("stored", [None, "bfloat16"])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@SMALL
def test_equals_the_specification(
    cls: str, options: dict[str, Any], dtype: Any, stored: str | None, max_norm: float | None
) -> None:
    rule = RULES[cls]
    state_dtype = allowed(rule, options) if stored else None
    opt: Any = fnp.get(cls)(
        arrays(dtype), **{"lr": 0.05, **options}, state_dtype=state_dtype, seed=7, max_norm=max_norm
    )
    for seed in range(3):
        step_as_specified(opt, arrays(dtype, 10 + seed))
    full = {**rule.defaults, **options, "state_dtype": state_dtype}
    for k, state in enumerate(opt.state):
        assert {n: state[n].dtype.name for n in rule.state_names(full)} == rule.formats("", full)
        assert state.get("tensor_id") == (k if rule.draws("", full) else None)


@SMALL
@pytest.mark.parametrize("grad", DTYPES.values(), ids=DTYPES)
def test_gradients_of_another_dtype(dtype: Any, grad: Any) -> None:
    opt = fnp.AdamW(arrays(dtype), max_norm=0.5)
    for seed in range(2):
        step_as_specified(opt, arrays(grad, 10 + seed))


def test_state_starts_as_a_parameter_is_laid_out() -> None:
    p = np.asfortranarray(arrays(BFLOAT16, shapes=[(6, 7)])[0])
    opt = fnp.Adagrad([p, p[::2, ::3].copy()], state_dtype="bfloat16", initial_accumulator_value=0.5)
    assert opt.state[0]["sum"].flags.f_contiguous
    assert (opt.state[0]["sum"].dtype, float(opt.state[0]["sum"][0, 0])) == (BFLOAT16, 0.5)


def test_torch_tensors_are_parameters_too() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = arrays(BFLOAT16, shapes=[(30,)]), [torch.zeros(30, dtype=torch.bfloat16)]
    theirs[0].view(torch.int16).numpy()[:] = ours[0].view(np.int16)
    for params in (ours, theirs):
        opt = drawing(params)
        opt.step([np.ones(30, np.float32)])
        assert opt.state[0]["exp_avg"].dtype == BFLOAT16
    assert ours[0].view(np.int16).tolist() == theirs[0].view(torch.int16).tolist()


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
def test_other_parameters_have_no_choice(dtype: Any) -> None:
    opt = drawing(arrays(BFLOAT16))
    name = np.dtype(dtype).name
    for given in ("bfloat16", "float32", {"exp_avg": np.float32}):
        with pytest.raises(
            ValueError, match=rf"Adam: params\[5\] has dtype {name}, expected float32, bfloat16 or floa"
        ):
            opt.add_param_group({"params": [np.ones(2, np.float32), np.ones(2, dtype)], "state_dtype": given})
    assert (len(opt.param_groups), len(opt.state)) == (1, 4)
    opt.add_param_group({"params": [np.ones(2, dtype)], "state_dtype": None})
    assert opt.state[4]["exp_avg"].dtype == dtype
    assert "tensor_id" not in opt.state[4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"state_dtype": "float16"}, ValueError, "state_dtype is 'float16', expected 'float32' or 'bfloat16'.*6e-8"),
        ({"state_dtype": np.float16}, ValueError, "state_dtype is <class 'numpy.float16'>, expected"),
        (
            {"state_dtype": {"exp_avg": np.int8}},
            ValueError,
            r"state_dtype\['exp_avg'\] is <class 'numpy.int8'>, expected",
        ),
        ({"state_dtype": {"sum": BFLOAT16}}, ValueError, "state_dtype names 'sum', expected the name of exp_avg, exp_"),
        ({"state_dtype": 4}, TypeError, "state_dtype is 4, expected"),
        ({"seed": 1.5}, TypeError, "seed is 1.5, expected an integer"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Adam: {message}"):
        fnp.Adam(arrays(BFLOAT16), **options)
    opt = drawing(arrays(BFLOAT16))
    with pytest.raises(error, match=f"Adam: {message}"):
        opt.add_param_group({"params": [], **options})
    assert len(opt.param_groups) == 1
    before = bits_of(opt)
    opt.param_groups[0] |= options
    with pytest.raises(error, match=f"Adam: {message}"):
        opt.step(arrays(BFLOAT16))
    assert bits_of(opt) == before


def test_state_dtype_is_changed_by_loading_ones_own_checkpoint() -> None:
    opt = fnp.Adam(arrays(BFLOAT16))
    opt.step(arrays(BFLOAT16, 1))
    opt.param_groups[0]["state_dtype"] = "bfloat16"
    before = bits_of(opt)
    with pytest.raises(
        ValueError, match=r"Adam: state_dtype is 'bfloat16', which state\[0\] was not made for; opt.load"
    ):
        opt.step(arrays(BFLOAT16, 2))
    assert bits_of(opt) == before
    with pytest.warns(UserWarning, match="is rounded from float32 to bfloat16"):
        opt.load_state_dict(opt.state_dict())
    assert {opt.state[0][name].dtype for name in ("exp_avg", "exp_avg_sq")} == {BFLOAT16}
    step_as_specified(opt, arrays(BFLOAT16, 2))


def test_no_two_have_one_id() -> None:
    """Whatever was added, removed, converted and loaded before."""
    opt = drawing(arrays(BFLOAT16))
    del opt.param_groups[0]["params"][0]
    opt.add_param_group({"params": arrays(BFLOAT16, 1)[:1], "state_dtype": None})
    opt.param_groups[1]["state_dtype"] = "bfloat16"
    with pytest.warns(UserWarning, match="is rounded from float32 to bfloat16"):
        opt.load_state_dict(opt.state_dict())
    saved = {s["tensor_id"] for s in opt.state}
    assert len(saved) == len(opt.state)
    other = drawing([{"params": group["params"]} for group in opt.param_groups])
    other.load_state_dict(opt.state_dict())
    assert {s["tensor_id"] for s in other.state} == saved
    other.add_param_group({"params": arrays(BFLOAT16, 2)})
    assert len({s["tensor_id"] for s in other.state}) == len(other.state)


def test_dtypes_are_kept_by_their_names() -> None:
    """A core group is kept only where the options are plain."""
    opt = fnp.Adam([{"params": arrays(BFLOAT16), "state_dtype": {"exp_avg": BFLOAT16}}], state_dtype=BFLOAT16)
    opt.add_param_group({"params": arrays(BFLOAT16), "state_dtype": BFLOAT16})
    opt.add_param_group({"params": arrays(BFLOAT16)})
    assert [g["state_dtype"] for g in opt.param_groups] == [{"exp_avg": "bfloat16"}, "bfloat16", "bfloat16"]


def test_state_that_another_option_was_set_for() -> None:
    opt = drawing(arrays(BFLOAT16))
    opt.step(arrays(BFLOAT16, 1))
    opt.param_groups[0]["state_dtype"] = None
    before = bits_of(opt)
    with pytest.raises(ValueError, match=r"Adam: state_dtype is None, which state\[0\] was not made for"):
        opt.step(arrays(BFLOAT16, 2))
    assert bits_of(opt) == before
    opt.load_state_dict(opt.state_dict())
    assert {opt.state[0][name].dtype for name in ("exp_avg", "exp_avg_sq")} == {np.dtype(np.float32)}
    step_as_specified(opt, arrays(BFLOAT16, 2))


NO_ML_DTYPES = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, fusedstep.numpy
opt = fusedstep.numpy.AdamW([np.ones(3, np.float16)])
opt.step([np.ones(3, np.float16)])
assert opt.state[0]["exp_avg"].dtype == np.float32
saved = opt.state_dict()
saved["state.0.exp_avg"] = (saved["state.0.exp_avg"].view(np.uint32) >> 16).astype(np.uint16).view("V2")
opt.load_state_dict(saved)
assert opt.state[0]["exp_avg"].dtype == np.float32 and 0.09 < opt.state[0]["exp_avg"][0] < 0.1
try:
    fusedstep.numpy.AdamW([np.ones(3, np.float16)], state_dtype="bfloat16")
except ValueError as error:
    print(error)
"""


def test_without_ml_dtypes() -> None:
    done = subprocess.run([sys.executable, "-c", NO_ML_DTYPES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AdamW: NumPy has no bfloat16; install ml_dtypes for state_dtype 'bfloat16'")


# ----------------------------------------------------------------------------------------------------------- tensor ids


def ids(opt: Any) -> list[Any]:
    return [state.get("tensor_id") for state in opt.state]


def test_ids_are_of_all_that_were_added() -> None:
    opt = drawing(arrays(BFLOAT16, shapes=[(2,), (3,)]))
    opt.add_param_group({"params": arrays(BFLOAT16, shapes=[(4,)]), "state_dtype": None})
    opt.add_param_group({"params": arrays(BFLOAT16, shapes=[(5,)])})
    assert ids(opt) == [0, 1, None, 3]
    with pytest.raises(TypeError):
        opt.add_param_group({"params": [*arrays(BFLOAT16, shapes=[(5,)]), np.ones(3, int)]})
    del opt.param_groups[0]["params"][0]
    opt.param_groups[1]["params"] += arrays(BFLOAT16, shapes=[(6,)])
    opt.param_groups[2]["params"] += arrays(BFLOAT16, shapes=[(7,)])
    opt.step(arrays(BFLOAT16, shapes=[(3,), (4,), (6,), (5,), (7,)]))
    assert ids(opt) == [1, None, None, 3, 5]
    for each in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        each.add_param_group({"params": arrays(BFLOAT16, shapes=[(8,)])})
        assert ids(each)[-1] == 6
    opt.state.clear()
    opt.step(arrays(BFLOAT16, shapes=[(3,), (4,), (6,), (5,), (7,)]))
    assert ids(opt) == [0, None, None, 3, 4], "as of a new optimizer"


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("cls", RULES)
@pytest.mark.parametrize("stored", [None, "bfloat16"])
@SMALL
@pytest.mark.parametrize("copied", ["load", "savez", "deepcopy", "pickle"])
def test_round_trips_keep_every_bit(cls: str, stored: str | None, dtype: Any, copied: str) -> None:
    options = list(RULES[cls].variants().values())[-1]
    state_dtype = allowed(RULES[cls], options) if stored else None

    def make(params: list[np.ndarray], seed: int) -> Any:
        return fnp.get(cls)(params, **{"lr": 0.05, **options}, state_dtype=state_dtype, seed=seed)

    opt = make(arrays(dtype), 11)
    for seed in range(2):
        opt.step(arrays(dtype, seed))
    saved = opt.state_dict()
    draws = RULES[cls].draws("", opt.param_groups[0])
    assert ("group.0.seed" in saved) == ("state.0.tensor_id" in saved) == draws
    if copied in ("load", "savez"):
        other = make(copy.deepcopy(opt.param_groups[0]["params"]), 99)  # the checkpoint's seed counts
        other.load_state_dict(saved if copied == "load" else through_file(saved))
    else:
        other = copy.deepcopy(opt) if copied == "deepcopy" else pickle.loads(pickle.dumps(opt))
    assert bits_of(other) == bits_of(opt)
    for each in (opt, other):
        step_as_specified(each, arrays(dtype, 7))
    assert bits_of(other) == bits_of(opt)


LOADED = {  # saved as, kept as: whether bits are lost
    ("bfloat16", "float32"): False,
    ("float16", "float32"): False,
    ("float32", "float32"): False,
    ("bfloat16", "bfloat16"): False,
    ("float32", "bfloat16"): True,
    ("float16", "bfloat16"): True,
}


@pytest.mark.parametrize(("saved", "kept"), LOADED)
@pytest.mark.parametrize("file", [False, True])
def test_the_constructors_formats_win(saved: str, kept: str, file: bool) -> None:
    shapes: list[tuple[int, ...]] = [(5, 7), (60,)]
    opt = fnp.Adam([np.asfortranarray(a) for a in arrays(BFLOAT16, shapes=shapes)])
    opt.step(arrays(np.float32, 1, shapes))
    checkpoint = opt.state_dict()
    as_saved = BFLOAT16 if saved == "bfloat16" else np.dtype(saved)
    for k in range(2):
        checkpoint[f"state.{k}.exp_avg"] = checkpoint[f"state.{k}.exp_avg"].astype(as_saved)
    target = fnp.Adam([np.asfortranarray(a) for a in arrays(BFLOAT16, shapes=shapes)], state_dtype={"exp_avg": kept})
    given = through_file(checkpoint) if file else checkpoint
    if LOADED[saved, kept]:
        message = rf"Adam: state\[0\].exp_avg of the state_dict is rounded from {saved} to {kept} and 1 more arrays"
        before = bits_of(target)
        with pytest.raises(UserWarning, match=message):
            target.load_state_dict(given)
        assert bits_of(target) == before, "where a warning is an error, nothing is loaded"
        with pytest.warns(UserWarning, match=message) as caught:
            target.load_state_dict(given)
        assert [w.filename for w in caught] == [__file__]
    else:
        target.load_state_dict(given)
    for k in range(2):
        got = target.state[k]["exp_avg"]
        want = checkpoint[f"state.{k}.exp_avg"].astype(np.float32).astype(got.dtype)
        assert got.dtype.name == kept
        assert got.tobytes() == want.tobytes()
    assert target.state[0]["exp_avg"].flags.f_contiguous
    target.step(arrays(np.float32, 2, shapes))


BAD = {
    "int8": (
        {"exp_avg": np.ones(3, np.int8)},
        r"exp_avg of the state_dict has dtype int8, expected bfloat16 \(or float16, fl",
    ),
    "uint16": ({"exp_avg": np.ones(3, np.uint16)}, "exp_avg of the state_dict has dtype uint16, expected bfloat16"),
    "float64": ({"exp_avg": np.ones(3)}, "exp_avg of the state_dict has dtype float64, expected bfloat16"),
    "complex64": ({"exp_avg": np.ones(3, "F")}, "exp_avg of the state_dict has dtype complex64, expected bfloat16"),
    "shape": ({"exp_avg": np.ones(4, BFLOAT16)}, r"exp_avg of the state_dict has shape \(4,\), expected \(3,\)"),
    "tensor_id": ({"tensor_id": np.array(-1)}, "tensor_id is -1, expected an integer from 0"),
    "two": ({"tensor_id": np.array([1, 2])}, r"tensor_id is \(1, 2\), expected an integer"),
    "seed": ({"seed": np.array(0.5)}, "seed is 0.5, expected an integer"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_kept_changes_nothing(what: str) -> None:
    change, message = BAD[what]
    opt = drawing(arrays(BFLOAT16, shapes=[(3,)]))
    opt.step(arrays(BFLOAT16, 1, [(3,)]))
    saved = opt.state_dict() | {"group.0.lr": np.array(7.0)}
    saved |= {f"group.0.{k}" if k == "seed" else f"state.0.{k}": v for k, v in change.items()}
    before = bits_of(opt)
    with pytest.raises((TypeError, ValueError), match=f"Adam: .*{message}"):
        opt.load_state_dict(saved)
    assert bits_of(opt) == before
    assert opt.param_groups[0]["lr"] == 0.05


def test_a_checkpoint_that_draws_for_one_that_does_not_and_back() -> None:
    source = drawing(arrays(BFLOAT16), seed=2**63 + 9)
    source.step(arrays(BFLOAT16, 1))
    plain = fnp.Adam(arrays(BFLOAT16))
    plain.load_state_dict(through_file(source.state_dict()))
    assert ids(plain) == [None] * 4
    step_as_specified(plain, arrays(BFLOAT16, 2))
    back = drawing(arrays(BFLOAT16), seed=4)
    with pytest.warns(UserWarning, match="rounded from float32 to bfloat16"):
        back.load_state_dict({k: v for k, v in plain.state_dict().items() if k != "group.0.seed"})
    assert (ids(back), back.param_groups[0]["seed"]) == ([0, 1, 2, 3], 4)
    step_as_specified(back, arrays(BFLOAT16, 3))


# ------------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize("tensor", [None, [5, 3, 8, 0]])
def test_functions_take_seed_step_and_tensor(tensor: list[int] | None) -> None:
    params, grads = arrays(BFLOAT16), arrays(np.float16, 1)
    m, v = arrays(np.float32, 2), positive(arrays(BFLOAT16, 3))
    want = [
        reference.adam(p, g, a, b, step=4, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, seed=6, tensor=k)
        for k, p, g, a, b in zip(tensor or range(4), params, grads, m, v, strict=True)
    ]
    functional.adam(params, grads, m, v, step=4, lr=0.1, seed=6 - 2**64, tensor=tensor)
    for k, (p, *states) in enumerate(want):
        for got, expected in zip((params[k], m[k], v[k]), (p, *states), strict=True):
            assert_same_bits(got, expected)


def test_a_number_of_one_parameter() -> None:
    (p,), (g,), (s,) = (arrays(BFLOAT16, k, [(300,)]) for k in range(3))
    s = np.abs(s)
    want = reference.adagrad(p, g, s, step=2, lr=0.1, lr_decay=0.0, eps=1e-10, tensor=7)
    functional.adagrad(p, g, s, step=2, lr=0.1, tensor=7)
    assert_same_bits(p, want[0])
    assert_same_bits(s, want[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": 0.5}, TypeError, "adam: seed is 0.5, expected an integer"),
        ({"tensor": 3}, ValueError, "adam: tensor is 3, expected a list of 4 to match params"),
        ({"tensor": [3]}, ValueError, "adam: tensor has 1 numbers, expected a list of 4 to match params"),
        ({"tensor": [3, 1, 4, 1]}, ValueError, r"adam: tensor\[3\] is 1, which tensor\[1\] is too"),
        ({"tensor": [3, 1, 4, -1]}, ValueError, r"adam: tensor\[3\] is -1, expected"),
        ({"tensor": [3, 1, 4, "x"]}, TypeError, r"adam: tensor\[3\] is 'x', expected"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_bad_numbers_of_functions(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = [arrays(BFLOAT16, k) for k in range(4)]
    before = copy.deepcopy(given)
    with pytest.raises(error, match=message):
        functional.adam(*given, step=1, lr=0.1, **options)
    assert all(
        a.tobytes() == b.tobytes() for x, y in zip(given, before, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_steps_have_to_be_counted_where_random_numbers_are_drawn() -> None:
    """RMSprop's own update needs no count; the random numbers would be the same in every step."""
    params, grads, mean = (arrays(BFLOAT16, k) for k in range(3))
    mean = positive(mean)
    with pytest.raises(
        TypeError, match=r"rmsprop: square_avgs\[0\] is bfloat16, .* step is None, expected a number >= 1"
    ):
        functional.rmsprop(params, grads, mean, lr=0.1)
    functional.rmsprop(params, grads, mean, lr=0.1, step=2)
    functional.rmsprop(params, grads, arrays(np.float32, 3), lr=0.1)


def test_a_call_reads_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one takes as long as updating a small model."""

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(inspect, "signature", refuse)
    monkeypatch.setattr(functional._updates, "signature", refuse)
    p, g, m, v = (np.ones(3, np.float32) for _ in range(4))
    functional.adamw(p, g, m, v, step=1, lr=1e-3)
    fnp.AdamW([p]).step([g])


def test_centered_averages_have_to_be_float32() -> None:
    given = [arrays(BFLOAT16, k) for k in range(3)]
    averages = arrays(np.float32, 3)
    with pytest.raises(TypeError, match=r"rmsprop: square_avgs\[0\] has dtype bfloat16, expected float32"):
        functional.rmsprop(*given, averages, lr=0.1, step=1)


@pytest.mark.parametrize(
    ("param", "grad", "state", "message"),
    [
        (np.float64, BFLOAT16, np.float64, r"grads\[0\] has dtype bfloat16, expected float64 to match params\[0\]"),
        (BFLOAT16, np.float64, np.float32, r"grads\[0\] has dtype float64, expected bfloat16 to match params\[0\]"),
        (np.complex64, np.complex64, BFLOAT16, r"momentum_buffers\[0\] has dtype bfloat16, expected complex64"),
        (np.float64, np.float64, BFLOAT16, r"momentum_buffers\[0\] has dtype bfloat16, expected float64"),
        (BFLOAT16, BFLOAT16, np.float16, r"momentum_buffers\[0\] has dtype float16, expected float32 or bfloat16"),
        (BFLOAT16, np.uint16, np.float32, r"grads\[0\] has dtype uint16"),
        (np.uint16, BFLOAT16, np.float32, r"params\[0\] has dtype uint16"),
    ],
)
def test_mixtures_without_meaning(param: Any, grad: Any, state: Any, message: str) -> None:
    given = [np.ones(5).astype(dtype) for dtype in (param, grad, state)]
    before = [a.tobytes() for a in given]
    with pytest.raises(TypeError, match=f"sgd: {message}"):
        functional.sgd(*given, lr=0.1, momentum=0.9)
    assert [a.tobytes() for a in given] == before
