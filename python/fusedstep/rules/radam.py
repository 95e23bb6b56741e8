from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, power, rounded
from .._rule import *


class RAdam(Rule):
    """RAdam: Adam that starts as SGD with momentum, until enough gradients are seen to divide by their size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        R = 2 / (1 - beta2) - 1;  r = R - 2 * t * beta2**t / c2                       ci = 1 - betai**t
        p <- p - lr / c1 * f * m * sqrt(c2) / (sqrt(v) + eps)                         if r > 5
                 f = sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r))
        p <- p - lr / c1 * m                                                          otherwise

    Paper: Liu et al. 2020.

    When to use it: where Adam diverges without a warmup of the learning rate. The first steps (5 for beta2 = 0.999) are
    of the whole ``lr`` and not divided by anything.

    As :class:`torch.optim.RAdam`: eps is added to the root that is not corrected. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.RAdam([w], lr=0.5)
    >>> opt.step([np.array([0.5, -3.0])])
    >>> w
    array([ 0.75, -0.5 ])
    """

    kernel = "radam"
    choices = "decoupled decay"
    torch_class = "RAdam"

    lr = learning_rate(1e-3)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of the running means of g and of g**2")
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay()
    decoupled_weight_decay = flag(False, "decay the parameter itself, by ``lr * weight_decay``, as AdamW does")
    _ = KEYWORD_ONLY
    foreach = FOREACH
    maximize = MAXIMIZE
    capturable = CAPTURABLE
    differentiable = DIFFERENTIABLE

    states = (array("exp_avg", "signed"), array("exp_avg_sq", "unsigned"))

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        *,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> tuple[Any, ...]:
        power2 = power(beta2, step)
        most = 2.0 / (1.0 - beta2) - 1.0
        length = most - 2.0 * step * power2 / (1.0 - power2)
        size = lr / (1.0 - power(beta1, step))
        m = moving_average(exp_avg, g, beta1)
        v = moving_average(exp_avg_sq, g * g, beta2)
        if not length > 5.0:
            return rounded(size, p) * m, m, v
        top, bottom = (length - 4.0) * (length - 2.0) * most, (most - 4.0) * (most - 2.0) * length
        size = size * math.sqrt(top / bottom) * math.sqrt(1.0 - power2)
        return rounded(size, p) * m / (np.sqrt(v) + rounded(eps, p)), m, v
