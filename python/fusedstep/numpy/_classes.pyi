# Written by tools/generate.py from fusedstep.rules.
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import DTypeLike

from ._optimizer import Optimizer

__all__ = [
    "ADOPT",
    "ASGD",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "LaProp",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SignSGD",
    "Yogi",
]

class AdaBelief(Optimizer):
    """AdaBelief: Adam that divides by how far gradients are from their running mean, and not by how large they are.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * (g - m)**2 + eps                    with the new m
        x <- max(x, v)                                                     amsgrad
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)             without rectify; ci = 1 - betai**t
        p <- p - lr / c1 * sqrt(c2 * R) * m / (sqrt(v) + eps)              rectify, N >= 5
        p <- p - lr / c1 * m                                               rectify, N < 5, degenerated_to_sgd; else none
        L = 2 / (1 - beta2) - 1,  N = L - 2 * t * beta2**t / c2,  R = (N - 4) (N - 2) L / ((L - 4) (L - 2) N)

    Paper: Zhuang et al. 2020, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients".

    As adabelief-pytorch, whose checkpoints load; with ``rectify`` x is only kept. Differs in rounding only.

    When to use it: where Adam generalizes worse than SGD; an eps of 1e-16 for transformers, of 1e-8 for convolutions.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> fusedstep.numpy.AdaBelief([w], lr=0.5, rectify=False).step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.4444, -1.4444])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of (g - m)**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to v, and to the root, a finite number >= 0; default 1e-16.
        weight_decay: decay of the parameter, as ``weight_decouple`` and ``fixed_decay`` say, a finite number >= 0;
            default 0.0.
        amsgrad: keep the largest v, and divide by its root unless ``rectify``; default False.
        weight_decouple: multiply the parameter by ``1 - lr * weight_decay``; else L2; default True.
        fixed_decay: multiply by ``1 - weight_decay`` instead, with ``weight_decouple``; default False.
        rectify: correct the variance of the first steps, as RAdam does; default True.
        degenerated_to_sgd: while N < 5, step by m alone rather than not at all; default True.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Adadelta(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 1.0.
        rho: factor of the running means of squares, 0 <= rho <= 1; default 0.9.
        eps: added to both mean squares, a finite number >= 0; default 1e-06.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Adagrad(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.01.
        lr_decay: the rate of step t is ``lr / (1 + (t - 1) * lr_decay)``, a finite number >= 0; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        initial_accumulator_value: what the sums of squares start from, a finite number >= 0; default 0.0.
        eps: added to the root, a finite number >= 0; default 1e-10.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Adam(Optimizer):
    """Adam: running means of the gradient and of its square, corrected for their start; AMSGrad.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        x <- max(x, v)                                            amsgrad, on the raw second moment
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)    ci = 1 - betai**step

    Papers: Kingma & Ba 2015, algorithm 1 in the form of the end of section 2; AMSGrad: Reddi, Kale & Kumar 2018.

    As :class:`torch.optim.Adam`, in rounding only different: ``sqrt(c2)`` is multiplied out of the last line, which
    leaves one division per element, and m is not written as lerp, so that beta1 = 0 is exact.

    When to use it: as a first choice without weight decay; with it, :class:`AdamW`.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adam([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.50000005, -1.5       ])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        amsgrad: divide by the root of the largest mean square so far; default False.
        maximize: ascend instead of descend; default False.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Adamax(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running mean and of the maximum, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the gradient's size, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class AdamW(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.01.
        amsgrad: divide by the root of the largest mean square so far; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Adan(Optimizer):
    """Adan: Adam with Nesterov's momentum, estimated from the differences of successive gradients.

    Formula::

        e <- g + q                                                 q: minus the gradient of before; first step: 0
        m <- beta1 * m + (1 - beta1) * g
        n <- beta2 * n + (1 - beta2) * e
        v <- beta3 * v + (1 - beta3) * (g + beta2 * e)**2
        q <- -g
        d <- lr * (m / c1 + beta2 * n / c2) / (sqrt(v) / sqrt(c3) + eps)      ci = 1 - betai**step
        p <- (p - d) / (1 + lr * weight_decay)

    Paper: Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models".

    As sail-sg's Adan, whose checkpoints load, where all parameters of a group had a gradient in each step: it counts
    the steps of a group, and here each parameter counts its own. Its ``max_grad_norm`` is ``max_norm`` here. Differs in
    rounding otherwise.

    When to use it: to train from scratch with large batches and rates. It has the largest state of all: four arrays.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Adan([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.5, -1.5])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of m, n and v, 0 <= each of betas < 1; default (0.98, 0.92, 0.99).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: the parameter is divided by ``1 + lr * weight_decay`` after the step, a finite number >= 0;
            default 0.0.
        no_prox: multiply the parameter by ``1 - lr * weight_decay`` before the step instead; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        no_prox: bool = False,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class AdEMAMix(Optimizer):
    """AdEMAMix: Adam with a second, far longer running mean of the gradient beside the first.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        n <- B3 * n + (1 - B3) * g
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * (m / c1 + A * n) / (sqrt(v) / sqrt(c2) + eps)          ci = 1 - betai**t
        A = alpha * min(t / t_alpha, 1)
        B3 = min(beta3, exp(1 / ((1 - T) / log(beta1) + T / log(beta3))))    T = t / t_beta3; beta3 from T = 1 on

    Paper: Pagliardini, Ablin & Grangier 2024, "The AdEMAMix Optimizer: Better, Faster, Older".

    As bitsandbytes' AdEMAMix on the CPU (its CUDA kernel decays after the step). Differs in rounding. Checkpoints of it
    do not load: they have m and n in one array, ``exp_avg, exp_avg_slow = state1``, and v as ``state2``.

    When to use it: in long runs of language models, where gradients of ten thousand steps ago still tell something. Let
    ``t_alpha`` and ``t_beta3`` be the number of steps: without them the slow mean disturbs the start.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.AdEMAMix([w], lr=0.5, betas=(0.9, 0.999, 0.5), alpha=1.0, weight_decay=0.0)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.25, -1.25])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of m, v and n, 0 <= each of betas < 1; default (0.9, 0.999, 0.9999).
        alpha: weight of the slow mean, a finite number >= 0; default 5.0.
        t_alpha: in how many steps the weight grows to ``alpha``; None: at once, a number of steps >= 0 or None.
        t_beta3: in how many steps the factor of n grows from beta1 to beta3; None: at once, a number of steps >= 0
            or None.
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.01.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: float | None = None,
        t_beta3: float | None = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class ADOPT(Optimizer):
    """ADOPT: the gradient over the root of the mean square of the gradients before it, then momentum.

    Formula::

        v <- g**2                                             first step, which leaves p as it is

        x <- g / max(sqrt(v), eps)                            later steps, with the v of before
        x <- clamp(x, -c, c)                                  c = (step - 1)**clip_exp
        m <- beta1 * m + (1 - beta1) * x
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * m

    Paper: Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate".

    As iShohei220/adopt, whose checkpoints load. Its ``clip_lambda`` is here an exponent: ``clip_exp=0.25`` is its
    default, 0.333 that of timm, and None no clipping, as it was before November 2024. Differs in rounding only.

    When to use it: where Adam is sensitive to beta2 or diverges, as in small batches: it converges with any beta2.
    Skip steps whose norm is infinite (``nonfinite="skip"``): by the formula an infinite v stops its weight for ever.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.ADOPT([w], lr=0.5)
    >>> for _ in range(2):
    ...     opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.95, -1.95])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of x and of g**2, 0 <= each of betas < 1; default (0.9, 0.9999).
        eps: the least that is divided by, a finite number >= 0; default 1e-06.
        clip_exp: the bound on x is ``(step - 1)**clip_exp``; None: there is none, a finite number >= 0 or None;
            default 0.25.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        decouple: decay the parameter itself, by ``lr * weight_decay``, but not in the first step; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-06,
        clip_exp: float | None = 0.25,
        weight_decay: float = 0.0,
        decouple: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class ASGD(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.01.
        lambd: decay of the parameters and of the rate, a finite number >= 0; default 0.0001.
        alpha: power by which the rate falls, a finite number >= 0; default 0.75.
        t0: the step after which averaging starts, a number >= 0; default 1000000.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        lambd: float = 0.0001,
        alpha: float = 0.75,
        t0: float = 1000000.0,
        weight_decay: float = 0.0,
        maximize: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class LaProp(Optimizer):
    """LaProp: the gradient over the root of its running mean square, then momentum of that, with the rate inside.

    Formula::

        a <- beta1 * a + (1 - beta1) * lr                              a, b: exp_avg_lr_1, exp_avg_lr_2, from 0
        b <- beta2 * b + 1 - beta2
        v <- beta2 * v + (1 - beta2) * g**2
        m <- beta1 * m + (1 - beta1) * lr * g / (sqrt(v / b) + eps)
        p <- (p - lr / a * m) * (1 - lr * weight_decay)                no step while a is 0

    Paper: Ziyin, Wang & Ueda 2020, "LaProp: Separating Momentum and Adaptivity in Adam".

    As timm's LaProp, whose checkpoints load. Its ``exp_avg_lr_1`` has float64's bits, here float32's unless torch's
    default dtype is float64. Differs in rounding only.

    When to use it: where Adam wants a small beta2 or a large beta1: momentum and adaptivity do not disturb each other.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.LaProp([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w
    array([ 0.5, -1.5])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.0004.
        betas: factors of m, and of the running mean of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-15.
        weight_decay: the parameter is multiplied by ``1 - lr * weight_decay`` after the step, a finite number >= 0;
            default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.0004,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Lion(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.0001.
        betas: factors of m: in the direction, and from step to step, 0 <= each of betas < 1; default (0.9, 0.99).
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class NAdam(Optimizer):
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

    When to use it: where Adam is, for a faster start at the same rate.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.NAdam([w], lr=0.5, momentum_decay=0.0)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.4718, -1.4718])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum_decay: how fast the momentum grows to beta1, a finite number >= 0; default 0.004.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class RAdam(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class RMSprop(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.01.
        alpha: factor of the running averages, a finite number >= 0; default 0.99.
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum: factor of the running direction; 0: none, and no state for it, a finite number >= 0; default 0.0.
        centered: divide by the standard deviation rather than by the root of the mean square; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        maximize: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Rprop(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.01.
        etas: factors of a step size, 0 < etas[0] < 1; 1 < etas[1] < inf; default (0.5, 1.2).
        step_sizes: the least and the largest step size, a number >= 0; default (1e-06, 50).
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-06, 50),
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class SGD(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        momentum: factor of the running direction; 0: none, and no state, a finite number >= 0; default 0.0.
        dampening: the gradient counts ``1 - dampening`` in the running direction, a finite number; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        nesterov: look one momentum step ahead; needs a ``momentum`` and no ``dampening``; default False.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class SignSGD(Optimizer):
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

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.001.
        momentum: factor of the running mean; 0: none, and no state, 0 <= momentum < 1; default 0.9.
        weight_decay: decay of the parameter, by ``lr * weight_decay``; L2 without ``weight_decouple``, a finite
            number >= 0; default 0.0.
        weight_decouple: decay the parameter itself, as AdamW does; else ``weight_decay * p`` is added to g; default
            True.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        weight_decouple: bool = True,
        maximize: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...

class Yogi(Optimizer):
    """Yogi: Adam whose mean square moves by a part of the squared gradient, and not by a part of its own size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- v - (1 - beta2) * sign(v - g**2) * g**2
        p <- p - lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)                         ci = 1 - betai**step

    Paper: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization".

    As torch_optimizer's Yogi, whose checkpoints load: m and v both start at ``initial_accumulator``. Differs in
    rounding only.

    When to use it: where gradients are sparse or rarely large: v forgets a large gradient slowly, so that the rate does
    not jump up.

    >>> import numpy as np, fusedstep.numpy
    >>> w = np.array([1.0, -2.0])
    >>> opt = fusedstep.numpy.Yogi([w], lr=0.5)
    >>> opt.step([np.array([0.1, -3.0])])
    >>> w.round(4)
    array([ 0.5277, -1.5002])

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own.
        lr: learning rate, a finite number >= 0; default 0.01.
        betas: factor of the mean of g; 1 - beta2 is v's share of g**2, 0 <= each of betas < 1; default (0.9,
            0.999).
        eps: added to the root, a finite number >= 0; default 0.001.
        initial_accumulator: what m and v start from, a finite number >= 0; default 1e-06.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, seed, l1, mask, cautious, cautious_decay, decay_mode,
            ema_decay, ema_warmup, stats, decay_lr: see :class:`Optimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 0.001,
        initial_accumulator: float = 1e-06,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: DTypeLike | Mapping[str, DTypeLike] | None = None,
        seed: int = 0,
        l1: float = 0.0,
        mask: Literal["nonzero"] | None = None,
        cautious: Literal[False, "unscaled"] = False,
        cautious_decay: bool = False,
        decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
        ema_decay: float | None = None,
        ema_warmup: Literal["linear", "mean", "power"] | Mapping[str, Any] | None = None,
        stats: bool = False,
        decay_lr: float | None = None,
    ) -> None: ...
