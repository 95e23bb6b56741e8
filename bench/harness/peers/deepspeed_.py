"""DeepSpeed's CPUAdam and CPUAdagrad, compiled from its sdist with its flags, without installing all of DeepSpeed.

The source comes once through pip, which runs the sdist's setup script for its metadata. Source and modules stay in
``bench/.cache``. The classes around the modules are a loop over parameters, as here. Clipping: ``clip_grad_norm_``.
"""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
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
SOURCES = {"cpu_adam": ("adam/cpu_adam.cpp", "adam/cpu_adam_impl.cpp"), "cpu_adagrad": ("adagrad/cpu_adagrad.cpp",)}
KNOWN = {"Adam": ADAM, "AdamW": ADAM, "Adagrad": ("lr", "eps", "weight_decay")}
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


def cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


def simd() -> str:
    """The define that its op_builder chooses for this CPU."""
    flags = cpuinfo()
    if platform.machine() in ("aarch64", "arm64"):
        return "-D__SVE__" if " sve " in flags else "-D__NEON__"
    return "-D__AVX512__" if "avx512" in flags else "-D__AVX256__" if "avx2" in flags else "-D__SCALAR__"


def folder() -> Path:
    """Of the modules: for this torch, this Python and, since they are compiled for it alone, this CPU."""
    features = sorted({x for x in cpuinfo().splitlines() if x.startswith(("flags", "Features", "model name"))})
    key = f"{zlib.crc32(''.join(features).encode()):08x}"
    return CACHE / f"deepspeed-{VERSION}-torch{torch.__version__}-{sys.implementation.cache_tag}-{key}"


def is_built() -> bool:
    return all((folder() / f"{name}.so").exists() for name in SOURCES)


@cache
def modules() -> dict[str, Any]:
    """The compiled modules; where they are not in the cache they are built, in one to three minutes."""
    if shutil.which("ninja") is None:
        raise Unavailable("needs ninja to be built (pip install ninja)")
    fetch()
    from torch.utils import cpp_extension  # slow to import

    folder().mkdir(exist_ok=True)
    flags = ["-O3", "-g", "-Wno-reorder", "-march=native", "-fopenmp", simd()]
    how = {"extra_cflags": flags, "extra_include_paths": [str(SOURCE / "csrc" / "includes")]}
    try:
        return {
            name: cpp_extension.load(
                name, [str(SOURCE / "csrc" / file) for file in files], build_directory=str(folder()), **how
            )
            for name, files in SOURCES.items()
        }
    except Exception as error:  # no compiler, or one that rejects the source
        raise Unavailable(f"its modules cannot be built: {first_line(error)}") from error


@dataclass(frozen=True)
class DeepSpeed:
    name: str = "DeepSpeed CPUAdam"
    devices: tuple[str, ...] = ("cpu",)
    distribution: str | None = None
    version: str = VERSION
    tolerance: float = 1e-3

    def is_built(self) -> bool:
        return is_built()

    def prepare(self) -> None:
        modules()

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, self.devices, SIXTEEN)
        chosen = options(case, KNOWN, {"amsgrad": "ignores AMSGrad on the CPU"})
        # States are float32 whatever the parameters are, as by default.
        share = bool(state) and case.dtype == "float32"
        names = case.rule.states
        arrays = [[state[p][k] if share else torch.zeros(p.shape, dtype=torch.float32) for k in names] for p in params]
        count = itertools.count(1 + (steps_taken(state[params[0]]) if share else 0))
        update = self._update(case.rule.cls, chosen)

        def step() -> None:
            number = next(count)
            for p, kept in zip(params, arrays, strict=True):
                update(number, p.data, p.grad, *kept)

        return Contender(clipped(step, case, params), lambda: [array for kept in arrays for array in kept])

    def _update(self, cls: str, chosen: dict[str, Any]) -> Callable[..., Any]:
        """A step of one tensor, as the ``step`` of DeepSpeed's classes calls it."""
        number, lr, eps, decay = next(_ids), chosen["lr"], chosen["eps"], chosen["weight_decay"]
        if cls == "Adagrad":
            module = modules()["cpu_adagrad"]
            module.create_adagrad(number, lr, eps, decay, False)
            return lambda step, *arrays: module.adagrad_update(number, step, lr, eps, decay, *arrays)
        module, (beta1, beta2) = modules()["cpu_adam"], chosen["betas"]
        module.create_adam(number, lr, beta1, beta2, eps, decay, cls == "AdamW", False)
        return lambda step, *arrays: module.adam_update(number, step, lr, beta1, beta2, eps, decay, True, *arrays)


PEERS = [DeepSpeed()]
