from __future__ import annotations

import inspect
from typing import Any, Literal

import torch

from .. import _rules
from ._base import FusedOptimizer, new_step

_TORCH_DECOUPLES = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters  # from 2.7 on
Nonfinite = Literal["propagate", "skip", "raise"]


def _two(label: str, betas: Any) -> Any:
    """Any sequence of two, as torch's constructor takes them."""
    _rules.check(label, {"betas": betas})
    return tuple(b if isinstance(b, torch.Tensor) else float(b) for b in (betas[0], betas[1]))


class SGD(FusedOptimizer, torch.optim.SGD):  # type: ignore[override]  # _step_supports_amp_scaling is a property
    """:class:`torch.optim.SGD` in one pass: gradient descent, momentum, dampening, Nesterov.

    Args:
        max_norm, clip_value, nonfinite, error_if_nonfinite, norm_group: see :class:`FusedOptimizer`; the others are
            torch's.
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
        nonfinite: Nonfinite = "propagate",
        norm_group: Any = None,
    ) -> None:
        limits = (max_norm, clip_value, error_if_nonfinite, nonfinite, norm_group)
        self._start(*limits, foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)


class Adagrad(FusedOptimizer, torch.optim.Adagrad):  # type: ignore[override]  # _step_supports_amp_scaling is a property
    """:class:`torch.optim.Adagrad` (Duchi, Hazan & Singer 2011) in one pass.

    Args:
        max_norm, clip_value, nonfinite, error_if_nonfinite, norm_group: see :class:`FusedOptimizer`; the others are
            torch's.
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
        nonfinite: Nonfinite = "propagate",
        norm_group: Any = None,
    ) -> None:
        limits = (max_norm, clip_value, error_if_nonfinite, nonfinite, norm_group)
        self._start(*limits, foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize=maximize)
        for state in self.state.values():
            state["step"] = new_step("cpu")  # torch's constructor puts it on the default device


class RMSprop(FusedOptimizer, torch.optim.RMSprop):
    """:class:`torch.optim.RMSprop` (Hinton 2012) in one pass: centered, momentum.

    Args:
        max_norm, clip_value, nonfinite, error_if_nonfinite, norm_group: see :class:`FusedOptimizer`; the others are
            torch's.
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
        nonfinite: Nonfinite = "propagate",
        norm_group: Any = None,
    ) -> None:
        limits = (max_norm, clip_value, error_if_nonfinite, nonfinite, norm_group)
        self._start(*limits, foreach=foreach, differentiable=differentiable)
        super().__init__(params, lr, alpha, eps, weight_decay, momentum, centered, capturable, maximize=maximize)


class Adam(FusedOptimizer, torch.optim.Adam):  # type: ignore[override]  # _step_supports_amp_scaling is a property
    """:class:`torch.optim.Adam` (Kingma & Ba 2015; AMSGrad: Reddi, Kale & Kumar 2018) in one pass.

    Args:
        max_norm, clip_value, nonfinite, error_if_nonfinite, norm_group: see :class:`FusedOptimizer`; the others are
            torch's.
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
        nonfinite: Nonfinite = "propagate",
        norm_group: Any = None,
    ) -> None:
        torchs: dict[str, Any] = {"fused": fused}
        if decoupled_weight_decay or _TORCH_DECOUPLES:  # else groups, and so checkpoints, are without the key
            torchs["decoupled_weight_decay"] = decoupled_weight_decay
        limits = (max_norm, clip_value, error_if_nonfinite, nonfinite, norm_group)
        self._start(*limits, foreach=foreach, differentiable=differentiable, **torchs)
        super().__init__(
            params,
            lr,
            _two(type(self).__name__, betas),
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            capturable=capturable,
        )


class AdamW(FusedOptimizer, torch.optim.AdamW):  # type: ignore[override]  # _step_supports_amp_scaling is a property
    """:class:`torch.optim.AdamW` (Loshchilov & Hutter 2019) in one pass.

    Args:
        max_norm, clip_value, nonfinite, error_if_nonfinite, norm_group: see :class:`FusedOptimizer`; the others are
            torch's.
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
        nonfinite: Nonfinite = "propagate",
        norm_group: Any = None,
    ) -> None:
        limits = (max_norm, clip_value, error_if_nonfinite, nonfinite, norm_group)
        self._start(*limits, foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(
            params,
            lr,
            _two(type(self).__name__, betas),
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            capturable=capturable,
        )
