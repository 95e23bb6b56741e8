"""Fused kernels for optimizer updates and gradient clipping, bit-exact on every target.

``fusedstep.torch`` has drop-in torch.optim classes, ``fusedstep.numpy`` optimizers over NumPy arrays,
``fusedstep.functional`` the updates themselves, ``fusedstep.reference`` their specification, ``fusedstep.rules`` the
declarations that all of these are made from.
"""

from __future__ import annotations

import operator
from importlib.metadata import version as _version

from . import _core, functional, numpy, reference, rules

__all__ = [
    "__version__",
    "active_target",
    "functional",
    "num_threads",
    "numpy",
    "reference",
    "rules",
    "set_num_threads",
    "targets",
    "use_target",
]

__version__ = _version("fusedstep")


def targets() -> list[str]:
    """Names of the instruction sets that this build has and this CPU and operating system support, preferred first."""
    return _core.targets()


def active_target() -> str:
    """The instruction set that runs. The environment variable ``FUSEDSTEP_TARGET`` sets it at import."""
    return _core.active_target()


def use_target(name: str) -> None:
    """Run this instruction set from now on, in all threads. ValueError for a name that is not in :func:`targets`."""
    if not isinstance(name, str):
        raise TypeError(f"use_target: name is {name!r}, expected one of {', '.join(targets())}")
    _core.use_target(name)


def num_threads() -> int:
    """Threads a large call uses: :func:`set_num_threads`, else ``torch.get_num_threads()`` where torch is loaded, else
    ``OMP_NUM_THREADS``, else the cores this process may run on."""
    return _core.num_threads()


def set_num_threads(n: int | None) -> None:
    """Use at most ``n`` threads per call, in all threads of this process; None or 0 returns to the automatic choice.

    Results do not depend on it.
    """
    try:
        count = 0 if n is None else operator.index(n)
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"set_num_threads: n is {n!r}, expected an integer from 1 to 4096, or None") from error
    if not 0 <= count <= 4096:
        raise ValueError(f"set_num_threads: n is {n!r}, expected an integer from 1 to 4096, or None")
    _core.set_num_threads(count)
