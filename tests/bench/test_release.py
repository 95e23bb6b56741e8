"""bench/release.py: every way of training runs, and the memory that it finds is that of gradients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tools import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import release

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel of Linux")
ORDINARY, OURS, OPTIMI = "fusedstep, ordinary step", "fusedstep.torch.release_gradients", "optimi gradient release"


def test_memory_of_a_step(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "bench/release.py", "--shapes", "8x512", "--rounds", "1", "--seconds", "0.01"]
    file = tmp_path / "release.json"
    done = subprocess.run([*words, "--json", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (results,) = json.loads(file.read_text())["results"].values()
    assert list(results) == list(release.CONTENDERS)
    assert all("failed" not in result for name, result in results.items() if name != OPTIMI), results
    gradients = 8 * 512 * 513 * 4 / 1e6
    assert 0.9 * gradients < results[ORDINARY]["memory_mb"] < 1.3 * gradients
    assert results[OURS]["memory_mb"] < gradients / 3
    assert "8 layers of 512 x 512: 16 parameters, gradients of 8.4 MB" in done.stdout


def test_what_fails_is_a_row() -> None:
    lines = release.table(2, 4, {"one": {"failed": "ImportError: no"}})
    assert lines[-1] == "| one | ImportError: no | | |"
