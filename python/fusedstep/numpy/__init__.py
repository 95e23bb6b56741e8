"""Stateful optimizers over NumPy arrays (or any CPU arrays that :mod:`fusedstep.functional` takes).

    opt = fusedstep.numpy.AdamW([w, b], lr=1e-3, max_norm=1.0)
    opt.step([grad_w, grad_b])

Options and defaults are torch.optim's, plus ``max_norm``, ``clip_value`` and ``nonfinite``.
"""

from __future__ import annotations

from .. import rules as _rules
from . import _classes
from ._classes import *  # noqa: F403
from ._optimizer import Optimizer

__all__ = ["Optimizer", "get"]
__all__ += _classes.__all__


def get(name: str) -> type[Optimizer]:
    """The optimizer class of that name, whatever its case: ``get("adamw")``. ValueError for an unknown one."""
    found: type[Optimizer] = _rules.named("fusedstep.numpy.get", name, _classes)
    return found
