from __future__ import annotations

from typing import Any

from .._arithmetic import Array, rounded
from .._rule import *


class SGD(Rule):
    """Gradient descent; with ``momentum``, SGD with momentum, dampening and Nesterov's variant.

    Formula::

        p <- p - lr * g                                     without momentum

        b <- g                                              first step
        b <- momentum * b + (1 - dampening) * g             later steps
        p <- p - lr * (g + momentum * b if nesterov else b)

    Papers: Polyak 1964; Nesterov's variant: Sutskever et al. 2013, section 2.

    As :class:`torch.optim.SGD`, which takes the first gradient undampened too. Differs in rounding only.

    When to use it: for convolutional networks with momentum and a tuned rate, where it generalizes best.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.SGD([w], lr=0.5, momentum=0.9)
    >>> for _ in range(2):
    ...     opt.step([np.array([1.0, -1.0])])
    >>> w
    array([-0.45,  3.45])
    """

    kernel = "sgd"
    choices = "plain gradient descent; momentum, dampening, Nesterov"
    torch_class = "SGD"
    takes_sparse = "torch.optim.SGD"
    has_step = False

    lr = learning_rate(1e-3)
    momentum = number(0.0, NON_NEGATIVE, "factor of the running direction; 0: none, and no state")
    dampening = number(0.0, FINITE, "the gradient counts ``1 - dampening`` in the running direction")
    weight_decay = decay()
    nesterov = flag(False, "look one momentum step ahead; needs a ``momentum`` and no ``dampening``")
    _ = KEYWORD_ONLY
    maximize = MAXIMIZE
    foreach = FOREACH
    differentiable = DIFFERENTIABLE
    fused = FUSED

    states = (array("momentum_buffer", "signed", when="momentum"),)

    @classmethod
    def check_together(cls, label: str, options: Options) -> None:
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError(
                f"{label}: nesterov with momentum {options['momentum']} and dampening {options['dampening']}, "
                "expected a momentum > 0 and a dampening of 0"
            )

    @staticmethod
    def specification(
        g: Array,
        p: Array,
        momentum_buffer: Array | None = None,
        *,
        step: int = 1,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: float = False,
    ) -> tuple[Any, ...]:
        if momentum_buffer is None:
            return (rounded(lr, p) * g,)
        mu = rounded(momentum, p)
        b = g if step == 1 else mu * momentum_buffer + rounded(1.0 - dampening, p) * g
        return rounded(lr, p) * (g + mu * b if nesterov else b), b
