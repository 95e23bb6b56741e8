# Written by tools/generate.py from fusedstep.rules.
from collections.abc import Mapping
from typing import Any

from .._arithmetic import Array

__all__ = ["adagrad", "adam", "adamax", "adamw", "lion", "nadam", "radam", "rmsprop", "sgd"]

def adagrad(
    param: Array,
    grad: Array,
    sum: Array,
    *,
    step: int,
    lr: float,
    lr_decay: float = 0.0,
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    Formula::

        s <- s + g**2
        p <- p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)

    Paper: Duchi, Hazan & Singer 2011.

    As :class:`torch.optim.Adagrad`: eps outside the root. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.Adagrad([w], lr=0.5)
    >>> opt.step([np.array([3.0, -0.1])])
    >>> w
    array([0.5, 2.5])
    """

def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """Adam: running means of the gradient and of its square, corrected for their start; with ``amsgrad`` the largest
    mean square so far.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        x <- max(x, v)                                            amsgrad, on the raw second moment
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)    ci = 1 - betai**step

    Papers: Kingma & Ba 2015, algorithm 1 in the form of the end of section 2; AMSGrad: Reddi, Kale & Kumar 2018.

    As :class:`torch.optim.Adam`, in rounding only different: ``sqrt(c2)`` is multiplied out of the last line, which
    leaves one division per element, and m is not written as lerp, so that beta1 = 0 is exact.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adam([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.50000005, -1.5       ])
    """

def adamax(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_inf: Array,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """Adamax: a running mean of the gradient over a decaying maximum of its size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, abs(g) + eps)
        p <- p - lr / (1 - beta1**step) * m / u

    Paper: Kingma & Ba 2015, algorithm 2.

    When to use it: where gradients are sparse or have rare large values, as those of embeddings; no square is formed
    that could overflow, and no update is larger than about ``lr``.

    As :class:`torch.optim.Adamax`: eps is added within the maximum, which keeps a NaN. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adamax([w], lr=0.5, eps=0.0)
    >>> opt.step([np.array([0.5, -4.0])])
    >>> w
    array([ 0.5, -1.5])
    """

def adamw(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """:class:`Adam` with decoupled weight decay: the parameter itself shrinks, and no moment sees it.

    Formula::

        p <- (1 - lr * weight_decay) * p, then Adam's with the gradient alone

    Paper: Loshchilov & Hutter 2019.

    As :class:`torch.optim.AdamW`. Differs as :class:`Adam` does, in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.AdamW([w], lr=0.5, weight_decay=0.1)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.45000005, -1.4       ])
    """

def lion(
    param: Array,
    grad: Array,
    exp_avg: Array,
    *,
    step: int = 1,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """Lion: steps of one size, in the direction of the sign of an average of gradient and momentum.

    Formula::

        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g                    both with the m of before

    Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.

    Differs from torch-like implementations (google/automl, lion-pytorch, timm) for a NaN alone: sign(NaN) is NaN, where
    torch.sign gives 0 and the weight would be frozen in silence. sign(0) is 0. Weight decay is decoupled.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0, 3.0])
    >>> opt = fusedstep.numpy.Lion([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0, 0.0])])
    >>> w
    array([ 0.5, -1.5,  3. ])
    """

def nadam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    mu_product: Any,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    momentum_decay: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """NAdam: Adam with Nesterov's momentum, on a schedule of its own.

    Formula::

        mu_t <- beta1 * (1 - 0.5 * 0.96**(t * momentum_decay));  P <- P * mu_t          P: mu_product, starts at 1
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        d <- (1 - mu_t) / (1 - P) * g + mu_(t+1) / (1 - P * mu_(t+1)) * m
        p <- p - lr * d / (sqrt(v) / sqrt(c2) + eps)                                    c2 = 1 - beta2**t

    Paper: Dozat 2016, "Incorporating Nesterov Momentum into Adam".

    As :class:`torch.optim.NAdam`, in rounding only different: one division per element instead of two, and no libm.
    ``mu_product`` is kept as torch keeps it, so that a checkpoint goes both ways.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.NAdam([w], lr=0.5, momentum_decay=0.0)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.4718, -1.4718])
    """

def radam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """RAdam: Adam that starts as SGD with momentum, until enough gradients are seen to divide by their size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        R = 2 / (1 - beta2) - 1;  r = R - 2 * t * beta2**t / c2                       ci = 1 - betai**t
        p <- p - lr / c1 * f * m * sqrt(c2) / (sqrt(v) + eps)                         if r > 5
                 f = sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r))
        p <- p - lr / c1 * m                                                          otherwise

    Paper: Liu et al. 2020.

    When to use it: where Adam diverges without a warmup of the learning rate. The first steps (5 for beta2 = 0.999) are
    of the whole ``lr`` and not divided by anything.

    As :class:`torch.optim.RAdam`: eps is added to the root that is not corrected. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.RAdam([w], lr=0.5)
    >>> opt.step([np.array([0.5, -3.0])])
    >>> w
    array([ 0.75, -0.5 ])
    """

def rmsprop(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None = None,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
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

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.RMSprop([w], lr=0.1, alpha=0.75)
    >>> opt.step([np.array([3.0, -0.1])])
    >>> w
    array([0.8       , 2.19999996])
    """

def sgd(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: float = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
    l1: float = 0.0,
    cautious: Any = False,
    starts: Mapping[str, float] | None = None,
    ema: Array | None = None,
    ema_weight: float = 1.0,
    stats: Array | None = None,
    seed: int = 0,
    tensor: int = 0,
) -> tuple[Array, ...]:
    """Gradient descent; with ``momentum``, SGD with momentum, dampening and Nesterov's variant.

    Formula::

        p <- p - lr * g                                     without momentum

        b <- g                                              first step
        b <- momentum * b + (1 - dampening) * g             later steps
        p <- p - lr * (g + momentum * b if nesterov else b)

    Papers: Polyak 1964; Nesterov's variant: Sutskever et al. 2013, section 2.

    As :class:`torch.optim.SGD`, which takes the first gradient undampened too. Differs in rounding only.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, 2.0])
    >>> opt = fusedstep.numpy.SGD([w], lr=0.5, momentum=0.9)
    >>> for _ in range(2):
    ...     opt.step([np.array([1.0, -1.0])])
    >>> w
    array([-0.45,  3.45])
    """
