from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, fs_pow, moving_average, power, rounded
from .._rule import *


class NAdam(Rule):
    """NAdam: Adam with Nesterov's momentum, on a schedule of its own.

    Formula::

        mu_t <- beta1 * (1 - 0.5 * 0.96**(t * momentum_decay));  P <- P * mu_t          P: mu_product, starts at 1
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        d <- (1 - mu_t) / (1 - P) * g + mu_(t+1) / (1 - P * mu_(t+1)) * m
        p <- p - lr * d / (sqrt(v) / sqrt(c2) + eps)                                    c2 = 1 - beta2**t

    Paper: Dozat 2016, "Incorporating Nesterov Momentum into Adam".

    As :class:`torch.optim.NAdam`, in rounding only different: one division per element instead of two, and no libm.
    ``mu_product`` is kept as torch keeps it, so that a checkpoint goes both ways.

    When to use it: where Adam is, for a faster start at the same rate.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.NAdam([w], lr=0.5, momentum_decay=0.0)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.4718, -1.4718])
    """

    kernel = "nadam"
    choices = "decoupled decay"
    torch_class = "NAdam"

    lr = learning_rate(2e-3)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of the running means of g and of g**2")
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay()
    momentum_decay = number(4e-3, NON_NEGATIVE, "how fast the momentum grows to beta1")
    decoupled_weight_decay = flag(False, "decay the parameter itself, by ``lr * weight_decay``, as AdamW does")
    _ = KEYWORD_ONLY
    foreach = FOREACH
    maximize = MAXIMIZE
    capturable = CAPTURABLE
    differentiable = DIFFERENTIABLE

    states = (array("exp_avg", "signed"), array("exp_avg_sq", "unsigned"))
    numbers = (StateNumber("mu_product", 1.0),)

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        mu_product: Any,
        *,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        momentum_decay: float,
    ) -> tuple[Any, ...]:
        decay = fs_pow(0.96, momentum_decay)
        mu = beta1 * (1.0 - 0.5 * power(decay, step))
        after = beta1 * (1.0 - 0.5 * power(decay, step + 1))
        root2 = math.sqrt(1.0 - power(beta2, step))
        product = rounded(float(mu_product) * mu, np.asarray(mu_product))  # what is used is what is stored
        of_gradient = lr * (1.0 - mu) / (1.0 - float(product)) * root2
        of_average = lr * after / (1.0 - float(product) * after) * root2
        m = moving_average(exp_avg, g, beta1)
        v = moving_average(exp_avg_sq, g * g, beta2)
        top = rounded(of_gradient, p) * g + rounded(of_average, p) * m
        return top / (np.sqrt(v) + rounded(eps * root2, p)), m, v, np.asarray(product)
