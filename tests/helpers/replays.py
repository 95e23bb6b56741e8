"""Calls of the core written to files, with the answers of the specification: what ``tests/replay`` runs without Python.

:data:`MACHINES` says where: on this machine, under an emulator, as CUDA kernels on the CPU. The fixture ``machine`` of
``tests/core`` builds the program for each. The format of the files is that of ``replay/replay.cpp``.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedstep
from fusedstep import reference
from tests.helpers import declared
from tests.helpers.bits import SPECIAL, Array
from tests.helpers.kernels import (
    COMMON,
    DTYPES,
    HYPER,
    LARGE,
    NORM_SIZES,
    SEED,
    SMALL,
    SPECIAL_COMMON,
    apart,
    dtypes_of,
    expected,
    hyper_of,
    random_arrays,
    rule_id,
    special_lists,
)
from tests.helpers.tools import run

Machine = tuple[list[str], list[str]]  # the command that replays files, and the targets it must name

X86 = platform.machine() == "x86_64"
# Name: which build, the emulator's command, the targets that must have run.
MACHINES: dict[str, tuple[str, list[str], list[str]]] = {
    # This machine: the lanes that it has, at the page that faults.
    "native": ("native", [], [t for t in fusedstep.targets() if not t.startswith(("plain_", "simde_"))]),
    "aarch64": ("aarch64", ["qemu-aarch64"], ["neon", "scalar"]),
    # SSE4.2 and no AVX: nothing wider may run there. The AVX-512 lanes do, through SIMDe.
    "nehalem": ("native", ["qemu-x86_64", "-cpu", "Nehalem"], ["scalar"]),
}
if X86:
    for _, _, targets in (MACHINES["native"], MACHINES["nehalem"]):
        targets.append("simde_avx512")
    # The CUDA kernels, on this CPU.
    MACHINES["cuda"] = ("native", [], ["cuda"])
else:
    del MACHINES["nehalem"]


# In the order of formats/all.h; a dtype of NumPy for each.
FORMATS = {"float32": "f4", "float64": "f8", "bfloat16": "u2", "float16": "u2", "bfloat16_stochastic": "u2"}
MASKS = {"bool": "?", "bool_wide": "?"}  # which come behind them
NAMES = [*FORMATS, *MASKS]
AS_THEY_ARE = ("float32", "float64", "bool", "bool_wide")


def header(kind: int, dtype: type, arrays: Sequence[Array]) -> bytes:
    """`kind`: 0 a step, 1 a norm, 2 and 3 the same of streams that are stored in some way, 4 a step of such streams
    with which something rides along."""
    return np.array([kind, DTYPES.index(dtype), len(arrays), *(a.size for a in arrays)], np.int64).tobytes()


def step_call(rule: dict[str, Any], kind: str, common: dict[str, Any], t: int, lists: list[list[Array]]) -> bytes:
    """One multi-tensor step, and what it gives."""
    hyper = hyper_of(rule, kind)
    if rule["name"] == "clip":
        common = {k: v for k, v in common.items() if k in ("clip_value", "max_norm")}
    norm = None if "max_norm" not in common else reference.total_norm(lists[1]) / common.get("grad_scale", 1.0)
    if rule["name"] == "clip":
        options = {k: v for k, v in common.items() if k != "max_norm"}
        if norm is not None:
            options["clip_coef"] = reference.clip_coefficient(norm, common["max_norm"])
        results: list[tuple[Array, ...]] = [reference.clip(g, **options) for g in lists[1]]
        lists = [lists[1], lists[1]]  # in place
    numbers: list[float] = []
    if rule["name"] != "clip":
        results, _, numbers = with_scalars(rule, hyper, common, t, lists)
    return call_of(rule_id(rule), t, hyper, common, lists, results, norm, numbers)


def with_scalars(
    rule: dict[str, Any], hyper: dict[str, float], common: dict[str, Any], t: int, lists: list[list[Array]]
) -> tuple[list[tuple[Array, ...]], float | None, list[float]]:
    """What the specification says of the arrays, of the norm, and of states of one number as a file has them."""
    count = len(rule["scalars"])
    before = [[np.array(0.75 - 0.25 * k, np.float32)] * len(lists[0]) for k in range(count)]
    results, norm = expected(rule, hyper, common, t, *lists[:2], [*lists[2:], *before])
    moved = [float(x) for x in results[0][len(results[0]) - count :]]
    numbers = [x for k in range(count) for x in (0.75 - 0.25 * k, 0.0)] + moved
    return [r[: len(r) - count] for r in results], norm, numbers


def call_of(
    name: str,
    t: int,
    hyper: dict[str, float],
    common: dict[str, Any],
    lists: list[list[Array]],
    results: Sequence[tuple[Array, ...]],
    norm: float | None = None,
    scalars: Sequence[float] = (),
) -> bytes:
    """`scalars`: value, whether it is float64, ...; then the values expected."""
    parts = [header(0, lists[0][0].dtype.type, lists[0]), rule_part(name, t, hyper, common, norm, scalars)]
    for *streams, result in zip(*lists, results, strict=True):
        parts += [a.tobytes() for a in (*streams, *result)]
    return b"".join(parts)


def rule_part(
    name: str,
    t: int,
    hyper: dict[str, float],
    common: dict[str, Any],
    norm: float | None = None,
    scalars: Sequence[float] = (),
    seed: int = 0,
) -> bytes:
    """`seed`: of random numbers; the id of a tensor is its place in the call."""
    defaults = {"weight_decay": 0.0, "clip_value": math.inf, "max_norm": -1.0, "grad_scale": 1.0}
    defaults |= {"decoupled": False, "maximize": False}
    numbers = [*apart(hyper, common).values(), *({**defaults, **common}[k] for k in defaults)]
    numbers.append(0.0 if norm is None else norm)
    return b"".join(
        [
            np.int64(len(name)).tobytes(),
            name.encode(),
            np.int64(t).tobytes(),
            np.array(numbers, np.float64).tobytes(),
            np.uint64(seed).tobytes(),
            np.array(scalars, np.float64).tobytes(),
        ]
    )


def step_calls(rule: dict[str, Any], dtype: type) -> list[bytes]:
    rng = np.random.default_rng(0)
    dtypes = [dtype] * (2 + len(rule["state"]))
    calls = []
    small = random_arrays(rng, SMALL, dtypes)
    for common in COMMON.values():
        for kind, t in zip(HYPER, (2, 1, 1000), strict=True):
            calls.append(step_call(rule, kind, common, t, small))
    calls.append(step_call(rule, "middle", COMMON["all"], 7, random_arrays(rng, LARGE, dtypes)))
    for lists in special_lists(rule, dtypes):
        calls += [step_call(rule, "middle", COMMON[common], 3, lists) for common in SPECIAL_COMMON]
    return calls


def norm_call(norm_type: float, arrays: list[Array]) -> bytes:
    norms = [*(reference.total_norm([a], norm_type) for a in arrays), reference.total_norm(arrays, norm_type)]
    return b"".join(
        [
            header(1, arrays[0].dtype.type, arrays),
            np.float64(norm_type).tobytes(),
            *(a.tobytes() for a in arrays),
            np.array(norms).tobytes(),
        ]
    )


def norm_calls(norm_type: float, dtype: type) -> list[bytes]:
    rng = np.random.default_rng(1)
    (arrays,) = random_arrays(rng, [*SMALL, *NORM_SIZES], [dtype])
    calls = [norm_call(norm_type, arrays)]
    for value in SPECIAL:
        (x,) = random_arrays(rng, [3000] * 5, [dtype])
        for a, at in zip(x, (0, 31, 32, 2048, 2999), strict=True):
            a[at] = value
        calls += [norm_call(norm_type, x), norm_call(norm_type, [x[0], np.array([value] * 7, dtype)])]
    return calls


# Shape, then the order in which dimensions lie in memory and the gap between neighbours, in turn for the streams.
Layout = tuple[tuple[int, ...], Sequence[tuple[tuple[int, ...], int]]]
LAYOUTS: dict[str, Layout] = {
    "flat": ((1537,), [((0,), 1)]),
    "lane": ((3,), [((0,), 1)]),
    "rows": ((30, 65), [((0, 1), 1)]),
    "gaps": ((700,), [((0,), 2), ((0,), 1), ((0,), 3)]),
    "transposed": ((40, 33), [((0, 1), 1), ((1, 0), 1), ((0, 1), 2)]),
    "short": ((5, 60, 3), [((0, 1, 2), 1), ((2, 0, 1), 1), ((1, 2, 0), 2)]),
    "large": ((600_001,), [((0,), 1)]),
    "large transposed": ((301, 203), [((0, 1), 1), ((1, 0), 1)]),
}
SMALL_LAYOUTS = [name for name in LAYOUTS if not name.startswith("large")]
LARGE_LAYOUTS = [name for name in LAYOUTS if name.startswith("large")]
FLAT = ("flat", "lane", "large")


class Stream:
    """An array in memory of its own, stored in a format, and what a step makes of it."""

    def __init__(self, values: Array, format: str, order: tuple[int, ...], gap: int, padded: bool) -> None:
        self.format, self.shape, self.strides, self.key = format, values.shape, [0] * values.ndim, 0
        for d in reversed(order):
            self.strides[d] = gap
            gap = gap * values.shape[d] + 3 * (padded and d == order[-1])
        self.items = 1 + sum(s * (n - 1) for s, n in zip(self.strides, values.shape, strict=True))
        self.memory = self.written(values, np.arange(self.items).astype((FORMATS | MASKS)[format]))

    def encode(self, values: Array) -> Array:
        if self.format in AS_THEY_ARE:
            return values
        return reference.encode(values.astype(np.float32), self.format, key=self.key)

    def decode(self, stored: Array) -> Array:
        return stored if self.format in AS_THEY_ARE else reference.decode(stored, self.format)

    def view(self, memory: Array) -> Array:
        return np.lib.stride_tricks.as_strided(memory, self.shape, [s * memory.itemsize for s in self.strides])

    def written(self, values: Array, memory: Array) -> Array:
        memory = memory.copy()
        self.view(memory)[...] = self.encode(values)
        return memory

    def decoded(self) -> Array:
        return self.decode(np.ascontiguousarray(self.view(self.memory)))

    def stored(self, values: Array) -> Array:
        return self.decode(self.encode(values))

    def part(self, strided: bool, after: Array) -> bytes:
        head = [NAMES.index(self.format), *(self.strides if strided else ()), self.items]
        return np.array(head, np.int64).tobytes() + self.memory.tobytes() + after.tobytes()


def streams_of(rng: np.random.Generator, layout: str, formats: Sequence[str]) -> list[Stream]:
    shape, walks = LAYOUTS[layout]
    out = []
    for k, format in enumerate(formats):
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3 if format == "float16" else 6, shape)
        order, gap = walks[k % len(walks)]
        out.append(Stream(np.abs(values) if k > 2 else values, format, order, gap, layout == "rows"))
    return out


def layout_part(layout: str) -> bytes:
    shape = LAYOUTS[layout][0]
    is_strided = layout not in FLAT
    return np.array([is_strided, len(shape) * is_strided, *(shape if is_strided else ())], np.int64).tobytes()


# Of the tensors of a call, by what it is told of each: new parameter and states, as they are computed.
Specification = Callable[[list[list[Array]], list[list[Stream]]], list[tuple[Array, ...]]]


def stored_step(
    rule: dict[str, Any],
    common: dict[str, Any],
    t: int,
    tensors: Sequence[tuple[str, list[Stream]]],
    hyper: dict[str, float] | None = None,
    specification: Specification | None = None,
) -> bytes:
    """One step over tensors of these layouts, its results encoded. Another specification may read what is stored."""
    hyper = hyper or hyper_of(rule, "middle")
    for tensor, (_, streams) in enumerate(tensors):
        for k, s in enumerate(streams):
            s.key = reference.stochastic_key(SEED, t, tensor, max(0, k - 1))
    lists = [[s.decoded() for s in streams] for streams in zip(*(streams for _, streams in tensors), strict=True)]
    norm, numbers = None, []
    if specification is None:
        results, norm, numbers = with_scalars(rule, hyper, common, t, lists)
    else:
        results = specification(lists, [streams for _, streams in tensors])
    dtype = np.float64 if lists[0][0].dtype == np.float64 else np.float32
    parts = [header(2, dtype, lists[0]), rule_part(rule_id(rule), t, hyper, common, norm, numbers, SEED)]
    for (layout, (p, g, *states)), (new_p, *new_states) in zip(tensors, results, strict=True):
        strided = layout not in FLAT
        parts += [layout_part(layout), p.part(strided, p.written(new_p, p.memory)), g.part(strided, g.memory)]
        parts += [s.part(strided, s.written(x, s.memory)) for s, x in zip(states, new_states, strict=True)]
    return b"".join(parts)


def stored_norm(norm_type: float, tensors: Sequence[tuple[str, Stream]]) -> bytes:
    arrays = [s.decoded() for _, s in tensors]
    norms = [*(reference.total_norm([a], norm_type) for a in arrays), reference.total_norm(arrays, norm_type)]
    parts = [header(3, np.float32, arrays), np.float64(norm_type).tobytes()]
    for layout, s in tensors:
        parts += [layout_part(layout), s.part(layout not in FLAT, s.memory)]
    return b"".join([*parts, np.array(norms).tobytes()])


def stored_calls(rule: dict[str, Any], storage: str) -> list[bytes]:
    """Steps of tensors of every small size, and of special values, that lie flat."""
    rounding = ["nearest", "nearest", *declared.roundings(rule)]
    pairs = zip(storage.split("-"), rounding, strict=True)
    formats = [f"{name}_stochastic" if (name, r) == ("bfloat16", "stochastic") else name for name, r in pairs]
    dtypes = dtypes_of(storage)
    every = [random_arrays(np.random.default_rng(7), [*range(1, 66), 1000], dtypes), *special_lists(rule, dtypes)]
    calls = []
    for lists in every:
        tensors = []
        for arrays in zip(*lists, strict=True):
            values = [reference.decode(a) for a in arrays]
            streams = [Stream(x, f, (0,), 1, False) for x, f in zip(values, formats, strict=True)]
            tensors.append(("flat", streams))
        calls += [stored_step(rule, COMMON[common], 3, tensors) for common in ("plain", "all")]
    return calls


def replay(command: list[str], calls: list[bytes], folder: Path, **env: str) -> tuple[int, str]:
    file = folder / "calls"
    file.write_bytes(b"".join(calls))
    result = run(*command, file, check=False, **env)
    file.unlink()
    return result.returncode, result.stdout + result.stderr


def assert_all_equal(machine: Machine, calls: list[bytes], folder: Path) -> None:
    command, targets = machine
    code, output = replay(command, calls, folder)
    assert code == 0, output
    # At three misalignments each.
    assert re.findall(r"(\w+): (\d+) calls, 0 differences", output) == [(t, str(3 * len(calls))) for t in targets]
