from __future__ import annotations

from typing import Any

import numpy as np

from .._arithmetic import Array, fs_pow, rounded
from .._rule import *


class ASGD(Rule):
    """ASGD: gradient descent with a falling rate, and a running average of the parameters beside it.

    Formula::

        p <- p - (eta * lambd * p + eta * g)                    eta starts at lr
        ax <- p if mu == 1 else ax + mu * (p - ax)              mu starts at 1
        eta <- lr / (1 + lambd * lr * step)**alpha
        mu <- 1 / max(1, step - t0)

    Papers: Polyak & Juditsky 1992; the rates: Bottou 2010.

    When to use it: on convex problems, with ``t0`` at the step from which parameters are to be averaged. The average is
    the state ``ax``; the parameters themselves are those of SGD.

    As :class:`torch.optim.ASGD`, in rounding only different. ``eta`` and ``mu`` are kept as torch keeps them, so that a
    checkpoint goes both ways.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.ASGD([w], lr=0.5, lambd=0.0, t0=0)
    >>> for _ in range(3):
    ...     opt.step([np.array([1.0, -1.0])])
    >>> w, opt.state[0]["ax"]
    (array([-0.5,  3.5]), array([-0.25,  3.25]))
    """

    kernel = "asgd"
    torch_class = "ASGD"

    lr = learning_rate(1e-2)
    lambd = number(1e-4, NON_NEGATIVE, "decay of the parameters and of the rate")
    alpha = number(0.75, NON_NEGATIVE, "power by which the rate falls")
    t0 = number(1e6, LIMIT, "the step after which averaging starts")
    weight_decay = decay()
    foreach = FOREACH
    maximize = MAXIMIZE
    differentiable = DIFFERENTIABLE
    capturable = CAPTURABLE

    # An average over many steps moves by less than half a bfloat16, which rounding to nearest would lose.
    states = (array("ax", "exact"),)
    numbers = (StateNumber("eta", "lr"), StateNumber("mu", 1.0))

    @staticmethod
    def specification(
        g: Array, p: Array, ax: Array, eta: Any, mu: Any, *, step: int, lr: float, lambd: float, alpha: float, t0: float
    ) -> tuple[Any, ...]:
        rate = float(eta)
        d = rounded(rate * lambd, p) * p + rounded(rate, p) * g
        weight = rounded(float(mu), p)
        ax = ax + weight * (p - d - ax) if weight != 1 else p - d
        new_eta = rounded(lr / fs_pow(1.0 + lambd * lr * step, alpha), np.asarray(eta))
        new_mu = rounded(1.0 / (step - t0 if step - t0 > 1.0 else 1.0), np.asarray(mu))
        return d, ax, np.asarray(new_eta), np.asarray(new_mu)
