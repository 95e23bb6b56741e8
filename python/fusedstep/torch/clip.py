"""``torch.nn.utils.clip_grad``, with the norm in float64 and in a fixed order, and one pass to scale."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import GeneratorType
from typing import Any

import torch

from .. import _arguments as check
from .. import _core
from . import _mesh, _ranks
from ._base import norm_out, outside_dynamo, raise_versions, refuse
from ._release import check_not_released
from ._run import on_gpu
from ._warn import warn

Tensors = torch.Tensor | Iterable[torch.Tensor]
_SHORT = (torch.bfloat16, torch.float16)


def _listed(label: str, tensors: Tensors) -> list[torch.Tensor]:
    if isinstance(tensors, torch.Tensor):
        return [tensors]
    listed = list(tensors)
    if not listed and isinstance(tensors, GeneratorType):
        warn(f"{label}: the generator of tensors is empty, perhaps used up by an earlier call")
    return listed


def _params(label: str, parameters: Tensors) -> list[torch.Tensor]:
    """Each once: torch counts and scales tied ones as often as they are listed."""
    listed = _listed(label, parameters)
    once = {id(p): p for p in listed}
    if len(once) < len(listed):
        warn(
            f"{label}: {len(listed) - len(once)} of {len(listed)} parameters are listed twice (tied weights?); each is "
            "counted and scaled once"
        )
    params = list(once.values())
    _mesh.align_gradients(params)
    if all(p.grad is None for p in params):
        check_not_released(label, params)
    return params


def _grads(params: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.grad for p in params if p.grad is not None]


def _numbered(label: str, parameters: Tensors) -> tuple[list[torch.Tensor], list[int]]:
    """The parameters, and the numbers of those that have a gradient."""
    params = _params(label, parameters)
    return params, [k for k, p in enumerate(params) if p.grad is not None]


def _device(tensors: list[torch.Tensor]) -> torch.device | None:
    """The GPU where they are, if they are on one. Of parameters, so that a rank without gradients has the same."""
    return tensors[0].device if tensors and on_gpu(tensors[0]) else None


def _as_tensor(norm: Any, out: torch.Tensor | None, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The norm in the tensors' dtype, and where it is: returned by the core, or left in ``out``. That of 16-bit tensors
    is float32: bfloat16 has 8 bits, and float16 ends at 65,504."""
    dtypes = {torch.float32 if t.dtype in _SHORT else t.dtype.to_real() for t in tensors}
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.get_default_dtype()
    if norm is None and out is not None:
        return out.to(dtype)
    return torch.tensor(norm, dtype=dtype, device="cpu" if out is None else out.device)


def _number_beside(grads: list[torch.Tensor], number: Any) -> Any:
    """A number where the gradients are: a float64 tensor on their device, a float on the CPU. torch's norm of DTensors
    may be one that ranks have yet to add up."""
    if _mesh.is_sharded(number):
        number = number.full_tensor()
    if not grads or not on_gpu(grads[0]):
        return float(number)
    return torch.as_tensor(number, dtype=torch.float64).to(grads[0].device, non_blocking=True)


@outside_dynamo
@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    norm_group: Any = None,
) -> torch.Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_`: scale the gradients in place to a total norm of at most ``max_norm``.

    The norm is computed in float64, so that it does not overflow where the gradients do not, and clips right even
    where the returned tensor is infinite. That has the gradients' dtype as in torch, but float32 for 16-bit gradients.
    On CUDA devices nothing waits, unless ``error_if_nonfinite`` or ``norm_group``, and orders are 1, 2 and inf.
    ``max_norm=`` of an optimizer here clips within the step instead and never writes the gradients.

    Args:
        norm_group: a process group whose ranks hold the rest of a sharded model: the norm is that of all of them. Every
            rank must call; an error on one raises on all, and nothing changes.
    """
    label = "clip_grad_norm_"
    _ranks.check_group(label, norm_group)
    params, numbers = _ranks.told(label, norm_group, lambda: _numbered(label, parameters))
    grads = _grads(params)

    def clip(over_ranks: Any) -> torch.Tensor:
        refuse(label, foreach=foreach)
        _mesh.check_gradients(label, params)
        out = norm_out(grads)
        norm = _core.clip_norm(
            grads,
            label=label,
            max_norm=check.LIMIT.check(label, "max_norm", max_norm),
            norm_type=check.norm_type(label, norm_type),
            per_tensor=False,
            error_if_nonfinite=error_if_nonfinite,
            total_norm=None,
            norm_out=out,
            stream=None,
            over_ranks=over_ranks,
            before_write=raise_versions,
        )
        return _as_tensor(norm, out, grads)

    return _ranks.together(
        label, norm_group, _mesh.dimensions(params, range(len(params))), clip, norm_type, numbers, _device(params)
    )


@outside_dynamo
@torch.no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """:func:`torch.nn.utils.clip_grad_value_`: bound every element of the gradients in place."""
    refuse("clip_grad_value_", foreach=foreach)
    params = _params("clip_grad_value_", parameters)
    _mesh.check_gradients("clip_grad_value_", params)
    grads = _grads(params)
    value = check.LIMIT.check("clip_grad_value_", "clip_value", clip_value)
    _core.clip_value(grads, label="clip_grad_value_", value=value, stream=None, before_write=raise_versions)


@outside_dynamo
@torch.no_grad()
def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    norm_group: Any = None,
) -> torch.Tensor:
    """:func:`torch.nn.utils.get_total_norm`: the norm of all elements, in the real dtype that the tensors' promote to;
    in float32 for 16-bit tensors.

    Args:
        norm_group: as for :func:`clip_grad_norm_`.
    """
    label = "get_total_norm"
    _ranks.check_group(label, norm_group)
    listed = _ranks.told(label, norm_group, lambda: _mesh.added_up(_listed(label, tensors)))

    def measure(over_ranks: Any) -> torch.Tensor:
        refuse(label, foreach=foreach)
        out = norm_out(listed)
        norm = _core.norm(
            listed,
            label=label,
            arg="tensors",
            norm_type=check.norm_type(label, norm_type),
            per_tensor=False,
            error_if_nonfinite=error_if_nonfinite,
            norm_out=out,
            stream=None,
            over_ranks=over_ranks,
        )
        return _as_tensor(norm, out, listed)

    return _ranks.together(
        label, norm_group, _mesh.dimensions(listed, range(len(listed))), measure, norm_type, device=_device(listed)
    )


@outside_dynamo
@torch.no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: torch.Tensor, foreach: bool | None = None
) -> None:
    """:func:`torch.nn.utils.clip_grads_with_norm_`: scale the gradients in place, given their norm."""
    refuse("clip_grads_with_norm_", foreach=foreach)
    params = _params("clip_grads_with_norm_", parameters)
    _mesh.check_gradients("clip_grads_with_norm_", params)
    grads = _grads(params)
    _core.clip_norm(
        grads,
        label="clip_grads_with_norm_",
        max_norm=check.LIMIT.check("clip_grads_with_norm_", "max_norm", max_norm),
        norm_type=2.0,
        per_tensor=False,
        error_if_nonfinite=False,
        total_norm=_number_beside(grads, total_norm),
        norm_out=None,
        stream=None,
        before_write=raise_versions,
    )
