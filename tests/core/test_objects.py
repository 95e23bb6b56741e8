"""What the built objects contain: nothing wide that the linker could take for code that runs elsewhere."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.tools import BUILDS, ROOT, built_replay, need, run

pytestmark = pytest.mark.slow
PREFIX = {"native": "", "aarch64": "aarch64-linux-gnu-"}
TARGETS = {"native": {"scalar", "avx2", "avx512", "simde_avx512"}, "aarch64": {"scalar", "neon"}}
WIDE = {"avx2", "avx512"}
# Instructions that round otherwise than the contract says: fused multiply-add, approximate reciprocals and roots.
INEXACT = re.compile(r"\t(vfn?m(add|sub)\w*|f(mla|mls|n?madd|n?msub)|v?(rcp|rsqrt)\w*|f(recp|rsqrt)\w*)\b")
# But for sums of squares of float32, which are exact in float64: packed ones, in the functions that add them up.
EXACT = re.compile(r"\t(vfmadd(132|213|231)pd|fmla)\s.*(%[xyz]mm|v\d+\.2d)")
SUMS = re.compile(r"norm_block|add_squares|first_pass|measure")
X86_ONLY = pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64")


@pytest.fixture(scope="module", params=BUILDS)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    prefix = PREFIX[request.param]
    need(f"{prefix}nm", f"{prefix}objdump")
    if request.param == "native" and platform.machine() != "x86_64":
        pytest.skip("the native targets are those of x86-64")
    return request.param, sorted(built_replay(request.param, tmp_path_factory).rglob("*.cpp.o"))


def target_of(path: Path) -> str | None:
    match = re.search(r"fs_(\w+)\.dir", str(path))
    return match and match[1]


def leaks(path: Path, target: str, prefix: str = "") -> list[str]:
    """Symbols of a target's object that the linker sees: all but those local to it and its one table."""
    table = f"table_{target}"
    lines = run(f"{prefix}nm", path).stdout.splitlines()
    symbols = [line[17:].split(" ", 1) for line in lines]
    assert ["D", f"_ZN9fusedstep{len(table)}{table}E"] in symbols
    return [
        name
        for kind, name in symbols
        if not (kind in "tdrbnN" or name == f"_ZN9fusedstep{len(table)}{table}E")
        and not (kind == "U" and name in ("memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"))
        and not name.startswith("$")  # AArch64's marks of where code and data begin
    ]


def inexact(path: Path, prefix: str = "") -> list[str]:
    """Functions and their instructions that round otherwise than the contract says."""
    found, function = [], ""
    for line in run(f"{prefix}objdump", "-d", "--no-show-raw-insn", path).stdout.splitlines():
        if line.endswith(">:"):
            function = line
        elif INEXACT.search(line) and not (SUMS.search(function) and EXACT.search(line)):
            found.append(f"{function} {line}")
    return found


def test_a_target_exports_its_table_alone(objects: tuple[str, list[Path]]) -> None:
    build, paths = objects
    targets = {t: p for p in paths if (t := target_of(p))}
    assert set(targets) == TARGETS[build]
    for target, path in targets.items():
        assert leaks(path, target, PREFIX[build]) == [], target


@X86_ONLY
def test_wide_registers_in_wide_targets_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    need("objdump")
    for path in built_replay("native", tmp_path_factory).rglob("*.cpp.o"):
        wide = bool(re.search(r"%[yz]mm", run("objdump", "-d", "--no-show-raw-insn", path).stdout))
        assert wide == (target_of(path) in WIDE), path


def test_no_inexact_instruction(objects: tuple[str, list[Path]]) -> None:
    build, paths = objects
    for path in paths:
        assert inexact(path, PREFIX[build]) == [], path


def compile_target(source: Path, out: Path, *flags: str) -> Path:
    run(
        shutil.which("c++") or "c++", "-c", "-std=c++20", "-O2", *flags, "-DFS_TARGET=avx512",
        '-DFS_LANES="../vec/avx512.h"', "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
        source / "cpu/target.cpp", "-o", out,
    )  # fmt: skip
    return out


@X86_ONLY
def test_a_leak_is_seen(tmp_path: Path) -> None:
    """A loop that lost its anonymous namespace."""
    need("c++", "nm")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    norm = tmp_path / "csrc/kernels/norm.h"
    text = norm.read_text()
    assert text.count("namespace {") == 1
    norm.write_text(text.replace("namespace {", "inline namespace named {"))
    found = leaks(compile_target(tmp_path / "csrc", tmp_path / "o", "-ffp-contract=off"), "avx512")
    assert found
    assert all("named" in name for name in found)


@X86_ONLY
def test_contraction_is_seen(tmp_path: Path) -> None:
    need("c++", "objdump")
    path = compile_target(ROOT / "csrc", tmp_path / "o", "-ffp-contract=fast")
    assert inexact(path)
