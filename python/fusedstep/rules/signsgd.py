from __future__ import annotations

from typing import Any

from .._arithmetic import Array, moving_average, rounded, sign
from .._rule import *


class SignSGD(Rule):
    """SignSGD: steps of one size, in the direction of the sign of the gradient; with ``momentum`` it is Signum, which
    takes the sign of the running mean.

    Formula::

        p <- p - lr * sign(g)                          without momentum

        b <- momentum * b + (1 - momentum) * g
        p <- p - lr * sign(b)                          with momentum

    Paper: Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex Problems".

    As pytorch_optimizer's SignSGD, whose checkpoints load. Differs for a NaN, as :class:`Lion` does: sign(NaN) is NaN,
    where torch.sign gives 0 and the weight would be frozen in silence. Differs for complex parameters: each part is a
    number with a sign. sign(0) is 0.

    When to use it: where memory counts, or to find out how much of Adam is its sign: no state, or one array.
    ``momentum=0.965`` and ``weight_decay=0.01`` make it Tiger.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0, 3.0])
    >>> opt = fusedstep.numpy.SignSGD([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0, 0.0])])
    >>> w
    array([ 0.5, -1.5,  3. ])
    """

    kernel = "signsgd"
    choices = "momentum (Signum), L2 or decoupled decay"
    has_step = False
    decoupled_by = "weight_decouple"

    lr = learning_rate(1e-3)
    momentum = number(0.9, FRACTION, "factor of the running mean; 0: none, and no state")
    weight_decay = decay(0.0, "decay of the parameter, by ``lr * weight_decay``; L2 without ``weight_decouple``")
    weight_decouple = flag(True, "decay the parameter itself, as AdamW does; else ``weight_decay * p`` is added to g")
    foreach = FOREACH
    maximize = MAXIMIZE

    states = (array("momentum_buffer", "signed", when="momentum"),)

    @staticmethod
    def specification(
        g: Array, p: Array, momentum_buffer: Array | None = None, *, lr: float, momentum: float = 0.0
    ) -> tuple[Any, ...]:
        if momentum_buffer is None:
            return (rounded(lr, p) * sign(g),)
        b = moving_average(momentum_buffer, g, momentum)
        return rounded(lr, p) * sign(b), b
