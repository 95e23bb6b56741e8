"""Threads, fork, the interpreter lock and the floating-point environment change no bit."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fusedstep
from fusedstep import _core, functional, reference
from tests.helpers.bits import Array, assert_same_bits
from tests.helpers.declared import KERNELS
from tests.helpers.kernels import COMMON, check_case, dtypes_of, hyper_of, random_arrays, rule_id, storages

pytestmark = pytest.mark.xdist_group("threads")
(ADAM,) = (r for r in KERNELS if rule_id(r) == "adam-exp_avg-exp_avg_sq")
SIZES = [1, 1000, 16384, 16385, 0, 100_003, 500_000, 7]  # enough for both kinds of threads to be worth waking


def lists() -> list[list[Array]]:
    rng = np.random.default_rng(0)
    return [[np.abs(rng.standard_normal(n)).astype(np.float32) for n in SIZES] for _ in range(4)]


def adamw(arrays: list[list[Array]], t: int = 3) -> float:
    return functional.adamw(*arrays, step=t, lr=0.01, max_norm=0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_thread_count(threads: None, target: str, count: int) -> None:
    arrays = lists()
    params, grads, m, v = lists()
    norm = reference.total_norm(grads)
    fusedstep.set_num_threads(count)
    assert fusedstep.num_threads() == count
    assert adamw(arrays) == norm
    coef = reference.clip_coefficient(norm, 0.5)
    for k in range(len(SIZES)):
        want = reference.adamw(
            params[k], grads[k], m[k], v[k], step=3, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01,
            clip_coef=coef,
        )  # fmt: skip
        for got, w in zip((arrays[0][k], arrays[2][k], arrays[3][k]), want, strict=True):
            assert_same_bits(got, w, f"tensor {k}")


@pytest.mark.parametrize("storage", storages(ADAM))
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_thread_count_with_formats(threads: None, target: str, storage: str, count: int) -> None:
    """Where one thread ends and the next begins, an element draws the number that is its own."""
    values = random_arrays(np.random.default_rng(1), [16384, 16385, 7, 200_003], dtypes_of(storage))
    fusedstep.set_num_threads(count)
    check_case(ADAM, hyper_of(ADAM, "middle"), COMMON["all"], 3, values, 1)


def run(code: str, **env: str) -> str:
    """A script in a fresh interpreter; a hang is a failure."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


STEP = """
    import numpy as np, os, sys, fusedstep
    from fusedstep import functional, _core
    def work():
        p, g = np.ones(1_000_000, np.float32), np.ones(1_000_000, np.float32)
        for _ in range(3):
            functional.sgd(p, g, lr=0.25, max_norm=1e9)
        return float(p.sum())
    fusedstep.set_num_threads(2)
"""


@pytest.mark.parametrize("first", ["import torch", "import torch; torch.ones(2_000_000).mul_(2).sum()", ""])
def test_fork_after_a_parallel_call(first: str) -> None:
    """A team's threads do not survive fork; a child that waits for them hangs."""
    out = run(
        f"{first}\n"
        + textwrap.dedent(STEP)
        + textwrap.dedent("""
            assert work() == 250_000.0
            backend = _core.thread_backend()
            pid = os.fork()
            if pid == 0:
                ok = work() == 250_000.0 and _core.thread_backend() == "pool"
                grandchild = os.fork()
                if grandchild == 0:
                    os._exit(0 if work() == 250_000.0 else 1)
                os._exit(0 if ok and os.waitpid(grandchild, 0)[1] == 0 else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert work() == 250_000.0
            print(backend)
        """)
    )
    assert out == ("openmp" if first else "pool")


def test_torch_imported_after_the_pool_was_used() -> None:
    """From then on its team is used, and asked how many threads."""
    out = run(
        STEP
        + """
    fusedstep.set_num_threads(None)
    before = work(), _core.thread_backend()
    import torch
    torch.set_num_threads(1)
    one = fusedstep.num_threads()
    torch.set_num_threads(3)
    print(before, work(), _core.thread_backend(), one, fusedstep.num_threads())
"""
    )
    assert out == "(250000.0, 'pool') 250000.0 openmp 1 3"


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("order", ["import torch, fusedstep", "import fusedstep, torch"])
def test_no_second_team_beside_torchs(order: str) -> None:
    """A step between matrix products adds no thread to the process, in whichever order the two were imported."""
    out = run(
        f"{order}\n"
        + textwrap.dedent("""
            import os, numpy as np
            from fusedstep import _core
            torch.set_num_threads(2)
            fusedstep.set_num_threads(2)
            a, p, g = torch.ones(256, 256), np.ones(1_000_000, np.float32), np.ones(1_000_000, np.float32)
            a @ a, torch.ones(1_000_000).mul_(2)
            before = len(os.listdir("/proc/self/task"))
            for _ in range(5):
                a @ a
                fusedstep.functional.sgd(p, g, lr=0.25, max_norm=1e9)
            print(_core.thread_backend(), len(os.listdir("/proc/self/task")) - before)
        """)
    )
    assert out == "openmp 0"


def test_environment_sets_threads() -> None:
    assert run("import fusedstep; print(fusedstep.num_threads())", OMP_NUM_THREADS="5") == "5"


@pytest.mark.parametrize("setup", ["import torch", "pass"])
def test_exit_with_sleeping_workers(setup: str) -> None:
    assert run(setup + textwrap.dedent(STEP) + "\nprint(work())") == "250000.0"


def test_several_python_threads_at_once(threads: None) -> None:
    fusedstep.set_num_threads(2)
    want = lists()
    for t in range(1, 4):
        adamw(want, t)
    results = [lists() for _ in range(4)]

    def work(arrays: list[list[Array]]) -> None:
        for t in range(1, 4):
            adamw(arrays, t)

    workers = [threading.Thread(target=work, args=(r,)) for r in results]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    for r in results:
        for got, expected in zip(r, want, strict=True):
            for a, b in zip(got, expected, strict=True):
                assert_same_bits(a, b)


def test_interpreter_lock_is_released(threads: None) -> None:
    """This thread runs while another is inside a step: with the lock held, no moment of ours could lie inside it."""
    fusedstep.set_num_threads(1)
    big = [np.ones(8_000_000) for _ in range(4)]
    span: list[float] = []

    def work() -> None:
        span.append(time.perf_counter())
        functional.adamw(*big, step=1, lr=0.1)
        span.append(time.perf_counter())

    worker = threading.Thread(target=work)
    worker.start()
    moments = []
    while worker.is_alive():
        moments.append(time.perf_counter())
    start, end = span
    margin = (end - start) / 4
    assert any(start + margin < m < end - margin for m in moments)


@pytest.mark.skipif(sys.platform != "linux", reason="rounding modes are set through glibc")
@pytest.mark.parametrize("count", [1, 2])
def test_rounding_mode_of_the_caller_is_kept_out(threads: None, count: int) -> None:
    fusedstep.set_num_threads(count)
    want, got = lists(), lists()
    norm = adamw(want)
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = 0x800 if os.uname().machine == "x86_64" else 0x400000
    assert libm.fesetround(upward) == 0
    try:
        got_norm = adamw(got)
        mode = libm.fegetround()
    finally:
        libm.fesetround(0)
    assert mode == upward  # and it is the caller's again afterwards
    assert got_norm == norm
    for a, b in zip(got, want, strict=True):
        for x, y in zip(a, b, strict=True):
            assert_same_bits(x, y)


@pytest.mark.skipif(sys.platform != "linux", reason="rounding modes are set through glibc")
def test_constants_of_a_step_round_to_nearest_too() -> None:
    """In float64 nothing later hides how 1 - lr * weight_decay, a norm / grad_scale or a coefficient was rounded."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(50) for _ in range(3)]
    numbers = [(k, 0.1 / k, 3.0 * k, 1 / (2 + k), 5.0 / k) for k in range(1, 20)]  # Python's arithmetic is not ours

    def results() -> list[Array]:
        p, g, h = (x.copy() for x in start)
        m, v = np.ones(50), np.ones(50)
        for step, lr, grad_scale, weight_decay, max_norm in numbers:
            functional.sgd(p, g, lr=lr, max_norm=0.3, grad_scale=grad_scale)
            functional.adam(p, g, m, v, step=step, lr=0.1, weight_decay=weight_decay, decoupled_weight_decay=True)
            functional.clip_grad_norm(h, max_norm)
        return [p, m, v, h]

    want = results()
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    assert libm.fesetround(0x800 if os.uname().machine == "x86_64" else 0x400000) == 0
    try:
        got = results()
    finally:
        libm.fesetround(0)
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a, b)


def test_bad_counts() -> None:
    for bad in (-1, 1.5, "2", 10**6):
        with pytest.raises((TypeError, ValueError), match="set_num_threads: n is"):
            fusedstep.set_num_threads(bad)  # type: ignore[arg-type]


def test_backend_is_one_of_two() -> None:
    assert _core.thread_backend() in ("openmp", "pool")
