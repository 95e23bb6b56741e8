from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, moving_average, rounded
from .._rule import *


class Adadelta(Rule):
    """Adadelta: the gradient over its root mean square, times the root mean square of the updates so far.

    Formula::

        v <- rho * v + (1 - rho) * g**2
        e <- sqrt((a + eps) / (v + eps)) * g
        a <- rho * a + (1 - rho) * e**2
        p <- p - lr * e

    Paper: Zeiler 2012.

    When to use it: where no learning rate is to be chosen, as updates have the parameter's own units. It starts slowly:
    the first updates are of the size of ``sqrt(eps)``.

    As :class:`torch.optim.Adadelta`, in rounding only different: the root of a quotient, not a quotient of two roots.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.Adadelta([w], rho=0.75, eps=1.0)
    >>> opt.step([np.array([2.0, -2.0])])
    >>> w.round(6)
    array([-0.414214,  3.414214])
    """

    kernel = "adadelta"
    torch_class = "Adadelta"

    lr = learning_rate(1.0)
    rho = number(0.9, UNIT, "factor of the running means of squares")
    eps = number(1e-6, NON_NEGATIVE, "added to both mean squares")
    weight_decay = decay()
    foreach = FOREACH
    _ = KEYWORD_ONLY
    capturable = CAPTURABLE
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE

    states = (array("square_avg", "unsigned"), array("acc_delta", "unsigned"))

    @staticmethod
    def specification(
        g: Array, p: Array, square_avg: Array, acc_delta: Array, *, lr: float, rho: float, eps: float
    ) -> tuple[Any, ...]:
        e0 = rounded(eps, p)
        v = moving_average(square_avg, g * g, rho)
        e = np.sqrt((acc_delta + e0) / (v + e0)) * g
        return rounded(lr, p) * e, v, moving_average(acc_delta, e * e, rho)
