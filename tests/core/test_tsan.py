"""ThreadSanitizer finds no race in the core: its pool, and callers, targets and thread counts at once."""

from __future__ import annotations

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.tools import REQUIRED, ROOT, missing, need

pytestmark = pytest.mark.skipif(
    not (REQUIRED or os.environ.get("FUSEDSTEP_TSAN")), reason="takes minutes: set FUSEDSTEP_TSAN=1"
)
FLAGS = ["-std=c++20", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno", "-fsanitize=thread", "-w"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
TARGETS = {
    "x86_64": {"scalar": [], "avx2": ["-mavx2"], "avx512": AVX512},
    "aarch64": {"scalar": [], "neon": []},
}.get(platform.machine(), {"scalar": []})

RACE = """
#include <thread>
int x;
int main() { std::thread other([] { x = 1; }); x = 2; other.join(); }
"""


def run(program: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TSAN_OPTIONS": "exitcode=66", "FUSEDSTEP_TARGET": ""}
    return subprocess.run([program], env=env, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def sanitizer(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The compiler has it, it runs on this kernel, and it finds a race that there is."""
    need("c++")
    folder = tmp_path_factory.mktemp("race")
    (folder / "race.cpp").write_text(RACE)
    built = subprocess.run(
        ["c++", *FLAGS, folder / "race.cpp", "-o", folder / "race"], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        missing("the compiler has no ThreadSanitizer")
    result = run(folder / "race")
    if "FATAL: ThreadSanitizer" in result.stderr:
        missing(f"ThreadSanitizer does not run here: {result.stderr.strip()[:200]}")
    assert "data race" in result.stderr
    assert result.returncode == 66


def objects(folder: Path) -> list[Path]:
    """The core without Python."""
    sources = [
        path
        for name in ("call", "cpu", "kernels")
        for path in sorted((ROOT / "csrc" / name).glob("*.cpp"))
        if path.name != "target.cpp"
    ]
    have = [f"-DFS_HAVE_{name.upper()}" for name in TARGETS]
    commands = [(folder / f"{path.parent.name}_{path.stem}.o", [*have, path]) for path in sources]
    commands.append((folder / "callers.o", [Path(__file__).parents[1] / "tsan/callers.cpp"]))
    for name, flags in TARGETS.items():
        lanes = [f"-DFS_TARGET={name}", f'-DFS_LANES="../vec/{name}.h"']
        commands.append((folder / f"{name}.o", [*lanes, *flags, ROOT / "csrc/cpu/target.cpp"]))

    def compiled(command: tuple[Path, list[str | Path]]) -> Path:
        out, arguments = command
        subprocess.run(["c++", *FLAGS, *arguments, "-c", "-o", out], check=True)
        return out

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compiled, commands))


def test_callers(sanitizer: None, tmp_path: Path) -> None:
    program = tmp_path / "callers"
    subprocess.run(["c++", *FLAGS, *objects(tmp_path), "-o", program, "-lpthread", "-ldl"], check=True)
    result = run(program)
    assert (result.returncode, result.stdout) == (0, "equal\n"), result.stderr[:8000]
