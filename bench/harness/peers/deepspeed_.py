"""DeepSpeed's CPUAdam, compiled from its sdist with its flags, without installing all of DeepSpeed.

The source comes once through pip, which runs the sdist's setup script for its metadata. Source and module stay in
``bench/.cache``. The class around the module is a loop over parameters, as here. Clipping: ``clip_grad_norm_``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Contender, Unavailable, first_line
from harness.peers._common import ADAM, SIXTEEN, on, options, steps_taken
from harness.peers.torch_ import clipped

VERSION = "0.19.8"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
SOURCE = CACHE / f"deepspeed-{VERSION}"
KNOWN = {"Adam": ADAM, "AdamW": ADAM}
SIMD = {"AVX512": "-D__AVX512__", "AVX2": "-D__AVX256__", "NEON": "-D__NEON__", "SVE256": "-D__SVE__"}
_ids = itertools.count()


def fetch() -> None:
    """The C++ sources, into the cache."""
    if SOURCE.is_dir():
        return
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "deepspeed", "-d", folder]
        environment = {**os.environ, "DS_BUILD_OPS": "0"}
        command.append(f"deepspeed=={VERSION}")
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
        except subprocess.SubprocessError as error:
            last = (str(getattr(error, "stderr", "") or error).strip().splitlines() or ["no message"])[-1]
            raise Unavailable(f"its source cannot be fetched: {last[:160]}") from error
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            members = [m for m in archive.getmembers() if m.name.startswith(f"{SOURCE.name}/csrc/")]
            archive.extractall(folder, members, filter="data")
        (Path(folder) / SOURCE.name).rename(SOURCE)


def folder() -> Path:
    """Of the module: for this torch, this Python and this kind of CPU."""
    python, kind = sys.implementation.cache_tag, torch.backends.cpu.get_cpu_capability()
    return CACHE / f"deepspeed-{VERSION}-torch{torch.__version__}-{python}-{kind}"


@cache
def module() -> Any:
    """The compiled module; where it is not in the cache it is built, in one to two minutes."""
    if shutil.which("ninja") is None:
        raise Unavailable("needs ninja to be built (pip install ninja)")
    fetch()
    from torch.utils import cpp_extension  # slow to import

    folder().mkdir(exist_ok=True)
    sources = [str(SOURCE / "csrc/adam" / file) for file in ("cpu_adam.cpp", "cpu_adam_impl.cpp")]
    simd = SIMD.get(torch.backends.cpu.get_cpu_capability(), "-D__SCALAR__")  # as its op_builder chooses
    flags = ["-O3", "-g", "-Wno-reorder", "-march=native", "-fopenmp", simd]
    how = {"extra_cflags": flags, "extra_include_paths": [str(SOURCE / "csrc/includes")]}
    try:
        return cpp_extension.load("cpu_adam", sources, build_directory=str(folder()), **how)
    except Exception as error:  # no compiler, or one that rejects the source
        raise Unavailable(f"its module cannot be built: {first_line(error)}") from error


@dataclass(frozen=True)
class DeepSpeed:
    name: str = "DeepSpeed CPUAdam"
    devices: tuple[str, ...] = ("cpu",)
    distribution: str | None = None
    version: str = VERSION
    tolerance: float = 1e-3

    def is_built(self) -> bool:
        return (folder() / "cpu_adam.so").exists()

    def prepare(self) -> None:
        module()

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, self.devices, SIXTEEN)
        chosen = options(case, KNOWN, {"amsgrad": "ignores AMSGrad on the CPU"})
        # States are float32 whatever the parameters are, as by default.
        share = bool(state) and case.state_dtype == torch.float32
        names = case.rule.states
        arrays = [[state[p][k] if share else torch.zeros(p.shape, dtype=torch.float32) for k in names] for p in params]
        count = itertools.count(1 + (steps_taken(state[params[0]]) if share else 0))
        rates = chosen["lr"], *chosen["betas"], chosen["eps"], chosen["weight_decay"]
        key, adam = next(_ids), module()
        adam.create_adam(key, *rates, case.rule.cls == "AdamW", False)

        def step() -> None:
            number = next(count)
            for p, kept in zip(params, arrays, strict=True):
                adam.adam_update(key, number, *rates, True, p.data, p.grad, *kept)

        return Contender(clipped(step, case, params), lambda: [array for kept in arrays for array in kept])


PEERS = [DeepSpeed()]
