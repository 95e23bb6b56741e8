"""Memory that runs out within a step: every allocation of the core fails once, and nothing is lost.

Each failure is a MemoryError that leaves every parameter, gradient, state and count as it was, and the step after it
equals the specification. ``out_of_memory/steps.py`` makes the steps, with ``fail_new.cpp`` preloaded.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import need, need_package

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")
FOLDER = Path(__file__).parent / "out_of_memory"
FACES = ("functional", "numpy", "torch")


def case_names() -> Iterator[str]:
    """Those of steps.py, which can be imported only where the library is preloaded."""
    yield from (line.split('"')[1] for line in (FOLDER / "cases.txt").read_text().splitlines() if line)
