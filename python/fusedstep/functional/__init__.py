"""Optimizer updates and clipping, in place, on arrays.

Every function takes one array or a list of arrays: NumPy arrays, torch tensors, CuPy arrays, or anything else that
speaks DLPack, on the CPU or on CUDA devices (not both in one call), of any strides.
``grads`` and the state lists match ``params`` in length, and each array its parameter in shape. State arrays start at
zero and are kept by the caller.

A parameter is float32, bfloat16 or float16, its gradient any of these, and each of its state arrays float32 or
bfloat16. All is computed in float32. NumPy's bfloat16 arrays are those of ml_dtypes. Or parameter, gradient and state
have one dtype: float64, complex64 or complex128 (complex numbers are updated as pairs of reals).
In bfloat16 running means of squares are rounded stochastically, by random numbers of ``seed``, ``step``, ``tensor`` and
the place of the element; everything else is rounded to nearest. Where the difference of two state arrays counts
(``rmsprop`` with ``grad_avgs``), they have to be float32.

What rides along is explained in docs/ride-alongs.md: ``l1``, ``cautious``, ``cautious_decay``, ``decay_mode``,
``masks``, ``emas`` and ``stats_out``. With ``emas`` a gradient may be None; that parameter's average follows it.

An array that is written must be known to be mutable: JAX's arrays and read-only ones are refused there. Masked arrays
are refused everywhere.

Everything is validated before anything is written: after an exception, every array is as it was. ``TypeError`` and
``ValueError`` name the argument and its index. Results equal :mod:`fusedstep.reference` bit for bit.

On CUDA devices a call puts its work on ``stream`` (the address of a CUDA stream as an int; default: torch's current one
for torch tensors, else the legacy default stream) and returns without waiting, unless a norm is to be returned as a
float. With ``norm_out``, a float64 array on the device of one element (``per_tensor``: one per gradient), the norm is
left there, and nothing waits. Norms are of order 1, 2 or inf there. On the CPU ``norm_out`` is refused, and a
``stream`` has no meaning. Empty lists are on no device: ``norm_out`` stays as it is, and the norm is returned.
"""

from __future__ import annotations

from typing import Any

from .. import _arguments as check
from .. import _core
from . import _updates
from ._updates import *  # noqa: F403
from ._updates import Arrays

__all__ = ["clip_grad_norm", "clip_grad_value", "total_norm"]
__all__ += _updates.__all__


def _whole(label: str, arg: str, arrays: Arrays) -> list[Any]:
    """A list of arrays; TypeError for a DTensor, whose norm needs other ranks."""
    listed = check.arrays(arrays)
    if any(hasattr(kind, "_local_tensor") for kind in set(map(type, listed))):
        k = next(k for k, x in enumerate(listed) if hasattr(type(x), "_local_tensor"))
        raise TypeError(
            f"{label}: {arg}[{k}] is a DTensor, expected a plain tensor: clip_grad_norm_ and get_total_norm of "
            "fusedstep.torch see the whole of it"
        )
    return listed


def total_norm(
    arrays: Arrays,
    norm_type: float = 2.0,
    *,
    per_tensor: bool = False,
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
) -> Any:
    """The norm of all elements of ``arrays`` as one vector, a float; a list of one norm each with ``per_tensor``.

    Computed in float64 in a fixed order: the same bits for any thread count, target and layout (``norm_type`` 1, 2 and
    inf; any other p > 0 to a few ulp). Squares of float32 do not overflow. 0.0 for no arrays.

    Raises:
        RuntimeError: the norm is not finite and ``error_if_nonfinite``.
    """
    return _core.norm(
        _whole("total_norm", "arrays", arrays),
        label="total_norm",
        arg="arrays",
        norm_type=check.norm_type("total_norm", norm_type),
        per_tensor=check.flag("total_norm", "per_tensor", per_tensor),
        error_if_nonfinite=check.flag("total_norm", "error_if_nonfinite", error_if_nonfinite),
        norm_out=norm_out,
        stream=check.stream("total_norm", stream),
    )


def clip_grad_norm(
    grads: Arrays,
    max_norm: float,
    norm_type: float = 2.0,
    *,
    per_tensor: bool = False,
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
) -> Any:
    """Scale ``grads`` in place so that their norm, as one vector, is at most ``max_norm``.

    ``per_tensor`` clips each array on its own. Prefer ``max_norm=`` of an update, which never writes the gradients.

    Returns:
        The norm before clipping as a float, or a list with ``per_tensor``.

    Raises:
        RuntimeError: the norm is not finite and ``error_if_nonfinite``; nothing was changed.
    """
    return _core.clip_norm(
        _whole("clip_grad_norm", "grads", grads),
        label="clip_grad_norm",
        max_norm=check.LIMIT.check("clip_grad_norm", "max_norm", max_norm),
        norm_type=check.norm_type("clip_grad_norm", norm_type),
        per_tensor=check.flag("clip_grad_norm", "per_tensor", per_tensor),
        error_if_nonfinite=check.flag("clip_grad_norm", "error_if_nonfinite", error_if_nonfinite),
        total_norm=None,
        norm_out=norm_out,
        stream=check.stream("clip_grad_norm", stream),
    )


def clip_grad_value(grads: Arrays, clip_value: float, *, stream: int | None = None) -> None:
    """Bound every element of ``grads`` to [-``clip_value``, ``clip_value``], in place. NaN stays NaN."""
    _core.clip_value(
        check.arrays(grads),
        label="clip_grad_value",
        value=check.LIMIT.check("clip_grad_value", "clip_value", clip_value),
        stream=check.stream("clip_grad_value", stream),
    )
