"""Drop-in ``torch.optim`` classes and gradient clipping.

Constructor signatures, state and ``state_dict`` are torch's, in both directions; so are hooks, closures, schedulers
and ``torch.amp.GradScaler``. New are ``max_norm``, ``clip_value`` and ``error_if_nonfinite``, which fold clipping into
the step.
"""

from __future__ import annotations

from ._base import FusedOptimizer
from .clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from .optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "FusedOptimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]
