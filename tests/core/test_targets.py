"""Choosing an instruction set, and proof that the one chosen is the one that runs."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fusedstep
from fusedstep import _core, functional
from tests.helpers.tools import need, run


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
    """After it come only those built for tests and measurements, which are never chosen unasked."""
    assert [t for t in fusedstep.targets() if not t.startswith(("plain_", "simde_"))][-1] == "scalar"
    after = fusedstep.targets()[fusedstep.targets().index("scalar") + 1 :]
    assert all(t.startswith(("plain_", "simde_")) for t in after)


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


@pytest.mark.parametrize("name", sorted(set(NEEDS) - set(fusedstep.targets())))
def test_target_of_another_machine(name: str) -> None:
    """Known, but not here: the message says so and lists what there is."""
    available = ", ".join(fusedstep.targets())
    message = rf"target '{name}' is not (in this build|supported by this CPU), expected one of: {available}$"
    with pytest.raises(ValueError, match=message):
        fusedstep.use_target(name)
    result = python("-c", "import fusedstep", FUSEDSTEP_TARGET=name)
    assert result.returncode != 0
    assert re.search(message, result.stderr.strip())


# SSE4.2 and no AVX: the least that NumPy runs on.
NEHALEM = ["qemu-x86_64", "-cpu", "Nehalem"]
ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs this interpreter on another x86-64 CPU")


@ON_X86
@pytest.mark.slow
def test_on_a_cpu_without_avx() -> None:
    need(NEHALEM[0])
    code = """
import numpy as np, fusedstep
from fusedstep import _core, functional, reference
rng = np.random.default_rng(0)
same = True
for dtype in (np.float32, np.float64):
    p, g, m, v = arrays = [np.abs(rng.standard_normal(20_011)).astype(dtype) for _ in range(4)]
    hyper = dict(step=3, lr=0.01, eps=1e-8, weight_decay=0.1)
    norm = reference.total_norm([g])
    want = reference.adamw(p, g, m, v, **hyper, beta1=0.9, beta2=0.99, clip_coef=reference.clip_coefficient(norm, 0.5))
    same &= functional.adamw(*arrays, **hyper, betas=(0.9, 0.99), max_norm=0.5) == norm
    same &= all(a.tobytes() == w.tobytes() for a, w in zip((p, m, v), want))
print(same, _core.last_target(), fusedstep.active_target(), *fusedstep.targets())
"""
    tested = ["simde_avx512"] if "simde_avx512" in fusedstep.targets() else []
    out = run(*NEHALEM, sys.executable, "-c", code).stdout.split()
    assert out == ["True", "scalar", "scalar", "scalar", *tested]
    for name in ("avx2", "avx512"):
        result = run(*NEHALEM, sys.executable, "-c", "import fusedstep", check=False, FUSEDSTEP_TARGET=name)
        assert result.returncode == 1
        message = f"ImportError: target '{name}' is not supported by this CPU, expected one of: "
        assert result.stderr.strip().splitlines()[-1] == message + ", ".join(["scalar", *tested])


@ON_X86
def test_that_cpu_refuses_avx(tmp_path: Path) -> None:
    """The emulator does not run for it what it lacks."""
    need(NEHALEM[0], "c++")
    source = tmp_path / "avx.cpp"
    source.write_text('int main() { asm volatile("vaddps %ymm0, %ymm0, %ymm0"); }')
    run("c++", source, "-o", tmp_path / "avx")
    assert run(*NEHALEM, tmp_path / "avx", check=False).returncode == -signal.SIGILL


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
