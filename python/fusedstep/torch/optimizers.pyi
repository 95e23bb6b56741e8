# Written by tools/generate.py from fusedstep.rules.
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, dtype

from .._rule import Option
from ._base import FusedOptimizer

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]

OURS: dict[str, Option]

class Adadelta(FusedOptimizer, torch.optim.Adadelta):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 1.0.
        rho: factor of the running means of squares, 0 <= rho <= 1; default 0.9.
        eps: added to both mean squares, a finite number >= 0; default 1e-06.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        foreach: refused if True: all tensors are updated in one pass here.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class Adagrad(FusedOptimizer, torch.optim.Adagrad):
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    Formula::

        s <- s + g**2
        p <- p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)

    Paper: Duchi, Hazan & Singer 2011.

    As :class:`torch.optim.Adagrad`: eps outside the root. Differs in rounding only.

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.01.
        lr_decay: the rate of step t is ``lr / (1 + (t - 1) * lr_decay)``, a finite number >= 0; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        initial_accumulator_value: what the sums of squares start from, a finite number >= 0; default 0.0.
        eps: added to the root, a finite number >= 0; default 1e-10.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        fused: True leaves unscaling and skipped steps of a GradScaler to the step.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class Adam(FusedOptimizer, torch.optim.Adam):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        amsgrad: divide by the root of the largest mean square so far; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        differentiable: refused if True; default False.
        fused: True leaves unscaling and skipped steps of a GradScaler to the step.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class Adamax(FusedOptimizer, torch.optim.Adamax):
    """Adamax: a running mean of the gradient over a decaying maximum of its size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, abs(g) + eps)
        p <- p - lr / (1 - beta1**step) * m / u

    Paper: Kingma & Ba 2015, algorithm 2.

    When to use it: where gradients are sparse or have rare large values, as those of embeddings; no square is formed
    that could overflow, and no update is larger than about ``lr``.

    As :class:`torch.optim.Adamax`: eps is added within the maximum, which keeps a NaN. Differs in rounding only.

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running mean and of the maximum, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the gradient's size, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.002,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class AdamW(FusedOptimizer, torch.optim.AdamW):
    """:class:`Adam` with decoupled weight decay: the parameter itself shrinks, and no moment sees it.

    Formula::

        p <- (1 - lr * weight_decay) * p, then Adam's with the gradient alone

    Paper: Loshchilov & Hutter 2019.

    As :class:`torch.optim.AdamW`. Differs as :class:`Adam` does, in rounding only.

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.01.
        amsgrad: divide by the root of the largest mean square so far; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        differentiable: refused if True; default False.
        fused: True leaves unscaling and skipped steps of a GradScaler to the step.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class ASGD(FusedOptimizer, torch.optim.ASGD):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.01.
        lambd: decay of the parameters and of the rate, a finite number >= 0; default 0.0001.
        alpha: power by which the rate falls, a finite number >= 0; default 0.75.
        t0: the step after which averaging starts, a finite number; default 1000000.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.01,
        lambd: float = 0.0001,
        alpha: float = 0.75,
        t0: float = 1000000.0,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class Lion(FusedOptimizer):
    """Lion: steps of one size, in the direction of the sign of an average of gradient and momentum.

    Formula::

        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g                    both with the m of before

    Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.

    Differs from torch-like implementations (google/automl, lion-pytorch, timm) for a NaN alone: sign(NaN) is NaN, where
    torch.sign gives 0 and the weight would be frozen in silence. sign(0) is 0. Weight decay is decoupled.

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.0001.
        betas: factors of m: in the direction, and from step to step, 0 <= each of betas < 1; default (0.9, 0.99).
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.0.
        maximize: ascend instead of descend; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.0001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class NAdam(FusedOptimizer, torch.optim.NAdam):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum_decay: how fast the momentum grows to beta1, a finite number >= 0; default 0.004.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        differentiable: refused if True; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.002,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class RAdam(FusedOptimizer, torch.optim.RAdam):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        differentiable: refused if True; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class RMSprop(FusedOptimizer, torch.optim.RMSprop):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.01.
        alpha: factor of the running averages, a finite number >= 0; default 0.99.
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum: factor of the running direction; 0: none, and no state for it, a finite number >= 0; default 0.0.
        centered: divide by the standard deviation rather than by the root of the mean square; default False.
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class Rprop(FusedOptimizer, torch.optim.Rprop):
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

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.01.
        etas: factors of a step size, 0 < etas[0] < 1; 1 < etas[1] < inf; default (0.5, 1.2).
        step_sizes: the least and the largest step size, a number >= 0; default (1e-06, 50).
        capturable: step counts live on the device, so that CUDA graphs can hold a step; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        maximize: ascend instead of descend; default False.
        differentiable: refused if True; default False.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.01,
        etas: tuple[float | Tensor, float | Tensor] = (0.5, 1.2),
        step_sizes: tuple[float | Tensor, float | Tensor] = (1e-06, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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

class SGD(FusedOptimizer, torch.optim.SGD):
    """Gradient descent; with ``momentum``, SGD with momentum, dampening and Nesterov's variant.

    Formula::

        p <- p - lr * g                                     without momentum

        b <- g                                              first step
        b <- momentum * b + (1 - dampening) * g             later steps
        p <- p - lr * (g + momentum * b if nesterov else b)

    Papers: Polyak 1964; Nesterov's variant: Sutskever et al. 2013, section 2.

    As :class:`torch.optim.SGD`, which takes the first gradient undampened too. Differs in rounding only.

    Args:
        params: tensors, named tensors or groups, as torch.optim takes them.
        lr: learning rate, a finite number >= 0; default 0.001.
        momentum: factor of the running direction; 0: none, and no state, a finite number >= 0; default 0.0.
        dampening: the gradient counts ``1 - dampening`` in the running direction, a finite number; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        nesterov: look one momentum step ahead; needs a ``momentum`` and no ``dampening``; default False.
        maximize: ascend instead of descend; default False.
        foreach: refused if True: all tensors are updated in one pass here.
        differentiable: refused if True; default False.
        fused: True leaves unscaling and skipped steps of a GradScaler to the step.
        max_norm, clip_value, nonfinite, state_dtype, error_if_nonfinite, seed, grad_attr, norm_group, l1, mask,
            cautious, cautious_decay, decay_mode, ema_decay, ema_warmup, stats, decay_lr: see
            :class:`FusedOptimizer`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        state_dtype: str | dtype | Mapping[str, str | dtype] | None = None,
        error_if_nonfinite: bool = False,
        seed: int = 0,
        grad_attr: str = "grad",
        norm_group: Any = None,
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
