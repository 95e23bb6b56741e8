"""What is refused, how it is named, and that nothing has changed then: every bad argument, everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from math import inf, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

from fusedstep import functional, reference
from fusedstep import numpy as fnp
from fusedstep._rule import Option, StateArray
from fusedstep.functional._updates import options_of
from fusedstep.rules import Rule
from tests.helpers import declared
from tests.helpers.bits import BFLOAT16, assert_same_bits

Errors = type[Exception] | tuple[type[Exception], ...]
Spoil = Callable[[np.ndarray], Any]
Case = tuple[str, Errors, Spoil]
BOTH = (TypeError, ValueError)

BAD = 3  # the last array is the bad one: a kernel that starts before everything is checked is caught
SIZES = (3000, 1, 70, 9)


def all_arrays(rule: type[Rule]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The array arguments of an update, and options with which it uses all of them."""
    chosen = list(rule.variants().values())[-1]
    options = {n: v for n, v in chosen.items() if n in options_of(rule)}
    step = {"step": 2} if "step" in inspect.signature(getattr(functional, rule.name())).parameters else {}
    return declared.arrays_of(rule), {"lr": 0.1, **step, **options}


UPDATES = {name: all_arrays(rule) for name, rule in declared.FUNCTIONS.items()}
FUNCTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    **UPDATES,
    "total_norm": (("arrays",), {}),
    "clip_grad_norm": (("grads",), {"max_norm": 0.5}),
    "clip_grad_value": (("grads",), {"clip_value": 0.5}),
}
ARGUMENTS = [(f, a) for f, (arrays, _) in FUNCTIONS.items() for a in arrays]
OF_UPDATES = [(f, a) for f, a in ARGUMENTS if f in UPDATES]
WRITTEN = [(f, a) for f, a in ARGUMENTS if f != "total_norm" and not (f in UPDATES and a == "grads")]
CLASSES = list(declared.RULES)


def make(function: str) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    arrays = {a: [rng.uniform(0.5, 1, n).astype(np.float32) for n in SIZES] for a in FUNCTIONS[function][0]}
    return {**arrays, **numbers(function)}


def numbers(function: str) -> dict[str, Any]:
    """Arguments that are no arrays like the parameter: states of one number."""
    return declared.number_arguments(declared.FUNCTIONS[function], len(SIZES)) if function in UPDATES else {}


def invoke(function: str, arrays: dict[str, Any], **options: Any) -> Any:
    return getattr(functional, function)(**arrays, **{**FUNCTIONS[function][1], **options})


def memory(value: Any) -> Iterator[bytes]:
    """The bytes of every array in ``value``, and those of the arrays that they are views of."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from memory(item)
    elif isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.layout == torch.strided:
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
        yield from memory(value.base)


def refuses(
    error: Errors, data: Any, parts: tuple[str, ...], call: Callable[..., Any], *args: Any, **options: Any
) -> None:
    """``call`` raises just ``error``, whose text has all ``parts``, and no array of ``data`` changes."""
    before = list(memory(data))
    with pytest.raises(error) as info:
        call(*args, **options)
    assert info.type in (error if isinstance(error, tuple) else (error,)), "a subclass"
    assert all(part in str(info.value) for part in parts), f"{parts} not in: {info.value}"
    assert list(memory(data)) == before


def expect(function: str, arrays: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    names, options = UPDATES[function]
    names = (*names, *numbers(function))
    rows = zip(*([np.asarray(x).copy() for x in arrays[a]] for a in names), strict=True)
    rule = declared.FUNCTIONS[function]
    hyper = declared.numbers_of(rule, {n: v for n, v in options.items() if n != "step"})
    results = [getattr(reference, function)(*row, step=options.get("step", 1), **hyper) for row in rows]
    return {a: [r[k] for r in results] for k, a in enumerate(n for n in names if n != "grads")}


def runs_right(function: str, arrays: dict[str, Any]) -> None:
    grads = [np.asarray(g).copy() for g in arrays["grads"]]
    expected = {**expect(function, arrays), "grads": grads}
    invoke(function, arrays)
    for argument, values in expected.items():
        for k, value in enumerate(values):
            assert_same_bits(arrays[argument][k], value, f"{argument}[{k}]")


# ------------------------------------------------------------------------------------------------------- bad arrays


class Broken:
    """Speaks DLPack until it is asked for something."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **_: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def broadcast(good: np.ndarray) -> np.ndarray:
    return as_strided(good.copy(), good.shape, (0,) * good.ndim, writeable=True)


def read_only(good: np.ndarray) -> np.ndarray:
    good.flags.writeable = False
    return good


def field(good: np.ndarray) -> np.ndarray:
    record = np.zeros(good.shape, [("tag", "i1"), ("value", good.dtype)])
    record["value"] = good
    return record["value"]


def misaligned(good: np.ndarray) -> np.ndarray:
    view = np.zeros(good.nbytes + good.itemsize, np.uint8)[1 : good.nbytes + 1].view(good.dtype).reshape(good.shape)
    view[...] = good
    return view


def tensor(**options: Any) -> Spoil:
    return lambda good: torch.zeros(good.shape, **options)


ANYWHERE: list[Case] = [
    *(
        (np.dtype(d).str, TypeError, lambda good, d=d: np.zeros(good.shape, d))
        for d in ("u2", "i2", "i4", "?", "O", ">f4", ">f2", "g", "U4", "V2", "V4", ml_dtypes.float8_e4m3fn)
    ),
    ("list", TypeError, lambda good: good.tolist()),
    ("None", TypeError, lambda good: None),
    ("str", TypeError, lambda good: "x"),
    ("dict", TypeError, lambda good: {"a": good}),
    ("number", TypeError, lambda good: 1.0),
    ("object", TypeError, lambda good: object()),
    ("class", TypeError, lambda good: np.ndarray),
    ("DLPack, KeyError", BOTH, lambda good: Broken(KeyError("no"))),
    ("DLPack, BufferError", BOTH, lambda good: Broken(BufferError("no"))),
    ("DLPack, None", BOTH, lambda good: Broken(None)),
    ("field of odd stride", ValueError, field),
    ("misaligned", ValueError, misaligned),
    ("int16", TypeError, tensor(dtype=torch.int16)),
    ("meta", BOTH, tensor(device="meta")),
    ("sparse", BOTH, lambda good: torch.zeros(good.shape).to_sparse()),
]
UNLIKE_OTHERS: list[Case] = [
    ("float64", TypeError, lambda good: good.astype(np.float64)),
    ("complex64", TypeError, lambda good: good.astype(np.complex64)),
    ("longer", ValueError, lambda good: np.append(good, good)),
    ("shorter", ValueError, lambda good: good[..., :-1].copy()),
    ("empty", ValueError, lambda good: good[..., :0].copy()),
    ("column", ValueError, lambda good: good[..., None].copy()),
    ("row", ValueError, lambda good: good[None].copy()),
    ("0-dim", ValueError, lambda good: np.ones((), np.float32)),
    ("transposed", ValueError, lambda good: good.reshape(9, 1)),
]
UNWRITABLE: list[Case] = [
    ("read-only", ValueError, read_only),
    ("read-only tensor", ValueError, lambda good: torch.zeros(()).expand(good.shape)),
    ("broadcast", ValueError, broadcast),
    ("windows", ValueError, lambda good: as_strided(good.copy(), good.shape, (8, 4), writeable=True)),
]


def cases(*tables: list[Case], without: str = "") -> Any:
    rows = [row for table in tables for row in table if row[0] != without]
    return pytest.mark.parametrize(("error", "spoil"), [r[1:] for r in rows], ids=[r[0] for r in rows])


def check(function: str, argument: str, error: Errors, spoil: Spoil) -> None:
    arrays = make(function)
    for name in FUNCTIONS[function][0]:
        arrays[name][BAD] = arrays[name][BAD].reshape(3, 3)
    arrays[argument][BAD] = spoil(arrays[argument][BAD])
    refuses(error, arrays, (f"{function}: ", f"{argument}[{BAD}]"), invoke, function, arrays)


@pytest.mark.pairwise("function", "argument", "spoil")
@cases(ANYWHERE)
@pytest.mark.parametrize(("function", "argument"), ARGUMENTS)
def test_array_that_cannot_be_read(function: str, argument: str, error: Errors, spoil: Spoil) -> None:
    check(function, argument, error, spoil)


@pytest.mark.pairwise("function", "argument", "spoil")
@cases(UNLIKE_OTHERS)
@pytest.mark.parametrize(("function", "argument"), OF_UPDATES)
def test_array_that_does_not_match(function: str, argument: str, error: Errors, spoil: Spoil) -> None:
    check(function, argument, error, spoil)


STATES = [(f, a) for f, a in OF_UPDATES if a not in ("params", "grads")]
HALVES = {
    "float16": lambda good: good.astype(np.float16),
    "half": lambda good: torch.from_numpy(good).half(),
}


@pytest.mark.parametrize("spoil", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize(("function", "argument"), STATES)
def test_state_in_float16(function: str, argument: str, spoil: Spoil) -> None:
    """What is below 6e-8 would be lost."""
    check(function, argument, TypeError, spoil)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("stored", [np.float16, BFLOAT16])
@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, a in OF_UPDATES if a != "params"])
def test_16_bits_beside_what_is_not_computed_in_float32(function: str, argument: str, stored: Any, dtype: type) -> None:
    arrays = make(function)
    for a in FUNCTIONS[function][0]:
        arrays[a] = [x.astype(dtype) for x in arrays[a]]
    arrays[argument][BAD] = arrays[argument][BAD].real.astype(stored)
    parts = (f"{function}: ", f"{argument}[{BAD}]", np.dtype(stored).name, f"expected {np.dtype(dtype).name}")
    refuses(TypeError, arrays, parts, invoke, function, arrays)


@pytest.mark.parametrize("argument", ["square_avgs", "grad_avgs"])
def test_a_difference_of_rounded_averages(argument: str) -> None:
    arrays = make("rmsprop")
    arrays[argument][BAD] = arrays[argument][BAD].astype(BFLOAT16)
    parts = (f"rmsprop: {argument}[{BAD}] has dtype bfloat16, expected float32",)
    refuses(TypeError, arrays, parts, invoke, "rmsprop", arrays)


NUMBERS = [(f, a) for f in UPDATES for a in numbers(f)]


@pytest.mark.parametrize(
    ("error", "spoil"),
    [
        (ValueError, lambda good: np.ones(2)),
        (BOTH, lambda good: good.astype("i4")),
        (BOTH, lambda good: good.astype("F")),
        (BOTH, lambda good: None),
        (BOTH, lambda good: 1.0),
        (ValueError, read_only),
    ],
)
@pytest.mark.parametrize(("function", "argument"), NUMBERS)
def test_state_of_one_number(function: str, argument: str, error: Errors, spoil: Spoil) -> None:
    arrays = make(function)
    arrays[argument][BAD] = spoil(arrays[argument][BAD])
    refuses(error, arrays, (f"{function}: ", f"{argument}[{BAD}]"), invoke, function, arrays)
    arrays = make(function)
    arrays[argument].pop()
    refuses(ValueError, arrays, (f"{function}: {argument} ", "expected 4"), invoke, function, arrays)


@pytest.mark.pairwise("function", "argument", "spoil")
@cases(UNWRITABLE)
@pytest.mark.parametrize(("function", "argument"), WRITTEN)
def test_array_that_cannot_be_written(function: str, argument: str, error: Errors, spoil: Spoil) -> None:
    check(function, argument, error, spoil)


@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, a in OF_UPDATES if a != "params"])
def test_length(function: str, argument: str) -> None:
    for change in (lambda x: x[:-1], lambda x: [*x, x[0].copy()], lambda x: [], lambda x: x[0]):
        arrays = make(function)
        arrays[argument] = change(arrays[argument])
        refuses(ValueError, arrays, (f"{function}: {argument} ", "expected 4"), invoke, function, arrays)


@pytest.mark.parametrize("spoil", [read_only, broadcast])
@pytest.mark.parametrize("function", UPDATES)
def test_gradient_is_only_read(function: str, spoil: Spoil) -> None:
    arrays = make(function)
    arrays["grads"][BAD] = spoil(arrays["grads"][BAD])
    runs_right(function, arrays)


@pytest.mark.parametrize("odd", range(2))
@pytest.mark.parametrize("function", UPDATES)
def test_torch_and_numpy_together(function: str, odd: int) -> None:
    arrays = make(function)
    for i, group in enumerate(arrays.values()):
        group[:] = [torch.from_numpy(a) if (k + i) % 2 == odd else a for k, a in enumerate(group)]
    runs_right(function, arrays)


# --------------------------------------------------------------------------------------------------------- aliasing

ALIASES: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {  # two arrays of nine elements in eighteen
    "same": lambda pool: (pool[:9],) * 2,
    "view": lambda pool: (pool[:9], pool[:9]),
    "reversed": lambda pool: (pool[:9], pool[8::-1]),
    "one element": lambda pool: (pool[:9], pool[8:17]),
    "strided": lambda pool: (pool[::2], pool[:9]),
    "tensor": lambda pool: (pool[:9], torch.from_numpy(pool)[:9]),
}


@pytest.mark.parametrize("kind", ALIASES)
@pytest.mark.parametrize("function", [*UPDATES, "clip_grad_norm", "clip_grad_value"])
def test_aliasing(function: str, kind: str) -> None:
    names = FUNCTIONS[function][0]
    pairs = [(a, BAD, b, BAD) for i, a in enumerate(names) for b in names[i + 1 :]]
    pairs += [(a, 1, b, BAD) for a in names for b in names if function not in UPDATES or {a, b} != {"grads"}]
    for a, i, b, k in pairs:
        arrays = make(function)
        for name in names:
            arrays[name][i] = np.resize(arrays[name][i], 9)
        arrays[a][i], arrays[b][k] = ALIASES[kind](np.linspace(0.5, 1, 18, dtype=np.float32))
        refuses(ValueError, arrays, (f"{function}: ", f"{a}[{i}]", f"{b}[{k}]"), invoke, function, arrays)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("function", UPDATES)
def test_columns_of_one_buffer_are_not_aliases(function: str, direction: int) -> None:
    names = UPDATES[function][0]
    pool = np.random.default_rng(3).uniform(0.5, 1, (37, 4 * len(names))).astype(np.float32)
    columns = {a: [pool[::direction, len(names) * k + i] for k in range(4)] for i, a in enumerate(names)}
    runs_right(function, {**columns, **numbers(function)})


# ---------------------------------------------------------------------------------------------------------- numbers

NOT_NUMBERS = ["x", [0.1], (), {}, 1j, object(), np.array([0.1, 0.1])]
UPDATE = tuple(UPDATES)
OPTIONS: dict[str, tuple[tuple[str, ...], list[Any]]] = {  # option: functions, values out of range
    "grad_scale": (UPDATE, [0, nan, inf, -inf, -1]),
    "max_norm": ((*UPDATE, "clip_grad_norm"), [nan, -inf, -1]),  # inf is no limit
    "clip_value": ((*UPDATE, "clip_grad_value"), [nan, -inf, -1]),
    "norm_type": ((*UPDATE, "clip_grad_norm", "total_norm"), [0, -1, nan, -inf]),
}
OWN = [(f, o) for f, rule in declared.FUNCTIONS.items() for o in options_of(rule).values() if o.kind == "number"]
SEVERAL = [(f, o) for f, rule in declared.FUNCTIONS.items() for o in options_of(rule).values() if o.kind == "several"]


def wrong_numbers(option: str) -> list[tuple[Any, type[Exception]]]:
    return [(v, ValueError) for v in OPTIONS[option][1]] + [(v, TypeError) for v in NOT_NUMBERS]


@pytest.mark.parametrize(("function", "option"), [(f, o) for o, (names, _) in OPTIONS.items() for f in names])
def test_number(function: str, option: str) -> None:
    arrays = make(function)
    more = {"max_norm": 1.0} if option == "norm_type" and function in UPDATES else {}
    nullable = function in UPDATES and option in ("max_norm", "clip_value")
    for value, error in wrong_numbers(option) + ([] if nullable else [(None, TypeError)]):
        options = {**more, option: value}
        refuses(error, arrays, (f"{function}: {option} is ",), invoke, function, arrays, **options)


def wrong(o: Option) -> list[tuple[Any, type[Exception]]]:
    return [(v, ValueError) for v in declared.bad_values(o)] + [(v, TypeError) for v in NOT_NUMBERS]


def wrong_or_none(o: Option) -> list[tuple[Any, type[Exception]]]:
    return wrong(o) + ([(None, TypeError)] if o.none is None else [])


@pytest.mark.parametrize(("function", "option"), OWN, ids=lambda x: x if isinstance(x, str) else x.name)
def test_own_number(function: str, option: Option) -> None:
    arrays = make(function)
    for value, error in wrong_or_none(option):
        parts = (f"{function}: {option.name} is ", "" if option.none is None else " or None")
        refuses(error, arrays, parts, invoke, function, arrays, **{option.name: value})


@pytest.mark.parametrize(("function", "option"), SEVERAL, ids=lambda x: x if isinstance(x, str) else x.name)
def test_own_several(function: str, option: Option) -> None:
    arrays, good = make(function), option.default
    for bad in declared.bad_values(option):
        wrong = next(k for k, (a, b) in enumerate(zip(bad, good, strict=True)) if a != b)
        parts = (f"{function}: {option.name}[{wrong}] is ",)
        refuses(ValueError, arrays, parts, invoke, function, arrays, **{option.name: bad})
    for value in (0.9, None, "abcd"[: len(good)], good[:-1], (*good, good[-1]), ("x", *good[1:])):
        refuses(BOTH, arrays, (f"{function}: {option.name}",), invoke, function, arrays, **{option.name: value})


COUNTING = [f for f, (_, options) in UPDATES.items() if "step" in options]


@pytest.mark.parametrize("function", COUNTING)
def test_step(function: str) -> None:
    arrays = make(function)
    wrong = [(v, ValueError) for v in (0, -1, [1, 1, 1], [1] * 5, [], [1, 1, 1, 0], 2**53, 10**30)]
    wrong += [(v, TypeError) for v in (1.5, "1", {}, [1, 1, 1, 1.0], [1, 1, 1, "1"], np.array([1.0, 2.0]))]
    if inspect.signature(getattr(functional, function)).parameters["step"].default is not None:
        wrong.append((None, TypeError))
    for value, error in wrong:
        refuses(error, arrays, (f"{function}: step",), invoke, function, arrays, step=value)


FLAGS: dict[str, list[str]] = {"per_tensor": list(UPDATES), "error_if_nonfinite": list(UPDATES)}
for f, declaration in declared.FUNCTIONS.items():
    for name, o in options_of(declaration).items():
        if o.kind == "flag":
            FLAGS.setdefault(name, []).append(f)


@pytest.mark.parametrize(("function", "flag"), [(f, flag) for flag, functions in FLAGS.items() for f in functions])
def test_flag_is_a_truth_value_or_named(function: str, flag: str) -> None:
    for value in (None, [], "x", 2, nan, np.array([True, False])):
        arrays = make(function)
        before = list(memory(arrays))
        try:
            invoke(function, arrays, **{flag: value})
        except BOTH as error:
            assert f"{function}: {flag}" in str(error), repr(value)  # noqa: PT017
            assert list(memory(arrays)) == before


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unknown_keyword(function: str) -> None:
    arrays = make(function)
    refuses(TypeError, arrays, (function, "learning_rate"), invoke, function, arrays, learning_rate=1.0)


def test_options_that_contradict() -> None:
    for function in ("sgd", "rmsprop"):
        arrays = make(function)
        refuses(ValueError, arrays, (f"{function}: momentum",), invoke, function, arrays, momentum=0.0)
        del arrays["momentum_buffers"]
        refuses(ValueError, arrays, (f"{function}: momentum",), invoke, function, arrays)
    for function in UPDATES:
        for option in ("per_tensor", "error_if_nonfinite"):
            arrays = make(function)
            parts = (f"{function}: {option}", "max_norm")
            refuses(ValueError, arrays, parts, invoke, function, arrays, **{option: True})
    arrays = make("sgd")
    refuses(ValueError, arrays, ("sgd: nesterov",), invoke, "sgd", arrays, nesterov=True, dampening=0.1)
    del arrays["momentum_buffers"]
    refuses(ValueError, arrays, ("sgd: nesterov",), invoke, "sgd", arrays, nesterov=True, momentum=0.0)


OF_A_NUMBER = [(f, s) for f, rule in declared.FUNCTIONS.items() for s in rule.states if s.when in rule.hyper_names]


@pytest.mark.parametrize(("function", "state"), OF_A_NUMBER, ids=lambda x: x if isinstance(x, str) else x.name)
def test_the_specification_is_not_that_of_another_variant(function: str, state: StateArray) -> None:
    hyper = declared.numbers_of(declared.FUNCTIONS[function], {"lr": 0.1, state.when: 0.9})
    ones = [np.ones(3) for n in declared.arrays_of(declared.FUNCTIONS[function]) if n != state.argument]
    message = f"{function}: {state.when} is 0.9 with no {state.name}, expected both or neither"
    with pytest.raises(ValueError, match=message):
        getattr(reference, function)(*ones[:3], **hyper)
    getattr(reference, function)(*ones[:3], **{**hyper, state.when: 0.0})
    getattr(reference, function)(*ones[:3], **hyper, **{state.name: np.ones(3)})


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("function", [*UPDATES, "clip_grad_norm", "total_norm"])
def test_error_if_nonfinite(function: str, value: float) -> None:
    arrays = make(function)
    arrays["arrays" if function == "total_norm" else "grads"][BAD][-1] = value
    for options in ({"norm_type": p, "per_tensor": each} for p in (1, 2, 2.5, inf) for each in (False, True)):
        options |= {"error_if_nonfinite": True, **({} if function == "total_norm" else {"max_norm": 1.0})}
        refuses(RuntimeError, arrays, (f"{function}: ", "norm"), invoke, function, arrays, **options)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, memoryview], ids=["numpy", "torch", "buffer"])
@pytest.mark.parametrize("function", [*UPDATES, "clip_grad_norm", "total_norm"])
def test_norm_out_is_for_cuda_devices(function: str, kind: Callable[[np.ndarray], Any]) -> None:
    arrays = make(function)
    options = {} if function == "total_norm" else {"max_norm": 1.0}
    first = FUNCTIONS[function][0][0]
    arrays[first] = [kind(x) for x in arrays[first]]
    for out in (np.zeros(1), torch.zeros(1, dtype=torch.float64), "junk"):
        parts = (f"{function}: norm_out", "on the CPU", "returned")
        refuses(ValueError, [arrays, out], parts, invoke, function, arrays, norm_out=out, **options)
    assert invoke(function, arrays, stream=0, **options) > 0  # has no meaning there, and no result depends on it


# -------------------------------------------------------------------------------------------------- fusedstep.numpy


def params_and_grads() -> tuple[list[Any], list[Any]]:
    return make("total_norm")["arrays"], make("clip_grad_norm")["grads"]


@cases(ANYWHERE, UNLIKE_OTHERS, without="None")  # None leaves its parameter out
@pytest.mark.parametrize("cls", CLASSES)
def test_class_gradient(cls: str, error: Errors, spoil: Spoil) -> None:
    params, grads = params_and_grads()
    params[BAD], grads[BAD] = params[BAD].reshape(3, 3), grads[BAD].reshape(3, 3)
    opt = getattr(fnp, cls)(params)
    opt.step(grads)
    grads[BAD] = spoil(grads[BAD])
    refuses(error, [params, grads, opt.state], (f"{cls}: ", f"grads[{BAD}]"), opt.step, grads)
    assert {s["step"] for s in opt.state} == {1}


@pytest.mark.parametrize("layout", ["after a None", "in the second group"])
def test_class_names_the_index_that_the_caller_knows(layout: str) -> None:
    params, grads = params_and_grads()
    opt = fnp.Adam(params if layout == "after a None" else [{"params": params[:2]}, {"params": params[2:]}])
    grads[0], grads[BAD] = None if layout == "after a None" else grads[0], grads[BAD].astype("i4")
    refuses(TypeError, [params, grads], ("Adam: ", f"grads[{BAD}]"), opt.step, grads)


@cases(ANYWHERE, UNWRITABLE, without="dict")  # a dict could be a group
@pytest.mark.parametrize("cls", CLASSES)
def test_class_parameter(cls: str, error: Errors, spoil: Spoil) -> None:
    params, grads = params_and_grads()
    params[BAD], grads[BAD] = spoil(params[BAD].reshape(3, 3)), grads[BAD].reshape(3, 3)

    def run() -> None:  # construction may see it, or the first step
        getattr(fnp, cls)(params).step(grads)

    refuses(error, [params, grads], (f"{cls}: ", f"params[{BAD}]"), run)


@pytest.mark.parametrize("cls", CLASSES)
def test_class_options(cls: str) -> None:
    new, (params, grads) = getattr(fnp, cls), params_and_grads()
    rule = declared.RULES[cls]
    opt = new(params, **list(rule.variants().values())[-1])
    data = [params, grads, opt.state]
    numbers = {n: wrong_or_none(o) for n, o in rule.own.items() if o.kind == "number"}
    for name, values in {**numbers, **{n: wrong_numbers(n) for n in ("max_norm", "clip_value")}}.items():
        for value, error in values:
            refuses(error, data, (f"{cls}: {name} is ",), new, params, **{name: value})
            refuses(error, data, (f"{cls}: {name} is ",), new, [{"params": params, name: value}])
            good, opt.param_groups[0][name] = opt.param_groups[0][name], value
            refuses(error, data, (f"{cls}: {name} is ",), opt.step, grads)
            opt.param_groups[0][name] = good
    for value, error in wrong(rule.options["lr"]):
        refuses(error, data, (f"{cls}: lr is ",), opt.step, grads, lr=value)
    for name, o in rule.own.items():
        if o.kind == "several":
            good = o.default
            others = (("x", *good[1:]), 0.9, None, "abcd"[: len(good)], good[:-1], (*good, good[-1]))
            for bad in (*declared.bad_values(o), *others):
                refuses(BOTH, data, (f"{cls}: {name}",), new, params, **{name: bad})
    refuses(TypeError, data, (cls, "foo"), new, params, foo=1)
    refuses(TypeError, data, (cls, "foo"), new, [{"params": params, "foo": 1}])


@pytest.mark.parametrize("cls", CLASSES)
def test_class_calls(cls: str) -> None:
    params, grads = params_and_grads()
    opt = getattr(fnp, cls)(params[:3])
    data = [params, grads, opt.state]
    for bad in (grads[:2], grads, [], None, grads[0]):
        refuses(ValueError, data, (f"{cls}: grads ", "expected 3"), opt.step, bad)
    for scale in (0, -1, nan, inf):
        refuses(ValueError, data, (f"{cls}: grad_scale is ",), opt.step, grads[:3], grad_scale=scale)
    for options in ({"lr": -1}, {"lr": "x"}, {"foo": 1}):
        refuses(BOTH, data, (f"{cls}: ",), opt.add_param_group, {"params": params[3], **options})
    refuses(BOTH, data, (f"{cls}: ", "params"), opt.add_param_group, {})
    assert (len(opt.param_groups), len(opt.state)) == (1, 3)
    refuses(ValueError, data, (f"{cls}: ", "params[0]", "grads[0]"), opt.step, [params[0], None, None])

    def run() -> None:
        getattr(fnp, cls)([params[0], params[1], params[0]]).step([grads[0], grads[1], grads[0].copy()])

    refuses(ValueError, data, (f"{cls}: ", "params[0]", "params[2]"), run)


def test_norm_out_of_no_arrays_is_left_alone() -> None:
    out = np.full(1, 7.0)
    assert functional.total_norm([], norm_out=out) == 0.0
    assert functional.clip_grad_norm([], 1.0, norm_out=out, per_tensor=True) == []
    assert functional.sgd([], [], lr=0.1, max_norm=1.0, norm_out=out) == 0.0
    assert out[0] == 7.0
