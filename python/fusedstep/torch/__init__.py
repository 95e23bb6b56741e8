"""Drop-in ``torch.optim`` classes and gradient clipping.

Constructor signatures, state and ``state_dict`` are torch's, in both directions; so are hooks, closures, schedulers
and ``torch.amp.GradScaler``. New are ``max_norm``, ``clip_value`` and ``nonfinite``, which fold clipping into the step.
"""

from __future__ import annotations

from .. import rules as _rules
from . import optimizers
from ._base import FusedOptimizer
from ._decay import param_groups
from ._release import GradientRelease, release_gradients
from .clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from .optimizers import *  # noqa: F403

__all__ = [
    "FusedOptimizer",
    "GradientRelease",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get",
    "get_total_norm",
    "param_groups",
    "release_gradients",
]
__all__ += optimizers.__all__


def get(name: str) -> type[FusedOptimizer]:
    """The optimizer class of that name, whatever its case: ``get("adamw")``. ValueError for an unknown one."""
    found: type[FusedOptimizer] = _rules.named("fusedstep.torch.get", name, optimizers)
    return found
