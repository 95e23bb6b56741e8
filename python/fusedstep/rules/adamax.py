from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, maximum_nan, moving_average, power, rounded
from .._rule import *


class Adamax(Rule):
    """Adamax: a running mean of the gradient over a decaying maximum of its size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, abs(g) + eps)
        p <- p - lr / (1 - beta1**step) * m / u

    Paper: Kingma & Ba 2015, algorithm 2.

    When to use it: where gradients are sparse or have rare large values, as those of embeddings; no square is formed
    that could overflow, and no update is larger than about ``lr``.

    As :class:`torch.optim.Adamax`: eps is added within the maximum, which keeps a NaN. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adamax([w], lr=0.5, eps=0.0)
    >>> opt.step([np.array([0.5, -4.0])])
    >>> w
    array([ 0.5, -1.5])
    """

    kernel = "adamax"
    torch_class = "Adamax"

    lr = learning_rate(2e-3)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of the running mean and of the maximum")
    eps = number(1e-8, NON_NEGATIVE, "added to the gradient's size")
    weight_decay = decay()
    foreach = FOREACH
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE
    capturable = CAPTURABLE

    # The maximum decays: rounded to nearest it would stop to.
    states = (array("exp_avg", "signed"), array("exp_inf", "unsigned"))

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        exp_avg: Array,
        exp_inf: Array,
        *,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> tuple[Any, ...]:
        m = moving_average(exp_avg, g, beta1)
        u = maximum_nan(rounded(beta2, p) * exp_inf, np.abs(g) + rounded(eps, p))
        return rounded(lr / (1.0 - power(beta1, step)), p) * m / u, m, u
