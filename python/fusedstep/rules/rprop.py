from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, maximum, minimum, rounded
from .._rule import *


class Rprop(Rule):
    """Rprop: steps of a size of each element's own, which grows while the sign of its gradient stays.

    Formula::

        zero, one = rounded(0.0, p), rounded(1.0, p)
        x = g * prev
        s <- min(step_sizes[1], max(step_sizes[0], s * f))      f = etas[1] if x > 0, etas[0] if x < 0, else 1
        g <- 0 if x < 0;  prev <- g
        p <- p - sign(g) * s                                    s starts at lr

    Papers: Riedmiller & Braun 1993; without going back, iRprop-: Igel & Huesken 2000.

    When to use it: with gradients of the whole data set, as it reads nothing but signs; not with small batches, whose
    noise turns signs.

    As :class:`torch.optim.Rprop`, with the same bits; so an element whose gradient is NaN stays for this step. ``lr``
    counts when the state is made and not later.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.Rprop([w], lr=0.5)
    >>> for g in ([3.0, -0.1], [1.0, 0.1]):
    ...     opt.step([np.array(g)])
    >>> w
    array([-0.1,  2.5])
    """

    kernel = "rprop"
    torch_class = "Rprop"

    lr = learning_rate(1e-2)
    etas = several((0.5, 1.2), (SHRINKING, GROWING), ("eta_minus", "eta_plus"), "factors of a step size")
    step_sizes = several((1e-6, 50), LIMIT, ("step_min", "step_max"), "the least and the largest step size")
    _ = KEYWORD_ONLY
    capturable = CAPTURABLE
    foreach = FOREACH
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE

    # To nearest: no factor is so close to 1 that rounding could undo it.
    states = (array("prev", "signed"), array("step_size", "signed", start="lr", plural="sizes"))

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        prev: Array,
        step_size: Array,
        *,
        lr: float,
        eta_minus: float,
        eta_plus: float,
        step_min: float,
        step_max: float,
    ) -> tuple[Any, ...]:
        zero, one = rounded(0.0, p), rounded(1.0, p)
        x = g * prev
        s = step_size * np.where(x > 0, rounded(eta_plus, p), np.where(x < 0, rounded(eta_minus, p), one))
        s = minimum(rounded(step_max, p), maximum(rounded(step_min, p), s))
        g = np.where(x < 0, zero, g)
        return np.where(g > 0, one, np.where(g < 0, -one, zero)) * s, g, s
