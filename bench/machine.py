"""What the benchmark scripts say of the machine they ran on, and of the software."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from fusedstep import _core


def describe() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only; counts what this process may use
    return {
        "processor": next(names, platform.processor() or platform.machine()),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def command(script: str) -> str:
    """How this script was called, without the folders of files that are named by their full path."""
    words = [re.sub(r"^(--\w+=)?/.*/", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["python", script, *words])


def versions(*distributions: str) -> dict[str, str]:
    """Of Python, of the compiler that built the kernels, and of those distributions that are installed."""
    found = {"python": platform.python_version(), "compiler": _core.compiler}
    for name in dict.fromkeys(("fusedstep", "numpy", "torch", *distributions)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
