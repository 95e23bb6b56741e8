"""``torch.nn.utils.clip_grad``, with the norm in float64 and in a fixed order, and one pass to scale."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from types import GeneratorType

import torch

from .. import _core
from ..functional import check_limit, check_norm_type
from ._base import bump_versions, refuse

Tensors = torch.Tensor | Iterable[torch.Tensor]


def _listed(label: str, tensors: Tensors) -> list[torch.Tensor]:
    if isinstance(tensors, torch.Tensor):
        return [tensors]
    listed = list(tensors)
    if not listed and isinstance(tensors, GeneratorType):
        warnings.warn(f"{label}: the generator of tensors is empty, perhaps used up by an earlier call", stacklevel=3)
    return listed


def _grads(label: str, parameters: Tensors) -> list[torch.Tensor]:
    return [p.grad for p in _listed(label, parameters) if p.grad is not None]


def _as_tensor(norm: float, tensors: list[torch.Tensor]) -> torch.Tensor:
    dtypes = {t.dtype.to_real() for t in tensors}
    return torch.tensor(norm, dtype=functools.reduce(torch.promote_types, dtypes) if dtypes else None)


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_`: scale the gradients in place to a total norm of at most ``max_norm``.

    The norm is computed in float64, so that it does not overflow where the gradients do not, and clips right even
    where the returned tensor, which has the gradients' dtype as in torch, is infinite. ``max_norm=`` of an optimizer
    here clips within the step instead and never writes the gradients.
    """
    refuse("clip_grad_norm_", foreach=foreach)
    grads = _grads("clip_grad_norm_", parameters)
    norm = _core.clip_norm(
        grads,
        label="clip_grad_norm_",
        max_norm=check_limit("clip_grad_norm_", "max_norm", max_norm),
        norm_type=check_norm_type("clip_grad_norm_", norm_type),
        per_tensor=False,
        error_if_nonfinite=error_if_nonfinite,
        total_norm=None,
    )
    bump_versions(grads)
    assert isinstance(norm, float)
    return _as_tensor(norm, grads)


@torch.no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """:func:`torch.nn.utils.clip_grad_value_`: bound every element of the gradients in place."""
    refuse("clip_grad_value_", foreach=foreach)
    grads = _grads("clip_grad_value_", parameters)
    value = check_limit("clip_grad_value_", "clip_value", clip_value)
    _core.clip_value(grads, label="clip_grad_value_", value=value)
    bump_versions(grads)


@torch.no_grad()
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> torch.Tensor:
    """:func:`torch.nn.utils.get_total_norm`: the norm of all elements, in the first tensor's dtype."""
    refuse("get_total_norm", foreach=foreach)
    listed = _listed("get_total_norm", tensors)
    norm = _core.norm(
        listed,
        label="get_total_norm",
        arg="tensors",
        norm_type=check_norm_type("get_total_norm", norm_type),
        per_tensor=False,
        error_if_nonfinite=error_if_nonfinite,
    )
    assert isinstance(norm, float)
    return _as_tensor(norm, listed)


@torch.no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: torch.Tensor, foreach: bool | None = None
) -> None:
    """:func:`torch.nn.utils.clip_grads_with_norm_`: scale the gradients in place, given their norm."""
    refuse("clip_grads_with_norm_", foreach=foreach)
    grads = _grads("clip_grads_with_norm_", parameters)
    _core.clip_norm(
        grads,
        label="clip_grads_with_norm_",
        max_norm=check_limit("clip_grads_with_norm_", "max_norm", max_norm),
        norm_type=2.0,
        per_tensor=False,
        error_if_nonfinite=False,
        total_norm=float(total_norm),
    )
    bump_versions(grads)
