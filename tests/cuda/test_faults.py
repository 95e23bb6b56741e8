"""The check of the CUDA kernels on the CPU can fail: faults planted in their sources are found."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.devices import HOST
from tests.helpers.tools import REQUIRED, ROOT, need

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.xdist_group("cuda faults"),  # whose sources are compiled once
    pytest.mark.skipif(
        not (HOST or REQUIRED), reason="takes minutes: for the host build, or FUSEDSTEP_REQUIRE_TOOLS=1"
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the fibers are written for x86-64"),
]

# What knows no Python, with the kernels for the CPU.
SOURCES = [
    *(
        str(file.relative_to(ROOT))
        for folder in ("call", "cpu", "cuda", "kernels")
        for file in sorted((ROOT / "csrc" / folder).glob("*.c*"))
        if file.suffix in (".cpp", ".cu") and file.name != "absent.cpp"
    ),
    *(f"tests/cuda_host/{name}" for name in ("fibers.cpp", "runtime.cpp", "selfcheck.cpp")),
]
FLAGS = [
    *("-std=c++20", "-Og", "-g1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-DFS_CUDA_ON_HOST", "-DFS_TARGET=scalar", '-DFS_LANES="../vec/scalar.h"', "-w"),
]

# What, where, the text, what stands there instead.
FAULTS = {
    "norm: no barrier before the block's tree": (
        "csrc/cuda/sums.h",
        "  __syncthreads();\n  if (warp == 0) {",
        "  if (warp == 0) {",
    ),
    "norm: no barrier after the block's tree": (
        "csrc/cuda/sums.h",
        "  __syncthreads();\n  return sum;",
        "  return sum;",
    ),
    "norm: a barrier that only one warp reaches": (
        "csrc/cuda/norm.cu",
        "    if (threadIdx.x == 0) head.sums[chunk] = sum;",
        "    if (threadIdx.x < kWarp) __syncthreads();\n    if (threadIdx.x == 0) head.sums[chunk] = sum;",
    ),
    "finish: no barrier between a warp's groups": ("csrc/cuda/sums.h", "      __syncwarp();\n", ""),
    "finish: groups written before all are read": (
        "csrc/cuda/sums.h",
        "      __syncthreads();\n      if (lane == 0 && group * kWarp < n) x[group] = sum;",
        "      if (lane == 0 && group * kWarp < n) x[group] = sum;",
    ),
    "finish: sums gathered before they are folded": (
        "csrc/cuda/finish.cu",
        "  __syncthreads();\n  for (std::uint32_t k = threadIdx.x; k < head.fold_count;",
        "  for (std::uint32_t k = threadIdx.x; k < head.fold_count;",
    ),
    "norm: a wrong tree": (
        "csrc/cuda/sums.h",
        "int apart = 1; apart < kWarp; apart *= 2",
        "int apart = 16; apart > 0; apart /= 2",
    ),
    "step: the last element left out": (
        "csrc/cuda/step.cu",
        "i < n; i += kThreads) {\n    update_pack<Rule, T, 1>(u, p, g, s, i, states);",
        "i < n - 1; i += kThreads) {\n    update_pack<Rule, T, 1>(u, p, g, s, i, states);",
    ),
    "step: one element too many": (
        "csrc/cuda/step.cu",
        "i < n; i += kThreads) {\n    update_pack<Rule, T, 1>(u, p, g, s, i, states);",
        "i < n + 1; i += kThreads) {\n    update_pack<Rule, T, 1>(u, p, g, s, i, states);",
    ),
    "step: alignment of the state not looked at": (
        "csrc/cuda/step.cu",
        "  ((addresses |= reinterpret_cast<std::uintptr_t>(s[S])), ...);\n",
        "",
    ),
    "table: no wait for the stream that fills it": (
        "csrc/cuda/tables.cpp",
        "    if (kept->stream != stream) FS_CUDA(cudaStreamWaitEvent, stream, kept->filled, 0);\n",
        "",
    ),
    "devices: sums copied before they are there": (
        "csrc/cuda/run.cpp",
        "    order(from.device, from.stream, to.device, to.stream);\n",
        "",
    ),
    "devices: memory given back while it is copied": (
        "csrc/cuda/run.cpp",
        "        if (part.device != reader.device) order(reader.device, reader.stream, part.device, part.stream);\n",
        "",
    ),
}


def object_of(tree: Path, source: str, to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    out = to / (source.replace("/", "_") + ".o")
    command = ["g++", *FLAGS, "-I", tree / "tests/cuda_host", "-x", "c++", "-c", tree / source, "-o", out]
    subprocess.run(command, check=True)
    return out


def run(objects: list[Path], program: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run(["g++", *FLAGS, *objects, "-o", program, "-lpthread", "-ldl"], check=True)
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # tables are kept until the process ends
    return subprocess.run([program], env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A copy of the sources, with two families of rules to compile instead of all, and its objects."""
    need("g++")
    tree = tmp_path_factory.mktemp("faults")
    for folder in ("csrc", "tests/cuda_host"):
        shutil.copytree(ROOT / folder, tree / folder)
    rules = tree / "csrc/rules/all.h"
    text = rules.read_text()
    text, found = re.subn(r"Concat<ClipRules, [^>]*, ExtraRules>", "Concat<ClipRules, AdamRules, ExtraRules>", text)
    assert found == 1
    rules.write_text(text)
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda source: object_of(tree, source, tree / "objects"), SOURCES))
    return tree, dict(zip(SOURCES, objects, strict=True))


def test_sources_as_they_are(built: tuple[Path, dict[str, Path]]) -> None:
    tree, objects = built
    result = run(list(objects.values()), tree / "whole")
    assert (result.returncode, result.stdout) == (0, "equal\n"), result.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_planted(built: tuple[Path, dict[str, Path]], fault: str, tmp_path: Path) -> None:
    tree, objects = built
    source, right, wrong = FAULTS[fault]
    file = tree / source
    text = file.read_text()
    assert right in text, "the source has changed: plant the fault in what it is now"
    try:
        file.write_text(text.replace(right, wrong))
        sources = ["csrc/cuda/norm.cu", "csrc/cuda/finish.cu"] if source.endswith("sums.h") else [source]
        broken = {s: object_of(tree, s, tmp_path) for s in sources}
    finally:
        file.write_text(text)
    result = run(list({**objects, **broken}.values()), tmp_path / "broken")
    assert result.returncode != 0, "not found"
    assert "selfcheck:" in result.stderr or "Sanitizer" in result.stderr or "runtime error" in result.stderr
