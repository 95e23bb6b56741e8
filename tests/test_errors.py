"""What is refused, how it is named, and that nothing has changed then: every bad argument, everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from fusedstep import functional, reference
from fusedstep import numpy as fnp

torch = pytest.importorskip("torch")

COUNT = 4
BAD = COUNT - 1  # the last array is the bad one: a kernel that starts before everything is checked is caught
SIZES = (3000, 1, 70, 9)

# Function: its array arguments, and options with which it uses all of them.
UPDATES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "sgd": (("params", "grads", "momentum_buffers"), {"lr": 0.1, "momentum": 0.9, "step": 2}),
    "adagrad": (("params", "grads", "sums"), {"lr": 0.1, "step": 2}),
    "rmsprop": (
        ("params", "grads", "square_avgs", "grad_avgs", "momentum_buffers"),
        {"lr": 0.1, "momentum": 0.9},
    ),
    "adam": (("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"), {"lr": 0.1, "step": 2}),
    "adamw": (("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"), {"lr": 0.1, "step": 2}),
}
CLIPS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "total_norm": (("arrays",), {}),
    "clip_grad_norm": (("grads",), {"max_norm": 0.5}),
    "clip_grad_value": (("grads",), {"clip_value": 0.5}),
}
FUNCTIONS = UPDATES | CLIPS
CLASSES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]
ARGUMENTS = [(f, a) for f, (arrays, _) in FUNCTIONS.items() for a in arrays]
WRITTEN = [(f, a) for f, a in ARGUMENTS if f != "total_norm" and not (f in UPDATES and a == "grads")]


def make(function: str) -> dict[str, list[Any]]:
    """Good arrays for every argument, one-dimensional, positive, all of float32."""
    rng = np.random.default_rng(7)
    return {a: [rng.uniform(0.5, 1, n).astype(np.float32) for n in SIZES] for a in FUNCTIONS[function][0]}


def invoke(function: str, arrays: dict[str, Any], **options: Any) -> Any:
    return getattr(functional, function)(**arrays, **{**FUNCTIONS[function][1], **options})


def memory(value: Any) -> Iterable[bytes]:
    """The bytes of every array in ``value``, and those of the array that it is a view of."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from memory(item)
    elif isinstance(value, torch.Tensor):
        if value.device.type == "cpu" and value.layout == torch.strided:
            yield bytes(value.detach().resolve_conj().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
        yield from memory(value.base)


def refuses(
    error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any], data: Any, *parts: str
) -> None:
    before = list(memory(data))
    with pytest.raises(error) as info:
        call()
    assert info.type in (error if isinstance(error, tuple) else (error,))  # no subclass
    for part in parts:
        assert part in str(info.value)
    assert list(memory(data)) == before


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
    view = np.broadcast_to(good[:1].copy(), good.shape)
    view.flags.writeable = True
    return view


def read_only(good: np.ndarray) -> np.ndarray:
    good.flags.writeable = False
    return good


def field(good: np.ndarray) -> np.ndarray:
    record = np.zeros(good.size, [("tag", "i1"), ("value", good.dtype)])
    record["value"] = good
    return record["value"]


def misaligned(good: np.ndarray) -> np.ndarray:
    view = np.zeros(good.nbytes + good.itemsize, np.uint8)[1 : good.nbytes + 1].view(good.dtype)
    view[:] = good
    return view


BOTH = (TypeError, ValueError)
DTYPES = ["f2", "i4", "?", "O", ">f4", "g", "U4", "V4"]
NOT_ARRAYS = [[1.0, 2.0], None, "x", {"a": 1}, 1.0, object(), np.ndarray, {1.0}]
Spoil = Callable[[np.ndarray], Any]

ANYWHERE: list[tuple[str, type[Exception] | tuple[type[Exception], ...], Spoil]] = [
    *((f"dtype {d}", TypeError, lambda good, d=d: np.zeros(good.shape, d)) for d in DTYPES),
    *((f"{bad!s:.20}", TypeError, lambda good, bad=bad: bad) for bad in NOT_ARRAYS),
    ("dlpack KeyError", BOTH, lambda good: Broken(KeyError("no"))),
    ("dlpack BufferError", BOTH, lambda good: Broken(BufferError("no"))),
    ("dlpack None", BOTH, lambda good: Broken(None)),
    ("field of odd stride", ValueError, field),
    ("misaligned", ValueError, misaligned),
    ("torch half", TypeError, lambda good: torch.zeros(good.shape, dtype=torch.half)),
    ("torch bfloat16", TypeError, lambda good: torch.zeros(good.shape, dtype=torch.bfloat16)),
    ("torch meta", ValueError, lambda good: torch.zeros(good.shape, device="meta")),
    ("torch sparse", BOTH, lambda good: torch.zeros(good.shape).to_sparse()),
]
IN_UPDATES: list[tuple[str, type[Exception], Spoil]] = [  # against the other arrays of the same index
    ("float64", TypeError, lambda good: good.astype(np.float64)),
    ("complex64", TypeError, lambda good: good.astype(np.complex64)),
    ("longer", ValueError, lambda good: np.append(good, good)),
    ("shorter", ValueError, lambda good: good[:-1].copy()),
    ("empty", ValueError, lambda good: good[:0].copy()),
    ("column", ValueError, lambda good: good[:, None].copy()),
    ("row", ValueError, lambda good: good[None].copy()),
    ("0-dim", ValueError, lambda good: good[0, ...].copy()),
]
IF_WRITTEN: list[tuple[str, type[Exception], Spoil]] = [
    ("read-only", ValueError, read_only),
    ("broadcast", ValueError, broadcast),
    ("overlapping", ValueError, lambda good: as_strided(good.copy().view("i2"), good.shape, (2,)).view("f4")),
    ("torch expanded", ValueError, lambda good: torch.zeros(1).expand(good.size)),
]
# A sliding window: consecutive elements, whole ones, shared between the rows.
IF_WRITTEN[2] = ("window", ValueError, lambda good: as_strided(good.copy(), (3, 3), (4, 8), writeable=True))


def ids(rows: list[Any]) -> list[str]:
    return [row[0] for row in rows]


def check_bad_array(function: str, argument: str, error: Any, spoil: Spoil) -> None:
    arrays = make(function)
    bad = spoil(arrays[argument][BAD])
    if getattr(bad, "shape", None) == (3, 3):  # the window: its partners get its shape
        for group in arrays.values():
            group[BAD] = group[BAD].reshape(3, 3)
    arrays[argument][BAD] = bad
    refuses(error, lambda: invoke(function, arrays), arrays, f"{function}: ", f"{argument}[{BAD}]")


@pytest.mark.parametrize(("name", "error", "spoil"), ANYWHERE, ids=ids(ANYWHERE))
@pytest.mark.parametrize(("function", "argument"), ARGUMENTS)
def test_array_that_cannot_be_read(function: str, argument: str, name: str, error: Any, spoil: Spoil) -> None:
    check_bad_array(function, argument, error, spoil)


@pytest.mark.parametrize(("name", "error", "spoil"), IN_UPDATES, ids=ids(IN_UPDATES))
@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, a in ARGUMENTS if f in UPDATES])
def test_array_that_does_not_match(function: str, argument: str, name: str, error: Any, spoil: Spoil) -> None:
    check_bad_array(function, argument, error, spoil)


@pytest.mark.parametrize(("name", "error", "spoil"), IF_WRITTEN, ids=ids(IF_WRITTEN))
@pytest.mark.parametrize(("function", "argument"), WRITTEN)
def test_array_that_cannot_be_written(function: str, argument: str, name: str, error: Any, spoil: Spoil) -> None:
    check_bad_array(function, argument, error, spoil)


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: [*x, x[0].copy()], lambda x: [], lambda x: x[0]])
@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, a in ARGUMENTS if f in UPDATES and a != "params"])
def test_length(function: str, argument: str, change: Callable[[Any], Any]) -> None:
    arrays = make(function)
    arrays[argument] = change(arrays[argument])
    refuses(ValueError, lambda: invoke(function, arrays), arrays, f"{function}: {argument} ", f"expected {COUNT}")


@pytest.mark.parametrize("function", UPDATES)
@pytest.mark.parametrize("spoil", [read_only, broadcast], ids=["read-only", "broadcast"])
def test_gradient_is_only_read(function: str, spoil: Spoil) -> None:
    arrays = make(function)
    arrays["grads"][BAD] = spoil(arrays["grads"][BAD])
    before = list(memory(arrays["grads"]))
    expected = expect(function, arrays)
    invoke(function, arrays)
    same(arrays, expected)
    assert list(memory(arrays["grads"])) == before


def expect(function: str, arrays: dict[str, Any], **more: Any) -> dict[str, list[np.ndarray]]:
    """What the reference makes of arrays that are as ``UPDATES`` has them."""
    defaults = {"adagrad": {"eps": 1e-10}, "rmsprop": {"alpha": 0.99, "eps": 1e-8}}
    adam = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01 if function == "adamw" else 0.0}
    options = {**defaults.get(function, {} if function == "sgd" else adam), **UPDATES[function][1], **more}
    written = [a for a in arrays if a != "grads"]
    rows = zip(*(map(np.array, arrays[a]) for a in UPDATES[function][0]), strict=True)
    results = [getattr(reference, function)(*row, **options) for row in rows]
    return {a: [r[k] for r in results] for k, a in enumerate(written)}


def same(arrays: dict[str, Any], expected: dict[str, list[np.ndarray]]) -> None:
    for argument, values in expected.items():
        for k, value in enumerate(values):
            assert np.array_equal(np.asarray(arrays[argument][k]), value, equal_nan=True), f"{argument}[{k}]"


@pytest.mark.parametrize("function", UPDATES)
@pytest.mark.parametrize("where", range(2))
def test_torch_and_numpy_together(function: str, where: int) -> None:
    arrays = make(function)
    expected = expect(function, arrays)
    for k, group in enumerate(arrays.values()):
        group[:] = [torch.from_numpy(a) if (k + i) % 2 == where else a for i, a in enumerate(group)]
    invoke(function, arrays)
    same(arrays, expected)


# --------------------------------------------------------------------------------------------------------- aliasing


def shared(kind: str, good: np.ndarray) -> tuple[Any, Any]:
    """Two arrays of one memory and of the shape of ``good``."""
    n = good.size
    pool = np.resize(good, 2 * n)
    return {
        "same": lambda: (good, good),
        "view": lambda: (good, good[:]),
        "reversed": lambda: (good, good[::-1]),
        "one element": lambda: (pool[:n], pool[n - 1 : -1]),
        "strided": lambda: (pool[::2], pool[:n]),
        "torch": lambda: (good, torch.from_numpy(good)),
    }[kind]()


@pytest.mark.parametrize("kind", ["same", "view", "reversed", "one element", "strided", "torch"])
@pytest.mark.parametrize("function", UPDATES)
def test_aliasing(function: str, kind: str) -> None:
    names = UPDATES[function][0]
    pairs = [(a, BAD, b, BAD) for i, a in enumerate(names) for b in names[i + 1 :]]
    pairs += [(a, 1, b, BAD) for a in names for b in names if (a, b) != ("grads", "grads")]
    for a, i, b, k in pairs:
        arrays = make(function)
        for group in arrays.values():
            group[i] = group[BAD].copy()
        arrays[a][i], arrays[b][k] = shared(kind, arrays[a][BAD])
        refuses(ValueError, lambda arrays=arrays: invoke(function, arrays), arrays, f"{function}: ", f"{a}[", f"{b}[")


@pytest.mark.parametrize("kind", ["same", "view", "reversed", "one element", "strided", "torch"])
@pytest.mark.parametrize("function", ["clip_grad_norm", "clip_grad_value"])
def test_aliasing_of_clipped(function: str, kind: str) -> None:
    arrays = make(function)
    arrays["grads"][1], arrays["grads"][BAD] = shared(kind, arrays["grads"][BAD])
    refuses(ValueError, lambda: invoke(function, arrays), arrays, f"{function}: ", f"grads[{BAD}]")


@pytest.mark.parametrize("reverse", [1, -1])
@pytest.mark.parametrize("function", UPDATES)
def test_columns_of_one_buffer_are_not_aliases(function: str, reverse: int) -> None:
    names = UPDATES[function][0]
    pool = np.random.default_rng(3).uniform(0.5, 1, (37, len(names) * COUNT)).astype(np.float32)
    arrays = {a: [pool[::reverse, len(names) * k + i] for k in range(COUNT)] for i, a in enumerate(names)}
    expected = expect(function, arrays)
    invoke(function, arrays)
    same(arrays, expected)


# ---------------------------------------------------------------------------------------------------------- numbers

NAN, INF = math.nan, math.inf
NOT_NUMBERS = [None, "x", [0.1], (), {}, 1j, object(), np.array([0.1, 0.1])]
NON_NEGATIVE = [NAN, INF, -INF, -1, -1e-300, np.float32("nan")]
LIMIT = [NAN, -INF, -1]  # inf is no limit
FRACTION = [NAN, INF, -INF, -0.1, 1, 1.5]
OPTIONS: dict[str, tuple[str, list[Any]]] = {  # option: functions, values out of range
    "lr": ("sgd adagrad rmsprop adam adamw", NON_NEGATIVE),
    "weight_decay": ("sgd adagrad rmsprop adam adamw", NON_NEGATIVE),
    "eps": ("adagrad rmsprop adam adamw", NON_NEGATIVE),
    "lr_decay": ("adagrad", NON_NEGATIVE),
    "alpha": ("rmsprop", NON_NEGATIVE),
    "momentum": ("sgd rmsprop", NON_NEGATIVE),
    "dampening": ("sgd", [NAN, INF, -INF]),
    "beta1": ("adam adamw", FRACTION),
    "beta2": ("adam adamw", FRACTION),
    "grad_scale": ("sgd adagrad rmsprop adam adamw", [0, NAN, INF, -INF, -1]),
    "max_norm": ("sgd adagrad rmsprop adam adamw clip_grad_norm", LIMIT),
    "clip_value": ("sgd adagrad rmsprop adam adamw clip_grad_value", LIMIT),
    "norm_type": ("sgd adagrad rmsprop adam adamw clip_grad_norm total_norm", [0, -1, NAN, -INF]),
}
TABLE = [(function, option) for option, (functions, _) in OPTIONS.items() for function in functions.split()]


@pytest.mark.parametrize(("function", "option"), TABLE)
def test_number(function: str, option: str) -> None:
    arrays = make(function)
    extra = {"max_norm": 1.0} if option == "norm_type" and function in UPDATES else {}
    optional = function in UPDATES and option in ("max_norm", "clip_value")
    for values, error in ((OPTIONS[option][1], ValueError), (NOT_NUMBERS, TypeError)):
        for value in values:
            if value is None and optional:
                continue
            options = {**extra, option: value}
            refuses(error, lambda o=options: invoke(function, arrays, **o), arrays, f"{function}: {option} is ")


@pytest.mark.parametrize("function", ["sgd", "adagrad", "adam", "adamw"])
def test_step(function: str) -> None:
    arrays = make(function)
    for value in (0, -1, [1, 1, 1], [1] * 5, [], [1, 1, 1, 0], 2**53, 10**30):
        refuses(ValueError, lambda v=value: invoke(function, arrays, step=v), arrays, f"{function}: step")
    for value in (1.5, "1", None, {}, [1, 1, 1, 1.0], [1, 1, 1, "1"], np.array([1.0, 2.0])):
        refuses(TypeError, lambda v=value: invoke(function, arrays, step=v), arrays, f"{function}: step")
    # Four numbers for four parameters, but neither a list nor a tuple: taken or named.
    before = list(memory(arrays))
    try:
        invoke(function, arrays, step=np.array([1, 2, 3, 4]))
    except BOTH as error:
        assert f"{function}: step" in str(error)  # noqa: PT017
        assert list(memory(arrays)) == before


FLAGS = {"maximize": UPDATES, "per_tensor": UPDATES, "error_if_nonfinite": UPDATES, "nesterov": ["sgd"]}


@pytest.mark.parametrize("value", [None, [], "x", 2, NAN, np.array([True, False])], ids=str)
@pytest.mark.parametrize(("function", "flag"), [(f, flag) for flag, functions in FLAGS.items() for f in functions])
def test_flag_is_a_truth_value_or_named(function: str, flag: str, value: Any) -> None:
    arrays = make(function)
    before = list(memory(arrays))
    try:
        invoke(function, arrays, **{flag: value})
    except BOTH as error:
        assert f"{function}: {flag}" in str(error)  # noqa: PT017
        assert list(memory(arrays)) == before


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unknown_keyword(function: str) -> None:
    arrays = make(function)
    refuses(TypeError, lambda: invoke(function, arrays, learning_rate=1.0), arrays, function, "learning_rate")


@pytest.mark.parametrize("function", ["sgd", "rmsprop"])
def test_momentum_and_its_buffers(function: str) -> None:
    arrays = make(function)
    refuses(ValueError, lambda: invoke(function, arrays, momentum=0.0), arrays, f"{function}: momentum", "buffers")
    del arrays["momentum_buffers"]
    refuses(ValueError, lambda: invoke(function, arrays, momentum=0.9), arrays, f"{function}: momentum", "buffers")


@pytest.mark.parametrize("options", [{"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov(options: dict[str, float]) -> None:
    arrays = make("sgd")
    if not options["momentum"]:
        del arrays["momentum_buffers"]
    refuses(ValueError, lambda: invoke("sgd", arrays, nesterov=True, **options), arrays, "sgd: nesterov", "momentum")


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("function", [*UPDATES, "clip_grad_norm", "total_norm"])
def test_error_if_nonfinite(function: str, value: float, per_tensor: bool) -> None:
    arrays = make(function)
    arrays["arrays" if function == "total_norm" else "grads"][BAD][-1] = value
    options = {} if function == "total_norm" else {"max_norm": 1.0}
    for p in (1, 2, 2.5, INF):
        options |= {"norm_type": p, "per_tensor": per_tensor, "error_if_nonfinite": True}
        refuses(RuntimeError, lambda: invoke(function, arrays, **options), arrays, f"{function}: ", "norm")


# -------------------------------------------------------------------------------------------------- fusedstep.numpy


@pytest.mark.parametrize(("name", "error", "spoil"), ANYWHERE + IN_UPDATES, ids=ids(ANYWHERE + IN_UPDATES))
@pytest.mark.parametrize("split", [None, 2], ids=["one group", "two groups"])
@pytest.mark.parametrize("cls", CLASSES)
def test_class_gradient(cls: str, split: int | None, name: str, error: Any, spoil: Spoil) -> None:
    if spoil(np.ones(9, np.float32)) is None:
        pytest.skip("a None leaves its parameter out")
    arrays = make("total_norm")["arrays"]
    grads = [a.copy() for a in arrays]
    groups = arrays if split is None else [{"params": arrays[:split]}, {"params": arrays[split:]}]
    opt = getattr(fnp, cls)(groups)
    opt.step(grads)
    grads[0], grads[BAD] = None, spoil(grads[BAD])  # the index is the caller's, whatever is left out before it
    steps = [s["step"] for s in opt.state]
    data = [arrays, grads, opt.state]
    refuses(error, lambda: opt.step(grads), data, f"{cls}: ", f"grads[{BAD}]")
    assert [s["step"] for s in opt.state] == steps


PARAMS = [row for row in ANYWHERE + IF_WRITTEN if row[0] != "{'a': 1}"]


@pytest.mark.parametrize(("name", "error", "spoil"), PARAMS, ids=ids(PARAMS))
@pytest.mark.parametrize("cls", CLASSES)
def test_class_parameter(cls: str, name: str, error: Any, spoil: Spoil) -> None:
    arrays = make("total_norm")["arrays"]
    arrays[BAD] = spoil(arrays[BAD])
    grads = [np.ones(getattr(a, "shape", ()), np.float32) for a in arrays]

    def run() -> None:  # construction may see it, or the first step
        getattr(fnp, cls)(arrays).step(grads)

    refuses(error, run, [arrays, grads], f"{cls}: ", f"params[{BAD}]")


@pytest.mark.parametrize("cls", CLASSES)
def test_class_options(cls: str) -> None:
    make_class, params = getattr(fnp, cls), make("total_norm")["arrays"]
    grads = [p.copy() for p in params]
    opt = make_class(params)
    for name in opt.defaults.keys() & {*OPTIONS, "initial_accumulator_value"}:
        values = [*OPTIONS.get(name, ("", NON_NEGATIVE))[1], "x", [0.1], 1j]
        for value in values + ([] if name in ("max_norm", "clip_value") else [None]):
            error = ValueError if isinstance(value, (int, float, np.floating)) else TypeError
            good = opt.param_groups[0][name]
            opt.param_groups[0][name] = value
            data = [params, opt.state]
            for call in (
                lambda n=name, v=value: make_class(params, **{n: v}),
                lambda n=name, v=value: make_class([{"params": params[:1]}, {"params": params[1:], n: v}]),
                lambda: opt.step(grads),
                lambda v=value: opt.step(grads, lr=v) if v is not None else opt.step(grads),
            ):
                refuses(error, call, data, f"{cls}: ")
            refuses(error, lambda: opt.step(grads), data, f"{cls}: {name} is ")
            opt.param_groups[0][name] = good
    for betas in ([0.9, 1.0], (-0.1, 0.9), (NAN, 0.9)) if "betas" in opt.defaults else ():
        refuses(ValueError, lambda b=betas: make_class(params, betas=b), params, f"{cls}: beta")
    for betas in (0.9, None, "ab", (0.9,), (0.9, 0.9, 0.9), ("x", 0.9)) if "betas" in opt.defaults else ():
        refuses(BOTH, lambda b=betas: make_class(params, betas=b), params, f"{cls}: beta")
    refuses(TypeError, lambda: make_class(params, foo=1), params, cls, "foo")
    refuses(TypeError, lambda: make_class([{"params": params, "foo": 1}]), params, cls, "foo")


@pytest.mark.parametrize("cls", CLASSES)
def test_class_calls(cls: str) -> None:
    params = make("total_norm")["arrays"]
    grads = [p.copy() for p in params]
    opt = getattr(fnp, cls)(params[:3])
    data = [params, grads, opt.state]
    for bad in (grads[:2], grads, [], None, grads[0]):
        refuses(ValueError, lambda b=bad: opt.step(b), data, f"{cls}: grads ", "expected 3")
    for scale in (0, -1, NAN, INF):
        refuses(ValueError, lambda s=scale: opt.step(grads[:3], grad_scale=s), data, f"{cls}: grad_scale is ")
    for group in ({}, {"params": params[3], "lr": -1}, {"params": params[3], "foo": 1}, {"params": [None]}):
        refuses(BOTH, lambda g=group: opt.add_param_group(g), data, f"{cls}: ")
        assert len(opt.param_groups) == 1
        assert len(opt.state) == 3
    opt.add_param_group({"params": params[0]})
    refuses(ValueError, lambda: opt.step([*grads[:3], grads[0]]), data, f"{cls}: params[0]", "params[3]")
    refuses(ValueError, lambda: opt.step([params[0], None, None, None]), data, f"{cls}: params[0]", "grads[0]")
