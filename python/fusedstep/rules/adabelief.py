from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, maximum, moving_average, power, rounded
from .._rule import *


class AdaBelief(Rule):
    """AdaBelief: Adam that divides by how far gradients are from their running mean, and not by how large they are.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * (g - m)**2 + eps                    with the new m
        x <- max(x, v)                                                     amsgrad
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)             without rectify; ci = 1 - betai**t
        p <- p - lr / c1 * sqrt(c2 * R) * m / (sqrt(v) + eps)              rectify, N >= 5
        p <- p - lr / c1 * m                                               rectify, N < 5, degenerated_to_sgd; else none
        L = 2 / (1 - beta2) - 1,  N = L - 2 * t * beta2**t / c2,  R = (N - 4) (N - 2) L / ((L - 4) (L - 2) N)

    Paper: Zhuang et al. 2020, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients".

    As adabelief-pytorch, whose checkpoints load; with ``rectify`` x is only kept. Differs in rounding only.

    When to use it: where Adam generalizes worse than SGD; an eps of 1e-16 for transformers, of 1e-8 for convolutions.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> fusedstep.numpy.AdaBelief([w], lr=0.5, rectify=False).step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.4444, -1.4444])
    """

    kernel = "adabelief"
    choices = "AMSGrad, rectified; L2, decoupled or fixed decay"
    decoupled_by = "weight_decouple"

    lr = learning_rate(1e-3)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of the running means of g and of (g - m)**2")
    eps = number(1e-16, NON_NEGATIVE, "added to v, and to the root")
    weight_decay = decay(0.0, "decay of the parameter, as ``weight_decouple`` and ``fixed_decay`` say")
    amsgrad = flag(False, "keep the largest v, and divide by its root unless ``rectify``")
    weight_decouple = flag(True, "multiply the parameter by ``1 - lr * weight_decay``; else L2")
    fixed_decay = flag(False, "multiply by ``1 - weight_decay`` instead, with ``weight_decouple``")
    rectify = flag(True, "correct the variance of the first steps, as RAdam does")
    degenerated_to_sgd = flag(True, "while N < 5, step by m alone rather than not at all")
    print_change_log = ignored(False, "bool", "accepted and without effect: nothing is printed")
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    capturable = CAPTURABLE

    states = (
        array("exp_avg", "exact"),  # where gradients agree with m, little is left of g - m but the rounding of m
        array("exp_avg_var", "unsigned"),
        array("max_exp_avg_var", "maximum", when="amsgrad"),
    )

    @classmethod
    def decay_inside(cls, options: Options) -> bool:
        return bool(options["weight_decouple"] and options["fixed_decay"])

    @staticmethod
    def specification(
        g: Array, p: Array, exp_avg: Array, exp_avg_var: Array, max_exp_avg_var: Array | None = None, *, step: int,
        lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, rectify: Any, degenerated_to_sgd: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        m, power2 = moving_average(exp_avg, g, beta1), power(beta2, step)
        v = moving_average(exp_avg_var, (g - m) * (g - m), beta2) + rounded(eps, p)
        states = [m, v] if max_exp_avg_var is None else [m, v, maximum(max_exp_avg_var, v)]
        size, c2, most = lr / (1.0 - power(beta1, step)), 1.0 - power2, 2.0 / (1.0 - beta2) - 1.0
        if not rectify:
            d = rounded(size * np.sqrt(c2), p) * m / (np.sqrt(states[-1]) + rounded(eps * np.sqrt(c2), p))
        elif (n := most - 2.0 * step * power2 / c2) >= 5.0:
            root = np.sqrt(c2 * (n - 4.0) / (most - 4.0) * (n - 2.0) / n * most / (most - 2.0))
            d = rounded(size * root, p) * m / (np.sqrt(v) + rounded(eps, p))
        else:
            d = rounded(size if degenerated_to_sgd else 0.0, p) * m
        return rounded(weight_decay, p) * p + d if rounded(weight_decay, p) != 0 else d, *states
