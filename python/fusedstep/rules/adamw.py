from __future__ import annotations

from .._rule import decay
from .adam import Adam


class AdamW(Adam):
    """:class:`Adam` with decoupled weight decay: the parameter itself shrinks, and no moment sees it.

    Formula::

        p <- (1 - lr * weight_decay) * p, then Adam's with the gradient alone

    Paper: Loshchilov & Hutter 2019.

    As :class:`torch.optim.AdamW`. Differs as :class:`Adam` does, in rounding only.

    When to use it: as a first choice, of transformers above all.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.AdamW([w], lr=0.5, weight_decay=0.1)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.45000005, -1.4       ])
    """

    choices = "AMSGrad"
    torch_class = "AdamW"
    decoupled = True

    weight_decay = decay(1e-2, "decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``")
    decoupled_weight_decay = None
