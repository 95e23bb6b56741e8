"""Choosing an instruction set, and proof that the one chosen is the one that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fusedstep
from fusedstep import _core, functional


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False
    )


def cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.split())
    return set()


def test_scalar_is_always_there_and_last() -> None:
    assert fusedstep.targets()[-1] == "scalar"


NEEDS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "neon": {"asimd"},
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize("name", NEEDS)
def test_offered_where_the_cpu_has_it_and_only_there(name: str) -> None:
    assert (name in fusedstep.targets()) == (NEEDS[name] <= cpu_flags())


def test_forced_target_is_the_one_that_ran(target: str) -> None:
    assert fusedstep.active_target() == target
    functional.sgd(np.ones(5), np.ones(5), lr=0.1)
    assert _core.last_target() == target
    other = [t for t in fusedstep.targets() if t != target]
    for name in other:
        fusedstep.use_target(name)
        functional.total_norm(np.ones(5))
        assert _core.last_target() == name


def test_environment_forces_a_target(target: str) -> None:
    code = (
        "import numpy, fusedstep; from fusedstep import _core\n"
        "fusedstep.functional.sgd(numpy.ones(5), numpy.ones(5), lr=0.1)\n"
        "print(fusedstep.active_target(), _core.last_target())"
    )
    result = python("-c", code, FUSEDSTEP_TARGET=target)
    assert result.stdout.split() == [target, target], result.stderr


def test_unknown_target() -> None:
    before = fusedstep.active_target()
    with pytest.raises(ValueError, match=r"target .sse9. is not known, expected one of: .*scalar"):
        fusedstep.use_target("sse9")
    assert fusedstep.active_target() == before
    result = python("-c", "import fusedstep", FUSEDSTEP_TARGET="sse9")
    assert result.returncode != 0
    assert "expected one of" in result.stderr


@pytest.mark.parametrize("name", NEEDS)
def test_target_of_another_machine(name: str) -> None:
    """Known, but not here: the message says so and lists what there is."""
    if name in fusedstep.targets():
        pytest.skip("this machine has it")
    available = ", ".join(fusedstep.targets())
    message = rf"target '{name}' is not (in this build|supported by this CPU), expected one of: {available}$"
    with pytest.raises(ValueError, match=message):
        fusedstep.use_target(name)
    result = python("-c", "import fusedstep", FUSEDSTEP_TARGET=name)
    assert result.returncode != 0
    assert re.search(message, result.stderr.strip())


def test_main_prints_what_runs(target: str) -> None:
    result = python("-m", "fusedstep", FUSEDSTEP_TARGET=target)
    assert result.returncode == 0, result.stderr
    for part in (fusedstep.__version__, _core.compiler, f"{target} (active)", "threads", "CUDA"):
        assert part in result.stdout


def test_import_needs_neither_torch_nor_a_second_library() -> None:
    code = "import sys; sys.modules['torch'] = None; import fusedstep; print('torch' in dir(fusedstep))"
    assert python("-c", code).stdout.strip() == "False"
    if sys.platform == "linux":
        linked = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True).stdout
        assert not any(name in linked for name in ("torch", "blas", "mkl", "gomp", "iomp", "cuda")), linked
