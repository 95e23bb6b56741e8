"""What the rest of the process does: it exits while a thread steps, forks, sets torch's threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="fork and signals"),
    pytest.mark.slow,
    pytest.mark.xdist_group("threads"),
]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


STEPS = {
    "numpy": """
        import numpy as np, fusedstep.numpy as fnp
        w, g = np.ones(SIZE, np.float32), np.ones(SIZE, np.float32)
        opt = fnp.SGD([w], lr=1e-3, max_norm=1.0)
        def step(): opt.step([g])
    """,
    "functional": """
        import numpy as np
        from fusedstep import functional
        w, g = np.ones(SIZE, np.float32), np.ones(SIZE, np.float32)
        def step(): functional.clip_grad_norm([g], 0.5); functional.total_norm([w])
    """,
    "torch": """
        import contextlib, torch, fusedstep.torch as fst
        # torch's own operators take the lock back in a destructor, and abort: those of its context around a step, and
        # those that make state, which is made before.
        torch.autograd.profiler.record_function = lambda name: contextlib.nullcontext()
        w = torch.nn.Parameter(torch.ones(SIZE))
        w.grad = torch.ones(SIZE)
        opt = fst.AdamW([w], max_norm=1.0)
        opt.step()
        def step(): opt.step()
    """,
}


@pytest.mark.parametrize("what", STEPS)
@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_exit_while_a_daemon_thread_steps(what: str, size: int) -> None:
    """The interpreter ends threads that ask for its lock by unwinding their stacks, which aborts in a destructor."""
    if what == "torch":
        pytest.importorskip("torch")
    code = textwrap.dedent(STEPS[what]).replace("SIZE", str(size)) + textwrap.dedent("""
        import threading, time
        started = threading.Event()
        def work():
            while True:
                step()
                started.set()
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        started.wait()
    """)
    for _ in range(3 if what == "torch" else 5):
        done = run(code)
        assert done.returncode == 0, done.stderr
        assert "terminate" not in done.stderr


THREADS = """
    import os, threading, torch, fusedstep, fusedstep.torch
    import numpy as np
    from fusedstep import functional, reference
    def ask(who):
        p, g = np.ones(1_000_000, np.float32), np.full(1_000_000, 0.5, np.float32)
        norm = functional.sgd(p, g, lr=1.0, max_norm=1.0)
        coefficient = reference.clip_coefficient(reference.total_norm([g]), 1.0)
        want = reference.sgd(np.ones(1, np.float32), g[:1], lr=1.0, clip_coef=coefficient)[0]
        assert norm == reference.total_norm([g]) and (p == want).all()
        print(who, fusedstep.num_threads(), torch.get_num_threads(), flush=True)
    def in_thread(who):
        thread = threading.Thread(target=ask, args=(who,))
        thread.start()
        thread.join()
    torch.set_num_threads(COUNT)
    in_thread("before")   # a thread that has not asked torch for anything
    ask("main")
    in_thread("thread")
    pid = os.fork()
    if pid == 0:
        ask("child")
        torch.set_num_threads(COUNT + 1)
        ask("child again")
        in_thread("thread of child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    fusedstep.set_num_threads(5)
    print("ours", fusedstep.num_threads(), 5)
    fusedstep.set_num_threads(None)
    ask("main again")
"""


@pytest.mark.parametrize("count", [1, 3])
def test_threads_are_torchs(count: int) -> None:
    """In each thread and after fork: a thread that torch has not met has OpenMP's number until somebody asks torch."""
    pytest.importorskip("torch")
    done = run(THREADS.replace("COUNT", str(count)), OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    names = ["before", "main", "thread", "child", "child again", "thread of child", "ours", "main again"]
    assert [name for name, _, _ in lines] == names
    for name, ours, torchs in lines:
        assert ours == torchs, name
    expected = [count] * 4 + [count + 1] * 2 + [5, count]
    assert [int(ours) for _, ours, _ in lines] == expected


def test_threads_without_torch() -> None:
    done = run("import fusedstep; print(fusedstep.num_threads())", OMP_NUM_THREADS="3")
    assert done.stdout.strip() == "3"
