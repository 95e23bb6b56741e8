"""The core on machines that this one is not: calls written from the specification, replayed under an emulator.

``replay/replay.cpp`` runs them on every target that the emulated machine has, and compares bit for bit.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedstep import _core
from tests.helpers import declared
from tests.helpers.kernels import (
    DTYPES,
    NORMS,
    STORED_KERNEL_IDS,
    STORED_KERNELS,
    random_arrays,
    rule_id,
    storages,
)
from tests.helpers.replays import Machine, assert_all_equal, norm_calls, replay, step_call, step_calls, stored_calls
from tests.helpers.riding import riding_calls
from tests.helpers.tools import built_replay, need, replay_with

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rule", _core.rules(), ids=rule_id)
def test_every_rule(machine: Machine, rule: dict[str, Any], tmp_path: Path) -> None:
    assert_all_equal(machine, [c for dtype in DTYPES for c in step_calls(rule, dtype)], tmp_path)


@pytest.mark.pairwise("machine", "storage", each=["rule"], parts=["storage"])
@pytest.mark.parametrize(("rule", "storage"), STORED_KERNELS, ids=STORED_KERNEL_IDS)
def test_every_rule_with_formats(machine: Machine, rule: dict[str, Any], storage: str, tmp_path: Path) -> None:
    assert_all_equal(machine, stored_calls(rule, storage), tmp_path)


@pytest.mark.parametrize("rule", declared.KERNELS, ids=rule_id)
def test_every_rule_with_rides(machine: Machine, rule: dict[str, Any], tmp_path: Path) -> None:
    """With all arrays in float32, in float64, in bfloat16 as far as they may be, and of one mixture. Large tensors, for
    which the specification takes a second, in one of these, in turn for the rules."""
    turn = declared.KERNELS.index(rule) % 4
    calls = [c for k, storage in enumerate(storages(rule)[:4]) for c in riding_calls(rule, storage, 2, k == turn)]
    assert_all_equal(machine, calls, tmp_path)


@pytest.mark.parametrize("norm_type", NORMS)
def test_every_norm(machine: Machine, norm_type: float, tmp_path: Path) -> None:
    assert_all_equal(machine, [c for dtype in DTYPES for c in norm_calls(norm_type, dtype)], tmp_path)


def test_threads(machine: Machine, tmp_path: Path) -> None:
    """Enough elements for the pool to be woken: its threads too keep subnormals."""
    (rule,) = (r for r in _core.rules() if rule_id(r) == "adam-exp_avg-exp_avg_sq")
    lists = random_arrays(np.random.default_rng(2), [300_001, 300_001], [np.float32] * 4)
    lists[1] = [g * np.float32(1e-38) for g in lists[1]]
    call = step_call(rule, "one", {}, 3, lists)
    command, targets = machine
    code, output = replay(command, [call], tmp_path, OMP_NUM_THREADS="3")
    assert code == 0, output
    assert re.findall(r"(\w+): 3 calls, 0 differences", output) == targets


def test_a_wrong_bit_is_seen(machine: Machine, tmp_path: Path) -> None:
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
def test_a_fault_is_caught(fault: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    need("qemu-aarch64")
    name, text = FAULTS[fault]
    (tmp_path / "arm_neon.h").write_text(f"#pragma once\n#include_next <arm_neon.h>\n{text}\n")
    program = replay_with(built_replay("aarch64", tmp_path_factory), "neon", f"-I{tmp_path}", tmp_path)
    (rule,) = (r for r in _core.rules() if rule_id(r) == name)
    code, output = replay(["qemu-aarch64", str(program)], step_calls(rule, np.float32), tmp_path)
    assert code == (-signal.SIGSEGV if fault.startswith("tail") else 1), output
    assert fault.startswith("tail") or f"neon {name} stream" in output
