from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, fs_exp, fs_log, moving_average, power, rounded
from .._rule import *


class AdEMAMix(Rule):
    """AdEMAMix: Adam with a second, far longer running mean of the gradient beside the first.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        n <- B3 * n + (1 - B3) * g
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * (m / c1 + A * n) / (sqrt(v) / sqrt(c2) + eps)          ci = 1 - betai**t
        A = alpha * min(t / t_alpha, 1)
        B3 = min(beta3, exp(1 / ((1 - T) / log(beta1) + T / log(beta3))))    T = t / t_beta3; beta3 from T = 1 on

    Paper: Pagliardini, Ablin & Grangier 2024, "The AdEMAMix Optimizer: Better, Faster, Older".

    As bitsandbytes' AdEMAMix on the CPU (its CUDA kernel decays after the step). Differs in rounding. Checkpoints of it
    do not load: they have m and n in one array, ``exp_avg, exp_avg_slow = state1``, and v as ``state2``.

    When to use it: in long runs of language models, where gradients of ten thousand steps ago still tell something. Let
    ``t_alpha`` and ``t_beta3`` be the number of steps: without them the slow mean disturbs the start.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.AdEMAMix([w], lr=0.5, betas=(0.9, 0.999, 0.5), alpha=1.0, weight_decay=0.0)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.25, -1.25])
    """

    kernel = "ademamix"
    choices = "schedules of `alpha` and of beta3"
    decoupled = True

    lr = learning_rate(1e-3)
    betas = several((0.9, 0.999, 0.9999), FRACTION, ("beta1", "beta2", "beta3"), "factors of m, v and n")
    alpha = number(5.0, NON_NEGATIVE, "weight of the slow mean")
    t_alpha = number(None, STEPS, "in how many steps the weight grows to ``alpha``; None: at once", none=0.0)
    t_beta3 = number(
        None, STEPS, "in how many steps the factor of n grows from beta1 to beta3; None: at once", none=0.0
    )
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay(1e-2, "decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``")
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    capturable = CAPTURABLE

    # A step moves the slow mean by a ten-thousandth: rounded to nearest it would stand still.
    states = (array("exp_avg", "signed"), array("exp_avg_slow", "exact"), array("exp_avg_sq", "unsigned"))

    @staticmethod
    def specification(
        g: Array, p: Array, exp_avg: Array, exp_avg_slow: Array, exp_avg_sq: Array, *, step: int, lr: float,
        beta1: float, beta2: float, beta3: float, alpha: float, t_alpha: float, t_beta3: float, eps: float,
    ) -> tuple[Any, ...]:  # fmt: skip
        slow = beta3
        if step < t_beta3 and beta3 != 0:
            part = step / t_beta3
            slow = min(fs_exp(1.0 / ((1.0 - part) / fs_log(beta1) + part / fs_log(beta3))), beta3)
        weight = alpha * (step / t_alpha) if step < t_alpha else alpha
        root2 = math.sqrt(1.0 - power(beta2, step))
        of_average, of_slow = lr * root2 / (1.0 - power(beta1, step)), lr * root2 * weight
        m = moving_average(exp_avg, g, beta1)
        n = moving_average(exp_avg_slow, g, slow)
        v = moving_average(exp_avg_sq, g * g, beta2)
        top = rounded(of_average, p) * m + rounded(of_slow, p) * n
        return top / (np.sqrt(v) + rounded(eps * root2, p)), m, n, v
