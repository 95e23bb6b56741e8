"""The core on machines that this one is not: calls written from the specification, replayed under an emulator.

``replay/replay.cpp`` runs them on every target that the emulated machine has, and compares bit for bit.
"""

from __future__ import annotations

import math
import platform
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedstep
from bits import SPECIAL, Array
from fusedstep import _core, reference
from test_equality import (
    COMMON,
    DTYPES,
    HYPER,
    LARGE,
    SMALL,
    SPECIAL_COMMON,
    expected,
    hyper_of,
    random_arrays,
    rule_id,
    special_lists,
)
from test_norm import EXACT, SIZES
from tools import build_replay, built_replay, need, run

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


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """The command that replays files, and the targets it must name."""
    build, emulator, targets = MACHINES[request.param]
    need(*emulator[:1])
    only = ["--cuda"] if request.param == "cuda" else []
    return [*emulator, str(built_replay(build, tmp_path_factory) / "replay"), *only], targets


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
    arrays = random_arrays(rng, [*SMALL, *SIZES], dtype, 1)[0]
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


def assert_all_equal(machine: tuple[list[str], list[str]], calls: list[bytes], folder: Path) -> None:
    command, targets = machine
    code, output = replay(command, calls, folder)
    assert code == 0, output
    # At three misalignments each.
    assert re.findall(r"(\w+): (\d+) calls, 0 differences", output) == [(t, str(3 * len(calls))) for t in targets]


@pytest.mark.parametrize("rule", _core.rules(), ids=rule_id)
def test_every_rule(machine: tuple[list[str], list[str]], rule: dict[str, Any], tmp_path: Path) -> None:
    assert_all_equal(machine, [c for dtype in DTYPES for c in step_calls(rule, dtype)], tmp_path)


@pytest.mark.parametrize("norm_type", EXACT)
def test_every_norm(machine: tuple[list[str], list[str]], norm_type: float, tmp_path: Path) -> None:
    assert_all_equal(machine, [c for dtype in DTYPES for c in norm_calls(norm_type, dtype)], tmp_path)


def test_threads(machine: tuple[list[str], list[str]], tmp_path: Path) -> None:
    """Enough elements for the pool to be woken: its threads too keep subnormals."""
    (rule,) = (r for r in _core.rules() if rule_id(r) == "adam-exp_avg-exp_avg_sq")
    lists = random_arrays(np.random.default_rng(2), [300_001, 300_001], np.float32, 4)
    lists[1] = [g * np.float32(1e-38) for g in lists[1]]
    call = step_call(rule, "one", {}, 3, lists)
    command, targets = machine
    code, output = replay(command, [call], tmp_path, OMP_NUM_THREADS="3")
    assert code == 0, output
    assert re.findall(r"(\w+): 3 calls, 0 differences", output) == targets


def test_a_wrong_bit_is_seen(machine: tuple[list[str], list[str]], tmp_path: Path) -> None:
    (rule,) = (r for r in _core.rules() if rule_id(r) == "sgd")
    arrays = [[np.ones(5, np.float32)], [np.ones(5, np.float32)]]
    call = bytearray(step_call(rule, "middle", {}, 1, arrays))
    assert replay(machine[0], [bytes(call)], tmp_path)[0] == 0
    call[-4] ^= 1
    code, output = replay(machine[0], [bytes(call)], tmp_path)
    assert code == 1
    assert "sgd stream 0 [4] of 5" in output


# Put over the compiler's own intrinsics: mistakes that a lane file could contain. With the rule that shows each.
FAULTS = {
    "approximate root": ("adam-exp_avg-exp_avg_sq", "#define vsqrtq_f32(x) vmulq_f32(x, vrsqrteq_f32(x))"),
    "FMAX for max": (
        "adam-exp_avg-exp_avg_sq-max_exp_avg_sq",
        "#define vcgtq_f32(a, b) vceqq_u32(vreinterpretq_u32_f32(vmaxq_f32(a, b)), vreinterpretq_u32_f32(a))",
    ),
    "tail stored as a lane": ("sgd", "#define vst1q_lane_f32(at, r, k) vst1q_f32(at, r)"),
    "tail read past its end": (
        "sgd",
        "#define vld1q_lane_f32(at, x, k) ((void)static_cast<const volatile float*>(at)[3], vld1q_lane_f32(at, x, k))",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str, tmp_path: Path) -> None:
    need("qemu-aarch64")
    name, text = FAULTS[fault]
    (tmp_path / "arm_neon.h").write_text(f"#pragma once\n#include_next <arm_neon.h>\n{text}\n")
    build = build_replay(tmp_path / "build", "aarch64", flags=f"-I{tmp_path}")
    (rule,) = (r for r in _core.rules() if rule_id(r) == name)
    code, output = replay(["qemu-aarch64", str(build / "replay")], step_calls(rule, np.float32), tmp_path)
    assert code == (-signal.SIGSEGV if fault.startswith("tail") else 1), output
    assert fault.startswith("tail") or f"neon {name} stream" in output
