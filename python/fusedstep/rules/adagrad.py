from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, rounded
from .._rule import *


class Adagrad(Rule):
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    Formula::

        s <- s + g**2
        p <- p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)

    Paper: Duchi, Hazan & Singer 2011.

    As :class:`torch.optim.Adagrad`: eps outside the root. Differs in rounding only.

    When to use it: with sparse features or on convex problems: its rates only fall, which ends long training early.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.Adagrad([w], lr=0.5)
    >>> opt.step([np.array([3.0, -0.1])])
    >>> w
    array([0.5, 2.5])
    """

    kernel = "adagrad"
    choices = "`lr_decay`, `initial_accumulator_value`"
    torch_class = "Adagrad"
    takes_sparse = "torch.optim.Adagrad"

    lr = learning_rate(1e-2)
    lr_decay = number(0.0, NON_NEGATIVE, "the rate of step t is ``lr / (1 + (t - 1) * lr_decay)``")
    weight_decay = decay()
    initial_accumulator_value = number(0.0, NON_NEGATIVE, "what the sums of squares start from")
    eps = number(1e-10, NON_NEGATIVE, "added to the root")
    foreach = FOREACH
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE
    fused = FUSED

    states = (array("sum", "unsigned", start="initial_accumulator_value"),)

    @staticmethod
    def specification(
        g: Array, p: Array, sum: Array, *, step: int, lr: float, lr_decay: float = 0.0, eps: float
    ) -> tuple[Any, ...]:
        s = sum + g * g
        rate = rounded(lr / (1.0 + (step - 1) * lr_decay), p)
        return rate * g / (np.sqrt(s) + rounded(eps, p)), s
