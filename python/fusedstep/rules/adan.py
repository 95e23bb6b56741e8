from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, power, rounded
from .._rule import *


class Adan(Rule):
    """Adan: Adam with Nesterov's momentum, estimated from the differences of successive gradients.

    Formula::

        e <- g + q                                                 q: minus the gradient of before; first step: 0
        m <- beta1 * m + (1 - beta1) * g
        n <- beta2 * n + (1 - beta2) * e
        v <- beta3 * v + (1 - beta3) * (g + beta2 * e)**2
        q <- -g
        d <- lr * (m / c1 + beta2 * n / c2) / (sqrt(v) / sqrt(c3) + eps)      ci = 1 - betai**step
        p <- (p - d) / (1 + lr * weight_decay)

    Paper: Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models".

    As sail-sg's Adan, whose checkpoints load, where all parameters of a group had a gradient in each step: it counts
    the steps of a group, and here each parameter counts its own. Its ``max_grad_norm`` is ``max_norm`` here. Differs in
    rounding otherwise.

    When to use it: to train from scratch with large batches and rates. It has the largest state of all: four arrays.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adan([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.5, -1.5])
    """

    kernel = "adan"
    choices = "proximal or decoupled decay"
    decoupled = True

    lr = learning_rate(1e-3)
    betas = several((0.98, 0.92, 0.99), FRACTION, ("beta1", "beta2", "beta3"), "factors of m, n and v")
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay(0.0, "the parameter is divided by ``1 + lr * weight_decay`` after the step")
    _ = KEYWORD_ONLY
    no_prox = flag(False, "multiply the parameter by ``1 - lr * weight_decay`` before the step instead")
    maximize = MAXIMIZE
    capturable = CAPTURABLE

    states = (
        array("exp_avg", "signed"),
        array("exp_avg_diff", "signed"),
        array("exp_avg_sq", "unsigned"),
        array("neg_pre_grad", "signed"),  # rounded, e is off by a 512th of g at most, as m is of its own size
    )

    @classmethod
    def decay_inside(cls, options: Options) -> bool:
        return not options["no_prox"]

    @staticmethod
    def specification(
        g: Array, p: Array, exp_avg: Array, exp_avg_diff: Array, exp_avg_sq: Array, neg_pre_grad: Array, *, step: int,
        lr: float, beta1: float, beta2: float, beta3: float, eps: float, weight_decay: float,
    ) -> tuple[Any, ...]:  # fmt: skip
        e = g - g if step == 1 else g + neg_pre_grad
        h = g + rounded(beta2, p) * e
        m, n = moving_average(exp_avg, g, beta1), moving_average(exp_avg_diff, e, beta2)
        v = moving_average(exp_avg_sq, h * h, beta3)
        shrunk, root3 = 1.0 + lr * weight_decay, math.sqrt(1.0 - power(beta3, step))
        of_average = lr * root3 / (1.0 - power(beta1, step)) / shrunk
        of_difference = lr * beta2 * root3 / (1.0 - power(beta2, step)) / shrunk
        d = (rounded(of_average, p) * m + rounded(of_difference, p) * n) / (np.sqrt(v) + rounded(eps * root3, p))
        of_param = rounded(lr * weight_decay / shrunk, p)
        return of_param * p + d if of_param != 0 else d, m, n, v, -g
