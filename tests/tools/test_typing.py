"""Type checkers see full signatures, and find what is wrong with a call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tools import ROOT, need_package

# Each line that ends in "# wrong" has to be reported, and no other.
USER = """\
import numpy as np
import torch

import fusedstep.numpy
import fusedstep.torch
from fusedstep.functional import adamw, clip_grad_norm, sgd

params = [torch.nn.Parameter(torch.zeros(3))]
opt = fusedstep.torch.AdamW(params, lr=1e-3, betas=(0.9, 0.99), max_norm=1.0, nonfinite="skip")
torchs: torch.optim.AdamW = opt
fusedstep.torch.AdamW(params, lr=torch.tensor(1e-3))
fusedstep.torch.AdamW(params, learning_rate=1e-3)  # wrong
fusedstep.torch.AdamW(params, lr="fast")  # wrong
fusedstep.torch.SGD(params, 0.1, 0.9, nesterov="yes")  # wrong
fusedstep.torch.SGD(params, nonfinite="ignore")  # wrong
own: fusedstep.torch.FusedOptimizer = fusedstep.torch.get("sgd")(params)
fusedstep.torch.param_groups(torch.nn.Linear(2, 2), weight_decay="all")  # wrong

w = np.zeros(3)
fusedstep.numpy.RMSprop([w], lr=0.1, centered=True, clip_value=1.0).step([w])
fusedstep.numpy.RMSprop([w], 0.1, 0.9, 1e-8, 0.0, 0.0, 0, 1, 2)  # wrong
fusedstep.numpy.Adam([w], betas=0.9)  # wrong
adamw(w, w, w, w, step=1, lr=0.1, betas=(0.9, 0.99), max_norm=1.0)
adamw(w, w, w, w, lr=0.1)  # wrong
sgd(w, w, lr=0.1, momentum="0.9")  # wrong
norm: float = clip_grad_norm(w, 1.0)
"""
WRONG = {n for n, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")}
CHECKERS = {
    "mypy": ("mypy", ["--strict", "--no-incremental"]),
    "pyright": ("basedpyright", ["--level", "error", "--pythonpath", sys.executable]),
}


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file(checker: str, tmp_path: Path) -> None:
    package, options = CHECKERS[checker]
    need_package(package)
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "pyproject.toml").write_text('[tool.basedpyright]\ntypeCheckingMode = "standard"\n')
    command = [sys.executable, "-m", package, *options, "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        parts = line.strip().split(":")
        if parts[0].endswith("user.py") and "error" in line:
            found.setdefault(int(parts[1]), line)
    assert found.keys() == WRONG, done.stdout + done.stderr


@pytest.mark.slow
def test_stubs_agree_with_the_package() -> None:
    need_package("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "fusedstep", "--allowlist", ROOT / "tools/stubtest.txt"]
    command += ["--mypy-config-file", ROOT / "pyproject.toml"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
