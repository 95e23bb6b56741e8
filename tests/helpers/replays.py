"""Calls of the core written to files, with the answers of the specification: what ``tests/replay`` runs without Python.

:data:`MACHINES` says where: on this machine, under an emulator, as CUDA kernels on the CPU. The fixture ``machine`` of
``tests/core`` builds the program for each. The format of the files is that of ``replay/replay.cpp``.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedstep
from fusedstep import reference
from tests.helpers.bits import SPECIAL, Array
from tests.helpers.kernels import (
    COMMON,
    DTYPES,
    HYPER,
    LARGE,
    NORM_SIZES,
    SMALL,
    SPECIAL_COMMON,
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


def header(kind: int, dtype: type, arrays: Sequence[Array]) -> bytes:
    """`kind`: 0 a step, 1 a norm, 2 and 3 the same of streams that are stored in some way."""
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
    count = len(rule.get("scalars", ()))
    if rule["name"] != "clip":
        before = [[np.array(0.75 - 0.25 * k, np.float32)] * len(lists[0]) for k in range(count)]
        results, _ = expected(rule, hyper, common, t, *lists[:2], [*lists[2:], *before])
        moved = [float(x) for x in results[0][len(results[0]) - count :]]
        numbers = [x for k in range(count) for x in (0.75 - 0.25 * k, 0.0)] + moved
        results = [r[: len(r) - count] for r in results]
    return call_of(rule_id(rule), t, hyper, common, lists, results, norm, numbers if count else ())


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
) -> bytes:
    defaults = {"weight_decay": 0.0, "clip_value": math.inf, "max_norm": -1.0, "grad_scale": 1.0}
    defaults |= {"decoupled": False, "maximize": False}
    numbers = [*hyper.values(), *({**defaults, **common}[k] for k in defaults)]
    numbers += [0.0 if norm is None else norm, *scalars]
    return b"".join(
        [
            np.int64(len(name)).tobytes(),
            name.encode(),
            np.int64(t).tobytes(),
            np.array(numbers, np.float64).tobytes(),
        ]
    )


def step_calls(rule: dict[str, Any], dtype: type) -> list[bytes]:
    rng = np.random.default_rng(0)
    count = 2 + len(rule["state"])
    calls = []
    small = random_arrays(rng, SMALL, dtype, count)
    for common in COMMON.values():
        for kind, t in zip(HYPER, (2, 1, 1000), strict=True):
            calls.append(step_call(rule, kind, common, t, small))
    calls.append(step_call(rule, "middle", COMMON["all"], 7, random_arrays(rng, LARGE, dtype, count)))
    for lists in special_lists(rule, dtype):
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
    arrays = random_arrays(rng, [*SMALL, *NORM_SIZES], dtype, 1)[0]
    calls = [norm_call(norm_type, arrays)]
    for value in SPECIAL:
        (x,) = random_arrays(rng, [3000] * 5, dtype, 1)
        for a, at in zip(x, (0, 31, 32, 2048, 2999), strict=True):
            a[at] = value
        calls += [norm_call(norm_type, x), norm_call(norm_type, [x[0], np.array([value] * 7, dtype)])]
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
