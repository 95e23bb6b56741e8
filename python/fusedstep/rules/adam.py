from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, maximum, moving_average, power, rounded
from .._rule import *


class Adam(Rule):
    """Adam: running means of the gradient and of its square, corrected for their start; AMSGrad.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        x <- max(x, v)                                            amsgrad, on the raw second moment
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)    ci = 1 - betai**step

    Papers: Kingma & Ba 2015, algorithm 1 in the form of the end of section 2; AMSGrad: Reddi, Kale & Kumar 2018.

    As :class:`torch.optim.Adam`, in rounding only different: ``sqrt(c2)`` is multiplied out of the last line, which
    leaves one division per element, and m is not written as lerp, so that beta1 = 0 is exact.

    When to use it: as a first choice without weight decay; with it, :class:`AdamW`.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adam([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.50000005, -1.5       ])
    """

    kernel = "adam"
    choices = "AMSGrad, decoupled decay"
    torch_class = "Adam"

    lr = learning_rate(1e-3)
    betas = several((0.9, 0.999), FRACTION, ("beta1", "beta2"), "factors of the running means of g and of g**2")
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay()
    amsgrad = flag(False, "divide by the root of the largest mean square so far")
    _ = KEYWORD_ONLY
    foreach = FOREACH
    maximize = MAXIMIZE
    capturable = CAPTURABLE
    differentiable = DIFFERENTIABLE
    fused = FUSED
    decoupled_weight_decay = flag(False, "decay the parameter itself, by ``lr * weight_decay``, as AdamW does")

    states = (
        array("exp_avg", "signed"),
        array("exp_avg_sq", "unsigned"),
        array("max_exp_avg_sq", "maximum", when="amsgrad"),
    )

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        max_exp_avg_sq: Array | None = None,
        *,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> tuple[Any, ...]:
        correction1 = 1.0 - power(beta1, step)
        root2 = math.sqrt(1.0 - power(beta2, step))
        m = moving_average(exp_avg, g, beta1)
        v = moving_average(exp_avg_sq, g * g, beta2)
        states = [m, v]
        if max_exp_avg_sq is not None:
            states.append(maximum(max_exp_avg_sq, v))
        step_size = rounded(lr * root2 / correction1, p)
        return step_size * m / (np.sqrt(states[-1]) + rounded(eps * root2, p)), *states
