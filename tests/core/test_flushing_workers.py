"""Threads of a team that were started while the process flushed subnormals keep them in a step all the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")

CODE = """
    import numpy as np, torch
    from fusedstep import _core, functional, reference
    p, g = np.zeros(600_000, np.float32), np.full(600_000, 1e-39, np.float32)
    torch.set_num_threads(3)
    if not torch.set_flush_denormal(True):
        raise SystemExit("this CPU cannot")
    torch.ones(2_000_000).mul_(2)  # starts the team, whose threads inherit the mode
    functional.sgd(p, g, lr=0.5)
    norm = functional.total_norm(g, 1)
    torch.set_flush_denormal(False)
    assert _core.thread_backend() == "openmp"
    (want,) = reference.sgd(np.zeros(3, np.float32), g[:3], lr=0.5)
    assert want.all() and (p == want[0]).all(), np.unique(p)
    assert norm == reference.total_norm([g], 1)
"""


def test_subnormals_in_threads_that_flush() -> None:
    command = [sys.executable, "-c", textwrap.dedent(CODE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if result.stderr == "this CPU cannot\n":
        pytest.skip("this CPU cannot flush subnormals")
    assert result.returncode == 0, result.stderr
