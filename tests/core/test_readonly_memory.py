"""Gradients are only read: they may lie in memory that must not be written, whatever their layout."""

from __future__ import annotations

import mmap
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

CODE = """
    import mmap, sys
    import numpy as np
    from fusedstep import functional, reference
    with open(sys.argv[1], "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    grads = np.frombuffer(memory, np.float32)
    g = {"flat": grads[:1000], "every second": grads[:2000:2], "backwards": grads[1000:0:-1]}[sys.argv[2]]
    p = np.ones(1000, np.float32)
    options = {"max_norm": 0.5} if sys.argv[3] == "norm" else {}
    norm = functional.sgd(p, g, lr=0.5, **options)
    coef = 1.0 if norm is None else reference.clip_coefficient(reference.total_norm([g]), 0.5)
    (want,) = reference.sgd(np.ones(1000, np.float32), g, lr=0.5, clip_coef=coef)
    assert p.tobytes() == want.tobytes()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file")
@pytest.mark.parametrize("norm", ["", "norm"])
@pytest.mark.parametrize("layout", ["flat", "every second", "backwards"])
def test_gradients_in_a_file_that_is_only_read(layout: str, norm: str, tmp_path: Path) -> None:
    """A write there ends the process."""
    file = tmp_path / "gradients"
    values = np.random.default_rng(0).standard_normal(mmap.PAGESIZE).astype(np.float32)
    file.write_bytes(values.tobytes())
    command = [sys.executable, "-c", textwrap.dedent(CODE), str(file), layout, norm]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert file.read_bytes() == values.tobytes()
