from __future__ import annotations

from typing import Any

from .._arithmetic import Array, moving_average, rounded, sign
from .._rule import *


class Lion(Rule):
    """Lion: steps of one size, in the direction of the sign of an average of gradient and momentum.

    Formula::

        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g                    both with the m of before

    Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.

    Differs from torch-like implementations (google/automl, lion-pytorch, timm) for a NaN alone: sign(NaN) is NaN, where
    torch.sign gives 0 and the weight would be frozen in silence. sign(0) is 0. Weight decay is decoupled.

    When to use it: with large batches, where half of Adam's state counts; at 3 to 10 times less rate and more decay.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0, 3.0])
    >>> opt = fusedstep.numpy.Lion([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0, 0.0])])
    >>> w
    array([ 0.5, -1.5,  3. ])
    """

    kernel = "lion"
    has_step = False
    decoupled = True

    lr = learning_rate(1e-4)
    betas = several((0.9, 0.99), FRACTION, ("beta1", "beta2"), "factors of m: in the direction, and from step to step")
    weight_decay = decay(0.0, "decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``")
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE

    states = (array("exp_avg", "signed"),)

    @staticmethod
    def specification(g: Array, p: Array, exp_avg: Array, *, lr: float, beta1: float, beta2: float) -> tuple[Any, ...]:
        return rounded(lr, p) * sign(moving_average(exp_avg, g, beta1)), moving_average(exp_avg, g, beta2)
