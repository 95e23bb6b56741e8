from __future__ import annotations

from typing import Any

import torch

from .. import _rules
from ._base import FusedOptimizer


class SGD(FusedOptimizer, torch.optim.SGD):
    """:class:`torch.optim.SGD` in one pass: gradient descent, momentum, dampening, Nesterov.

    Args:
        max_norm, clip_value, error_if_nonfinite: see :class:`FusedOptimizer`; the others are torch's.
    """

    _rule = _rules.SGD

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        error_if_nonfinite: bool = False,
    ) -> None:
        self._start(max_norm, clip_value, error_if_nonfinite, foreach=foreach, differentiable=differentiable)
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)


class Adagrad(FusedOptimizer, torch.optim.Adagrad):
    """:class:`torch.optim.Adagrad` (Duchi, Hazan & Singer 2011) in one pass.

    Args:
        max_norm, clip_value, error_if_nonfinite: see :class:`FusedOptimizer`; the others are torch's.
    """

    _rule = _rules.ADAGRAD

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        error_if_nonfinite: bool = False,
    ) -> None:
        self._start(max_norm, clip_value, error_if_nonfinite, foreach=foreach, differentiable=differentiable)
        super().__init__(params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize=maximize)


class RMSprop(FusedOptimizer, torch.optim.RMSprop):
    """:class:`torch.optim.RMSprop` (Hinton 2012) in one pass: centered, momentum.

    Args:
        max_norm, clip_value, error_if_nonfinite: see :class:`FusedOptimizer`; the others are torch's.
    """

    _rule = _rules.RMSPROP

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        max_norm: float | None = None,
        clip_value: float | None = None,
        error_if_nonfinite: bool = False,
    ) -> None:
        self._start(max_norm, clip_value, error_if_nonfinite, foreach=foreach, differentiable=differentiable)
        super().__init__(params, lr, alpha, eps, weight_decay, momentum, centered, capturable, maximize=maximize)


class Adam(FusedOptimizer, torch.optim.Adam):
    """:class:`torch.optim.Adam` (Kingma & Ba 2015; AMSGrad: Reddi, Kale & Kumar 2018) in one pass.

    Args:
        max_norm, clip_value, error_if_nonfinite: see :class:`FusedOptimizer`; the others are torch's.
    """

    _rule = _rules.ADAM

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
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
        error_if_nonfinite: bool = False,
    ) -> None:
        more = {"decoupled_weight_decay": decoupled_weight_decay}  # torch's own constructor has it from 2.7 only
        self._start(max_norm, clip_value, error_if_nonfinite, foreach=foreach, differentiable=differentiable, **more)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, capturable=capturable)


class AdamW(FusedOptimizer, torch.optim.AdamW):
    """:class:`torch.optim.AdamW` (Loshchilov & Hutter 2019) in one pass.

    Args:
        max_norm, clip_value, error_if_nonfinite: see :class:`FusedOptimizer`; the others are torch's.
    """

    _rule = _rules.ADAMW

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        error_if_nonfinite: bool = False,
    ) -> None:
        self._start(max_norm, clip_value, error_if_nonfinite, foreach=foreach, differentiable=differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, capturable=capturable)
