"""Random calls of every entry point: the right result, or one of a few exceptions and nothing has changed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import fusedstep
from fusedstep import functional, reference
from fusedstep import numpy as fnp
from fusedstep._rule import FINITE, FRACTION, GROWING, LIMIT, NON_NEGATIVE, POSITIVE, SHRINKING, STEPS, UNIT, Option
from fusedstep.functional._updates import options_of
from fusedstep.rules import Rule
from tests.helpers import declared
from tests.helpers.bits import assert_same_bits, reals
from tests.helpers.dlpack import Buffered, Forged, Only, Unversioned
from tests.helpers.properties import examples

BOTH = (TypeError, ValueError)
REFUSALS = (TypeError, ValueError, RuntimeError, OverflowError)
some, more = (examples(n, suppress_health_check=list(HealthCheck)) for n in (60, 200))

# ------------------------------------------------------------------------------------------------------- valid calls

rates, flags, limits = st.floats(0, 10), st.booleans(), st.none() | st.floats(0, 100) | st.just(inf)
fractions = st.floats(0, 1, exclude_max=True)
NORM = {"norm_type": st.sampled_from([1, 2, 2.0, inf]), "per_tensor": flags, "error_if_nonfinite": flags}
COMMON = {"weight_decay": rates, "maximize": flags, "grad_scale": st.floats(1e-6, 1e6), "max_norm": limits, **NORM}
COMMON |= {"clip_value": limits}
VALUES = {id(NON_NEGATIVE): rates, id(FRACTION): fractions, id(FINITE): rates, id(LIMIT): rates | st.just(inf)}
VALUES |= {id(UNIT): st.floats(0, 1), id(SHRINKING): st.floats(1e-3, 0.999), id(GROWING): st.floats(1.001, 9)}
VALUES |= {id(POSITIVE): st.floats(1e-3, 10), id(STEPS): st.floats(0, 1e6)}


def strategy(o: Option) -> Any:
    if o.kind == "flag":
        return flags
    drawn = [VALUES[id(r)] for r in o.ranges]
    if o.none is not None:
        return st.none() | drawn[0]
    return st.tuples(*drawn) if o.kind == "several" else drawn[0]


def choices(rule: type[Rule]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """States, those that may be left out, options but lr and those that a state or another option goes with."""
    own = {
        n: strategy(o) for n, o in options_of(rule).items() if n not in {"lr", *COMMON, *(s.when for s in rule.states)}
    }
    needed, optional = ([s.argument for s in rule.states if bool(s.when) == maybe] for maybe in (False, True))
    return tuple(needed), tuple(optional), own


UPDATES = {name: choices(rule) for name, rule in declared.FUNCTIONS.items()}
CLIPS = {"total_norm": "arrays", "clip_grad_norm": "grads", "clip_grad_value": "grads"}


@st.composite
def arrays_of(draw: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values of any kind in memory of any layout."""
    values = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype)), fill=st.just(0.5)))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    base = np.zeros([shape[k] * abs(steps[k]) for k in order], dtype).transpose(np.argsort(order))
    view = base[tuple(slice(None, None, step) for step in steps)] if shape else base
    view[...] = values
    return view


@st.composite
def calls(draw: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A function, its array arguments and its options, all of them valid."""
    function = draw(st.sampled_from([*UPDATES, *CLIPS]))
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    like = draw(st.lists(st.tuples(shapes, st.sampled_from("fdFD" if function in UPDATES else "fd")), max_size=3))
    if function in UPDATES:
        needed, optional, own = UPDATES[function]
        names = ["params", "grads", *needed, *(a for a in optional if draw(flags))]
        options = {"lr": draw(rates), **draw(st.fixed_dictionaries({}, optional={**COMMON, **own}))}
        options = {n: v for n, v in options.items() if n in inspect.signature(getattr(functional, function)).parameters}
        if "step" in inspect.signature(getattr(functional, function)).parameters:
            steps = st.integers(1, 10**6)
            options["step"] = draw(steps | st.lists(steps, min_size=len(like), max_size=len(like)))
        rule = declared.FUNCTIONS[function]
        for state in rule.states:
            if state.when in options_of(rule):
                most = 2 if rule.options[state.when].ranges[0].holds(2) else 0.9
                options[state.when] = draw(st.floats(0.1, most)) if state.argument in names else 0.0
        if not declared.is_valid(rule, {k: v for k, v in options.items() if k in rule.own}):
            options = {k: v for k, v in options.items() if not isinstance(v, bool) or k in ("maximize", *NORM)}
        if any(dtype in "FD" for _, dtype in like):
            options = {k: v for k, v in options.items() if k not in ("norm_type", "clip_value")}
    else:
        names = [CLIPS[function]]
        options = {} if function == "clip_grad_value" else draw(st.fixed_dictionaries({}, optional=NORM))
        limit = {"clip_grad_value": "clip_value", "clip_grad_norm": "max_norm"}.get(function)
        options |= {limit: draw(st.floats(0, 100))} if limit else {}
    if function in UPDATES and options.get("max_norm") is None:
        options = {k: v for k, v in options.items() if k not in ("per_tensor", "error_if_nonfinite")}
    numbers = declared.number_arguments(declared.FUNCTIONS[function], len(like)) if function in UPDATES else {}
    return function, {**{name: [draw(arrays_of(*s)) for s in like] for name in names}, **numbers}, options


def expect(function: str, arrays: dict[str, list[np.ndarray]], options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What the reference makes of the call: each written argument's new arrays as reals, and what is returned."""
    values = {name: [reals(a) for a in group] for name, group in arrays.items()}
    grads = values.get("grads", values.get("arrays", []))
    clip = {"max_norm": None, "norm_type": 2, "per_tensor": False, "step": 1}
    options = {**clip, **options}
    max_norm, p, each, step = (options.pop(k) for k in clip)
    scale = float(options.get("grad_scale", 1))
    norms = [reference.total_norm([g], float(p)) / scale for g in grads]
    norm = norms if each else reference.total_norm(grads, float(p)) / scale
    if function == "total_norm":
        return {}, norm
    coefficients = [1.0] * len(grads)
    if max_norm is not None:
        coefficients = [reference.clip_coefficient(n if each else norm, float(max_norm)) for n in norms]
    options.pop("error_if_nonfinite", None)
    if function in CLIPS:
        options = {k: v if v is None else float(v) for k, v in options.items()}
        done = [reference.clip(g, clip_coef=c, **options)[0] for g, c in zip(grads, coefficients, strict=True)]
        return {"grads": done}, None if max_norm is None else norm
    declaration = declared.FUNCTIONS[function]
    options = {
        **declared.numbers_of(declaration, {k: v for k, v in options.items() if k in declaration.own}),
        "grad_scale": scale,
        "clip_value": options.get("clip_value"),
    }
    rule, results = getattr(reference, function), []
    for k, (grad, coefficient) in enumerate(zip(grads, coefficients, strict=True)):
        states = [values[name][k] if name in values else None for name in chain(*UPDATES[function][:2])]
        options["step"] = int(step[k] if isinstance(step, (list, tuple)) else step)
        states += [values[n.argument][k] for n in declaration.numbers]
        results.append(rule(values["params"][k], grad, *states, clip_coef=coefficient, **options))
    written = [name for name in values if name != "grads"]
    return {a: [r[i] for r in results] for i, a in enumerate(written)}, None if max_norm is None else norm


def memory(value: Any) -> Iterator[bytes]:
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from memory(item)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield value.tobytes()
        yield from memory(value.base)


def refused(data: Any, call: Callable[..., Any], *args: Any, **options: Any) -> Exception | None:
    """The exception, after which no array of ``data`` has changed."""
    before = list(memory(data))
    try:
        call(*args, **options)
    except REFUSALS as error:
        assert list(memory(data)) == before
        return error
    return None


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def run(function: str, arrays: dict[str, Any], options: dict[str, Any]) -> Exception | None:
    """Calls, and checks what is promised of success and of failure."""
    groups = {k: as_list(v) for k, v in arrays.items() if v is not None}
    old = {k: [x.copy() if isinstance(x, np.ndarray) else x for x in v] for k, v in groups.items()}
    result = []
    call = getattr(functional, function)
    error = refused([arrays, options], lambda: result.append(call(**arrays, **options)))
    if error is None and float(options.get("norm_type", 2)) in (1, 2, inf):  # bit for bit
        expected, norm = expect(function, old, options)
        assert (result[0] is None) == (norm is None)
        assert_same_bits(*(np.array(x, float) for x in (result[0], norm)), "norm")
        for name, values in expected.items():
            for k, value in enumerate(values):
                assert_same_bits(reals(groups[name][k]), value, f"{name}[{k}]")
    return error


@more
@given(calls())
def test_valid_calls_equal_the_reference(call: Any) -> None:
    norm = expect(*call)[1]
    error = run(*call)
    infinite = norm is not None and not np.isfinite(norm).all()
    assert (error is not None) == (infinite and call[2].get("error_if_nonfinite", False)), error
    assert error is None or isinstance(error, RuntimeError)


# ----------------------------------------------------------------------------------------------------------- garbage


class Hostile:
    """Looks like a number, a flag and an array, and is none."""

    shape, dtype, __array_interface__ = "shape", None, 3

    def _no(self, *_: Any, **__: Any) -> Any:
        raise ValueError("no")

    __float__ = __index__ = __int__ = __bool__ = __len__ = __iter__ = __getitem__ = __array__ = _no
    __dlpack__ = __dlpack_device__ = _no


small = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
odd = [10**400, -(2**63), 2**64, inf, -inf, float("nan"), 1e-320, 1j, np.float16(1), True, None, -1, 0, 2, "1", b"1"]
odd += [np.ndarray, torch.Tensor, len, ..., memoryview(b"1234"), range(2), *map(torch.zeros, range(3))]
odd += [torch.zeros(3, dtype=dtype) for dtype in (torch.half, torch.long, torch.cfloat)]
things = st.one_of(
    *(st.sampled_from(odd), st.floats(), st.text(max_size=3), hnp.arrays(hnp.scalar_dtypes(), small)),
    hnp.arrays(st.sampled_from("fdFD"), small),
    st.builds(lambda kind: kind(), st.sampled_from([object, Hostile, dict, set, bytearray, Exception])),
)
garbage = st.recursive(things, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))
OWN = ("lr", "step", "foo", *(n for rule in declared.RULES.values() for n in rule.own))
option_names = st.sampled_from([*COMMON, *OWN, *chain(*(row[2] for row in UPDATES.values()))])


@more
@given(calls(), st.data())
def test_spoilt_calls(call: Any, data: st.DataObject) -> None:
    function, arrays, options = call
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        group = arrays[name]
        kind = data.draw(st.sampled_from(["item", "alias", "length", "whole", "option", "option", "read-only"]))
        if kind == "option":
            options[data.draw(option_names)] = data.draw(garbage)
        elif kind == "whole":
            arrays[name] = data.draw(garbage)
        elif isinstance(group, list) and group:
            where = data.draw(st.integers(0, len(group) - 1))
            if kind == "item":
                group[where] = data.draw(garbage)
            elif kind == "alias":
                other = data.draw(st.sampled_from(sorted(arrays)))
                group[where] = data.draw(st.sampled_from(as_list(arrays[other]) or [None]))
            elif kind == "length":
                del group[where]
            elif isinstance(group[where], np.ndarray):
                group[where].flags.writeable = False
    run(function, arrays, options)


@some
@given(st.sampled_from([*UPDATES, *CLIPS]), st.lists(garbage, max_size=6), st.dictionaries(option_names, garbage))
def test_nonsense_calls(function: str, positional: list[Any], options: dict[str, Any]) -> None:
    refused([positional, options], getattr(functional, function), *positional, **options)


@st.composite
def views(draw: Any, size: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides and offset, in elements, of any view of a pool of ``size``."""
    shape = draw(hnp.array_shapes(max_dims=2, max_side=4))
    strides = tuple(draw(st.integers(-5, 5)) for _ in shape)
    reach = [(n - 1) * k for n, k in zip(shape, strides, strict=True)]
    low, high = -sum(min(r, 0) for r in reach), size - 1 - sum(max(r, 0) for r in reach)
    return shape, strides, draw(st.integers(low, high))


@more
@given(st.lists(views(40), min_size=1, max_size=3))
def test_overlap_is_found_exactly(specs: list[Any]) -> None:
    pool = np.linspace(1, 2, 40, dtype=np.float32)
    params, where = (
        [as_strided(x[start:], shape, [4 * k for k in strides], writeable=True) for shape, strides, start in specs]
        for x in (pool, np.arange(40, dtype=np.int32))
    )
    places = np.concatenate([w.ravel() for w in where])
    grads = [np.full(p.shape, 0.25, np.float32) for p in params]
    expected = [p - np.float32(0.5) * g for p, g in zip(params, grads, strict=True)]
    before = pool.copy()
    if len(set(places)) < len(places):
        with pytest.raises(ValueError, match="sgd: params"):
            functional.sgd(params, grads, lr=0.5)
        assert_same_bits(pool, before)
    else:
        functional.sgd(params, grads, lr=0.5)
        for got, value in zip(params, expected, strict=True):
            assert_same_bits(got, value)
        untouched = np.setdiff1d(np.arange(40), places)
        assert_same_bits(pool[untouched], before[untouched])


classes = st.sampled_from([getattr(fnp, name) for name in declared.RULES])
good_arrays = st.lists(arrays_of((3,), "f"), max_size=3)


@some
@given(classes, garbage | good_arrays, st.data())
def test_class_with_nonsense(cls: type[fnp.Optimizer], params: Any, data: st.DataObject) -> None:
    names = st.sampled_from([*cls([]).defaults, "params", "foo"])
    options = data.draw(st.dictionaries(names.filter(lambda n: n != "params"), garbage, max_size=2))
    group = data.draw(st.dictionaries(names, garbage, max_size=2))
    made: list[fnp.Optimizer] = [cls([])]
    refused([params, options, group], lambda: (made.append(cls(params, **options)), made[-1].add_param_group(group)))
    grads, keywords = data.draw(st.tuples(garbage | good_arrays, st.fixed_dictionaries({}, optional={"lr": garbage})))
    refused([params, grads, made[-1].state], made[-1].step, grads, **keywords)


def contents(opt: fnp.Optimizer) -> list[Any]:
    """Not pickled: a flag may be any object that is true or false, and stays what it was."""
    return [*memory([opt.param_groups, opt.state]), repr((opt.param_groups, opt.state, opt.total_norm))]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn.t accept a copy keyword")  # torch's tensors
@some
@given(classes, st.lists(st.tuples(st.integers(0), st.just(...) | garbage), min_size=1, max_size=2), things)
def test_load_state_dict_with_nonsense(cls: type[fnp.Optimizer], changes: list[Any], key: Any) -> None:
    opt, grads = cls([np.ones(3), np.ones(())], max_norm=1.0), [np.ones(3), np.ones(())]
    opt.step(grads)
    state = opt.state_dict()
    for where, value in changes:
        name = sorted(state)[where % len(state)]
        state.pop(name) if value is ... else state.update({name: value})
    hashable = key.__hash__ is not None and not isinstance(key, Hostile)
    for bad in (state, {**opt.state_dict(), key: 1} if hashable else key, key):
        before = contents(opt)
        if refused(bad, opt.load_state_dict, bad) is not None:
            assert contents(opt) == before
        opt.step(grads)  # what was taken can be stepped from


@some
@given(garbage)
def test_settings(value: Any) -> None:
    target = fusedstep.active_target()
    try:
        assert refused(value, fusedstep.use_target, value) is None or fusedstep.active_target() == target
        refused(value, fusedstep.set_num_threads, value)
        assert fusedstep.active_target() in fusedstep.targets()
        assert fusedstep.num_threads() >= 1
    finally:
        fusedstep.use_target(target)
        fusedstep.set_num_threads(None)


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_target_of_the_environment() -> None:
    done = python("import fusedstep", FUSEDSTEP_TARGET="nonsense")
    assert done.returncode == 1
    assert all(word in done.stderr for word in ["nonsense", *fusedstep.targets()])


# ------------------------------------------------------------------------------------------------------------ DLPack


@pytest.mark.parametrize("kind", [Only, Unversioned, Buffered])
@pytest.mark.parametrize("dtype", "fdFD")
def test_dlpack_only(kind: type[Only], dtype: str) -> None:
    rng = np.random.default_rng(1)
    param, grad, buffer = (rng.uniform(size=(5, 3)).astype(dtype).T for _ in range(3))
    counts = [sys.getrefcount(a) for a in (param, grad, buffer)]
    expected = reference.sgd(reals(param), reals(grad), reals(buffer), step=2, lr=0.1, momentum=0.9)
    functional.sgd(kind(param), [kind(grad)], kind(buffer), step=2, lr=0.1, momentum=0.9)
    assert_same_bits(reals(param), expected[0])
    assert_same_bits(reals(buffer), expected[1])
    with pytest.raises(TypeError):
        functional.sgd([kind(param), 1], [kind(grad)] * 2, [kind(buffer)] * 2, step=2, lr=0.1, momentum=0.9)
    assert [sys.getrefcount(a) for a in (param, grad, buffer)] == counts


@pytest.mark.parametrize("kind", [Only, Unversioned])
def test_read_only_dlpack(kind: type[Only]) -> None:
    frozen, good = np.ones(3, np.float32), np.ones(3, np.float32)
    frozen.flags.writeable = False
    for call in (
        lambda: functional.sgd([good, kind(frozen)], [good.copy(), good.copy()], lr=0.1),
        lambda: functional.clip_grad_norm([good, kind(frozen)], 0.1),
        lambda: functional.clip_grad_value([good, kind(frozen)], 0.1),
    ):
        with pytest.raises(BOTH, match=r"(params|grads)\[1\]"):
            call()
        assert (frozen == 1).all()
        assert (good == 1).all()


FORGERIES = [("device_type", 2), ("device_type", 13), ("code", 0), ("code", 4), ("bits", 16), ("lanes", 2)]


@pytest.mark.parametrize(("name", "value"), [*FORGERIES, ("byte_offset", 2)])
def test_dlpack_of_another_kind(name: str, value: int) -> None:
    good, bad = np.ones(4, np.float32), np.ones(4, np.float32)
    with pytest.raises(BOTH, match=r"sgd: params\[1\]"):
        functional.sgd([good, Forged(bad, name, value)], [good.copy(), good.copy()], lr=0.1)
    assert (good == 1).all()
    assert (bad == 1).all()


def test_dlpack_dtype_is_named() -> None:
    with pytest.raises(TypeError, match="int32"):
        functional.total_norm(Only(np.ones(3, np.int32)))


# In a process of its own, since what these forbid may kill it.


def survives(setup: str, call: str) -> str:
    code = f"{setup}\ngood = np.ones(3, np.float32)\ntry: {call}\n"
    done = python(f"{code}except (TypeError, ValueError) as error: assert (good == 1).all(); print(error)")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_null_pointer() -> None:
    setup = "import numpy as np; from fusedstep import functional; from tests.helpers.dlpack import Forged"
    text = survives(setup, "functional.total_norm([good, Forged(good, 'data', None)])")
    assert "total_norm: arrays[1]" in text


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, row in UPDATES.items() for a in row[0]])
def test_required_state_is_none(function: str, argument: str, every: bool) -> None:
    states = UPDATES[function][0] + (UPDATES[function][1] if every else ())
    rule = declared.FUNCTIONS[function]
    whens = [s.when for s in rule.states if s.when in options_of(rule)]
    steps = ["step=1"] if "step" in inspect.signature(getattr(functional, function)).parameters else []
    options = ", ".join([*steps, *(f"{when}={0.9 * every}" for when in whens)])
    given = ", ".join(f"{a}={None if a == argument else 'good.copy()'}" for a in states)
    given += "".join(f", {n.name}s=np.array(1.0)" for n in rule.numbers)
    call = f"{function}(good, good.copy(), {given}, lr=0.1, {options})"
    assert f"{function}: {argument}" in survives("import numpy as np; from fusedstep.functional import *", call)
