from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, fs_pow, maximum, maximum_nan, minimum, moving_average, rounded
from .._rule import *


class ADOPT(Rule):
    """ADOPT: the gradient over the root of the mean square of the gradients before it, then momentum.

    Formula::

        v <- g**2                                             first step, which leaves p as it is

        x <- g / max(sqrt(v), eps)                            later steps, with the v of before
        x <- clamp(x, -c, c)                                  c = (step - 1)**clip_exp
        m <- beta1 * m + (1 - beta1) * x
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * m

    Paper: Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate".

    As iShohei220/adopt, whose checkpoints load. Its ``clip_lambda`` is here an exponent: ``clip_exp=0.25`` is its
    default, 0.333 that of timm, and None no clipping, as it was before November 2024. Differs in rounding only.

    When to use it: where Adam is sensitive to beta2 or diverges, as in small batches: it converges with any beta2.
    Skip steps whose norm is infinite (``nonfinite="skip"``): by the formula an infinite v stops its weight for ever.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.ADOPT([w], lr=0.5)
    >>> for _ in range(2):
    ...     opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.95, -1.95])
    """

    kernel = "adopt"
    choices = "clipping, decoupled decay"
    decoupled_by = "decouple"
    spares_first = True

    lr = learning_rate(1e-3)
    betas = several((0.9, 0.9999), FRACTION, ("beta1", "beta2"), "factors of the running means of x and of g**2")
    eps = number(1e-6, NON_NEGATIVE, "the least that is divided by")
    clip_exp = number(0.25, NON_NEGATIVE, "the bound on x is ``(step - 1)**clip_exp``; None: there is none", none=-1.0)
    weight_decay = decay()
    decouple = flag(False, "decay the parameter itself, by ``lr * weight_decay``, but not in the first step")
    _ = KEYWORD_ONLY
    foreach = FOREACH
    maximize = MAXIMIZE
    capturable = CAPTURABLE
    differentiable = DIFFERENTIABLE
    fused = FUSED

    states = (array("exp_avg", "signed"), array("exp_avg_sq", "unsigned"))

    @staticmethod
    def specification(
        g: Array, p: Array, exp_avg: Array, exp_avg_sq: Array, *, step: int, lr: float, beta1: float, beta2: float,
        eps: float, clip_exp: float,
    ) -> tuple[Any, ...]:  # fmt: skip
        if step == 1:
            return np.zeros_like(p), exp_avg, exp_avg_sq + g * g
        clip = rounded(fs_pow(step - 1, clip_exp) if clip_exp >= 0 else math.inf, p)
        x = g / maximum_nan(np.sqrt(exp_avg_sq), np.full_like(p, rounded(eps, p)))
        m = moving_average(exp_avg, maximum(-clip, minimum(clip, x)), beta1)
        return rounded(lr, p) * m, m, moving_average(exp_avg_sq, g * g, beta2)
