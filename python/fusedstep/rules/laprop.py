from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, rounded
from .._rule import *


class LaProp(Rule):
    """LaProp: the gradient over the root of its running mean square, then momentum of that, with the rate inside.

    Formula::

        a <- beta1 * a + (1 - beta1) * lr                              a, b: exp_avg_lr_1, exp_avg_lr_2, from 0
        b <- beta2 * b + 1 - beta2
        v <- beta2 * v + (1 - beta2) * g**2
        m <- beta1 * m + (1 - beta1) * lr * g / (sqrt(v / b) + eps)
        p <- (p - lr / a * m) * (1 - lr * weight_decay)                no step while a is 0

    Paper: Ziyin, Wang & Ueda 2020, "LaProp: Separating Momentum and Adaptivity in Adam".

    As timm's LaProp, whose checkpoints load. Its ``exp_avg_lr_1`` has float64's bits, here float32's unless torch's
    default dtype is float64. Differs in rounding only.

    When to use it: where Adam wants a small beta2 or a large beta1: momentum and adaptivity do not disturb each other.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.LaProp([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.5, -1.5])
    """

    kernel = "laprop"

    lr = learning_rate(4e-4)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of m, and of the running mean of g**2")
    eps = number(1e-15, NON_NEGATIVE, "added to the root")
    weight_decay = decay(0.0, "the parameter is multiplied by ``1 - lr * weight_decay`` after the step")
    _ = KEYWORD_ONLY
    foreach = FOREACH
    maximize = MAXIMIZE
    capturable = CAPTURABLE

    states = (array("exp_avg", "signed"), array("exp_avg_sq", "unsigned"))
    numbers = (StateNumber("exp_avg_lr_1", 0.0), StateNumber("exp_avg_lr_2", 0.0))

    @classmethod
    def decay_inside(cls, options: Options) -> bool:
        return True

    @staticmethod
    def specification(
        g: Array, p: Array, exp_avg: Array, exp_avg_sq: Array, exp_avg_lr_1: Any, exp_avg_lr_2: Any, *,
        lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    ) -> tuple[Any, ...]:  # fmt: skip
        a = rounded(beta1 * float(exp_avg_lr_1) + (1.0 - beta1) * lr, np.asarray(exp_avg_lr_1))
        b = rounded(beta2 * float(exp_avg_lr_2) + (1.0 - beta2), np.asarray(exp_avg_lr_2))
        root, decay = math.sqrt(b), lr * weight_decay
        of_average = lr / float(a) * (1.0 - decay) if a != 0 else 0.0
        v = moving_average(exp_avg_sq, g * g, beta2)
        x = rounded(lr * (1.0 - beta1) * root, p) * g / (np.sqrt(v) + rounded(eps * root, p))
        m = rounded(beta1, p) * exp_avg + x
        d = rounded(of_average, p) * m
        of_param = rounded(decay, p)
        return of_param * p + d if of_param != 0 else d, m, v, np.asarray(a), np.asarray(b)
