"""DeepSpeed's CPUAdam and CPUAdagrad, compiled from its sdist with its flags, without installing all of DeepSpeed.

The source comes once through pip, which runs the sdist's setup script for its metadata. Source and modules stay in
``bench/.cache``. The classes around the modules are a loop over parameters, as here. Clipping: ``clip_grad_norm_``.
"""

from __future__ import annotations

import importlib.util
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
from harness.peers import Contender, Unavailable
from harness.peers._common import on, options, steps_taken
from harness.peers.torch_ import clipped

VERSION = "0.19.8"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
SOURCE = CACHE / f"deepspeed-{VERSION}"
SOURCES = {"cpu_adam": ("adam/cpu_adam.cpp", "adam/cpu_adam_impl.cpp"), "cpu_adagrad": ("adagrad/cpu_adagrad.cpp",)}
KNOWN = {
    "Adam": ("lr", "betas", "eps", "weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
    "Adagrad": ("lr", "eps", "weight_decay"),
}
_ids = itertools.count()


def fetch() -> None:
    """The C++ sources, into the cache."""
    if SOURCE.is_dir():
        return
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = ["download", "--no-deps", "--no-binary", "deepspeed", f"deepspeed=={VERSION}", "-d", folder]
        environment = {**os.environ, "DS_BUILD_OPS": "0"}
        try:
            subprocess.run(
                [sys.executable, "-m", "pip", *command],
                env=environment, check=True, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise Unavailable(f"its source cannot be fetched: {last[:160]}") from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable("its source cannot be fetched within 5 minutes") from error
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            members = [m for m in archive.getmembers() if m.name.startswith(f"{SOURCE.name}/csrc/")]
            archive.extractall(folder, members, filter="data")
        (Path(folder) / SOURCE.name).rename(SOURCE)


def simd() -> str:
    """The define that its op_builder chooses for this CPU."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if platform.machine() in ("aarch64", "arm64"):
        return "-D__SVE__" if " sve " in flags else "-D__NEON__"
    return "-D__AVX512__" if "avx512" in flags else "-D__AVX256__" if "avx2" in flags else "-D__SCALAR__"


def folder() -> Path:
    """Of the modules: for this torch, this Python and, since they are compiled for it alone, this CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    key = f"{zlib.crc32(''.join(features).encode()):08x}"
    return CACHE / f"deepspeed-{VERSION}-torch{torch.__version__}-{sys.implementation.cache_tag}-{key}"


def is_built() -> bool:
    return all((folder() / f"{name}.so").exists() for name in SOURCES)


def build() -> None:
    """Compile the modules: one to three minutes."""
    if shutil.which("ninja") is None:
        raise Unavailable("needs ninja to be built (pip install ninja)")
    fetch()
    from torch.utils import cpp_extension  # slow to import

    folder().mkdir(exist_ok=True)
    for name, files in SOURCES.items():
        try:
            cpp_extension.load(
                name,
                [str(SOURCE / "csrc" / file) for file in files],
                extra_include_paths=[str(SOURCE / "csrc" / "includes")],
                extra_cflags=["-O3", "-g", "-Wno-reorder", "-march=native", "-fopenmp", simd()],
                build_directory=str(folder()),
                is_python_module=False,
            )
        except Exception as error:  # no ninja, no compiler, or a compiler that rejects the source
            text = (str(error).strip().splitlines() or ["no message"])[0]
            raise Unavailable(f"its modules cannot be built: {type(error).__name__}: {text[:160]}") from error


@cache
def modules() -> dict[str, Any]:
    """The compiled modules, built if they are not in the cache."""
    if not is_built():
        build()
    loaded: dict[str, Any] = {}
    for name in SOURCES:
        spec = importlib.util.spec_from_file_location(name, folder() / f"{name}.so")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    return loaded


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
        on(case, "cpu", ("float32", "bfloat16", "float16"))
        if case.rule.cls not in KNOWN:
            raise Unavailable(f"has no {case.rule.cls}")
        chosen = options(case, KNOWN[case.rule.cls], {"amsgrad": "ignores AMSGrad on the CPU"})
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
