from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, rounded
from .._rule import *


class RMSprop(Rule):
    """RMSprop: the gradient over the root of its running mean square; centered, with momentum.

    Formula::

        s <- alpha * s + (1 - alpha) * g**2
        a <- alpha * a + (1 - alpha) * g                  centered
        d <- sqrt(s) + eps   or   sqrt(s - a**2) + eps    centered
        p <- p - lr * g / d
        b <- momentum * b + g / d;  p <- p - lr * b       with momentum

    Papers: Hinton 2012 (Coursera, lecture 6e); centered: Graves 2013, section 4.2.

    As :class:`torch.optim.RMSprop`: eps outside the root; centered, a variance that rounds below zero gives NaN, as
    there. Differs in rounding only.

    When to use it: in reinforcement learning and recurrent networks, whose gradients change their scale.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.RMSprop([w], lr=0.1, alpha=0.75)
    >>> opt.step([np.array([3.0, -0.1])])
    >>> w
    array([0.8       , 2.19999996])
    """

    kernel = "rmsprop"
    choices = "centered, momentum"
    torch_class = "RMSprop"

    lr = learning_rate(1e-2)
    alpha = number(0.99, NON_NEGATIVE, "factor of the running averages")
    eps = number(1e-8, NON_NEGATIVE, "added to the root")
    weight_decay = decay()
    momentum = number(0.0, NON_NEGATIVE, "factor of the running direction; 0: none, and no state for it")
    centered = flag(False, "divide by the standard deviation rather than by the root of the mean square")
    capturable = CAPTURABLE
    foreach = FOREACH
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE

    states = (
        # Of the difference of two rounded numbers little would be left.
        array("square_avg", "unsigned", exact_when="centered"),
        array("grad_avg", "signed", when="centered", exact_when="centered"),
        array("momentum_buffer", "signed", when="momentum"),
    )

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        square_avg: Array,
        grad_avg: Array | None = None,
        momentum_buffer: Array | None = None,
        *,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float = 0.0,
    ) -> tuple[Any, ...]:
        rate = rounded(lr, p)
        s = moving_average(square_avg, g * g, alpha)
        variance, states = s, [s]
        if grad_avg is not None:
            average = moving_average(grad_avg, g, alpha)
            variance = s - average * average
            states.append(average)
        denominator = np.sqrt(variance) + rounded(eps, p)
        if momentum_buffer is None:
            return rate * g / denominator, *states
        b = rounded(momentum, p) * momentum_buffer + g / denominator
        return rate * b, *states, b
