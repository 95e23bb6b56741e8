"""What the machine can do: the same bytes moved with next to no arithmetic, in turns with the contenders."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Unavailable

SOURCE = Path(__file__).resolve().parents[1] / "stream.cpp"
FLAGS = ["-O3", "-march=native", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC"]


@cache
def library() -> Any:
    """``stream.cpp``, compiled."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise Unavailable("no C++ compiler (g++ or c++) to compile bench/stream.cpp with")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stream.so"
        done = subprocess.run([compiler, *FLAGS, SOURCE, "-o", out], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"bench/stream.cpp does not compile: {done.stderr.strip().splitlines()[0]}")
        lib = ctypes.CDLL(str(out))
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    lib.stream_arrays.argtypes = [pointer, integer, size, integer]
    lib.read_array.argtypes, lib.read_array.restype = [pointer, size, integer], ctypes.c_float
    return lib


def limit(case: Case, bytes_per_element: float) -> tuple[Callable[[], Any], torch.Tensor]:
    """Moves as many bytes as the case cannot avoid, one tensor of each kind; and the one that is the gradient."""
    if case.device != "cpu":  # half of the bytes are read, half written
        source = torch.ones(max(1, int(bytes_per_element * case.shapes.elements) // 8), device=case.device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source), source
    lib, threads = library(), torch.get_num_threads()
    count = 1 if case.rule.clips_alone else 2 + len(case.rule.states)
    passes = 3 if case.rule.clips_alone else 2 * count - 1 + case.clip
    floats = max(1, round(bytes_per_element * case.shapes.elements / passes / 4))  # in sum as many bytes, by any format
    arrays = [torch.full((floats,), 1e-3 * (k + 1)) for k in range(count)]
    pointers = (ctypes.c_void_p * count)(*(a.data_ptr() for a in arrays))

    def step(keep: list[torch.Tensor] = arrays) -> None:
        if case.clip:
            lib.read_array(keep[-1].data_ptr(), floats, threads)
        if lib.stream_arrays(pointers, count, floats, threads):
            raise Unavailable(f"bench/stream.cpp has no loop for {count} arrays")

    return step, arrays[-1]
