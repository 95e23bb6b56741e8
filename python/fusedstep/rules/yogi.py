from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, power, rounded, sign
from .._rule import *


class Yogi(Rule):
    """Yogi: Adam whose mean square moves by a part of the squared gradient, and not by a part of its own size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- v - (1 - beta2) * sign(v - g**2) * g**2
        p <- p - lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)                         ci = 1 - betai**step

    Paper: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization".

    As torch_optimizer's Yogi, whose checkpoints load: m and v both start at ``initial_accumulator``. Differs in
    rounding only.

    When to use it: where gradients are sparse or rarely large: v forgets a large gradient slowly, so that the rate does
    not jump up.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Yogi([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.5277, -1.5002])
    """

    kernel = "yogi"

    lr = learning_rate(1e-2)
    betas = several(
        (0.9, 0.999), FRACTION, ("beta1", "beta2"), "factor of the mean of g; 1 - beta2 is v's share of g**2"
    )
    eps = number(1e-3, NON_NEGATIVE, "added to the root")
    initial_accumulator = number(1e-6, NON_NEGATIVE, "what m and v start from")
    weight_decay = decay()
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    capturable = CAPTURABLE

    states = (
        array("exp_avg", "signed", start="initial_accumulator"),
        array("exp_avg_sq", "unsigned", start="initial_accumulator"),
    )

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
        root2, square = math.sqrt(1.0 - power(beta2, step)), g * g
        m = moving_average(exp_avg, g, beta1)
        v = exp_avg_sq - rounded(1.0 - beta2, p) * (sign(exp_avg_sq - square) * square)
        step_size = rounded(lr * root2 / (1.0 - power(beta1, step)), p)
        return step_size * m / (np.sqrt(v) + rounded(eps * root2, p)), m, v
