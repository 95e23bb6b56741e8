"""Stateful optimizers over NumPy arrays (or any CPU arrays that :mod:`fusedstep.functional` takes).

    opt = fusedstep.numpy.AdamW([w, b], lr=1e-3, max_norm=1.0)
    opt.step([grad_w, grad_b])

Options and defaults are torch.optim's, plus ``max_norm`` and ``clip_value``.
"""

from __future__ import annotations

from ._optimizer import Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]


class SGD(Optimizer):
    """Gradient descent, with momentum, dampening and Nesterov: :func:`fusedstep.functional.sgd`."""


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011): :func:`fusedstep.functional.adagrad`."""


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), centered and with momentum: :func:`fusedstep.functional.rmsprop`."""


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) and AMSGrad: :func:`fusedstep.functional.adam`."""


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): :func:`fusedstep.functional.adamw`."""
