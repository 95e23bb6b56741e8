"""The specification: what every kernel computes, in plain NumPy, operation by operation.

Each backend equals these functions bit for bit (a NaN equals a NaN), for any instruction set, thread count and memory
layout. They are written to be read, and are slow.

Two rules make that possible. Element-wise arithmetic uses only ``+ - * / sqrt``, comparison and select, each rounded
once to the dtype of the arrays. Whatever is constant during a step is computed in float64 and rounded once.

An optimizer's function takes ``(param, grad, *states)`` and returns new arrays ``(param, *states)``. Its variant is
chosen by the state arrays given: ``rmsprop`` with a ``grad_avg`` is centered. The functions are made from
``fusedstep.rules``: first :func:`before`, then the rule's direction d, then :func:`after`, which is p - d where nothing
rides along. All accept the keywords of both. With ``ema``, the moving average of the parameter, they return its new
value at the end. ``stats``, a float64 array of 7, is filled with :func:`statistics`.

Arrays may be stored in 16 bits, each in its own format: bfloat16 (arrays of the package ``ml_dtypes``) or float16. They
are read with :func:`decode`, which is exact. The step is computed in float32. :func:`encode` stores each result in the
dtype of the array that it replaces: to nearest, ties to even. A mean or sum of squares in bfloat16 is rounded
stochastically instead. Its random numbers follow from ``seed``, ``step``, the number ``tensor`` of the parameter, the
state array and the element's row-major index (:func:`stochastic_key`, :func:`random_bits`), so they too are specified.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .._arithmetic import (
    Array,
    after,
    before,
    decay_of,
    ema_weight,
    fs_exp,
    fs_log,
    fs_pow,
    kept,
    masked,
    maximum,
    maximum_nan,
    minimum,
    moved_average,
    power,
    rounded,
    sign,
)
from .._formats import decode, encode, encode_like, random_bits, stochastic_key
from . import _specified
from ._specified import *  # noqa: F403
from ._sums import NORM_BLOCK, NORM_LANES, STATISTICS, block_sums, statistics, tree

__all__ = [
    "NORM_BLOCK",
    "NORM_LANES",
    "STATISTICS",
    "after",
    "before",
    "block_sums",
    "clip",
    "clip_coefficient",
    "decay_of",
    "decode",
    "ema_weight",
    "encode",
    "fs_exp",
    "fs_log",
    "fs_pow",
    "kept",
    "masked",
    "maximum",
    "maximum_nan",
    "minimum",
    "moved_average",
    "norm_over_ranks",
    "power",
    "random_bits",
    "rounded",
    "sign",
    "statistics",
    "stochastic_key",
    "total_norm",
    "tree",
]
__all__ += _specified.__all__


def total_norm(arrays: Sequence[Array], norm_type: float = 2.0) -> float:
    """The norm of all elements of all arrays, as one vector: 1, 2 and inf bit for bit, other p > 0 to a few ulp.

    A tree over the blocks of each array, then a tree over the arrays. Other p: ``sum(|x|**p) ** (1/p)``, scaled by the
    largest ``|x|`` so that no power overflows.
    """
    if norm_type not in (1, 2, math.inf):
        with np.errstate(all="ignore"):
            every = [np.ravel(decode(np.asarray(a))) for a in arrays]
            flat = np.abs(np.concatenate([np.zeros(0), *every]).astype(np.float64))
        largest = float(flat.max(initial=0.0))
        if largest == 0 or not math.isfinite(largest):
            return largest
        return largest * float(np.sum((flat / largest) ** norm_type) ** (1.0 / norm_type))
    total = tree(np.array([tree(block_sums(a, norm_type), norm_type) for a in arrays]), norm_type)
    return math.sqrt(total) if norm_type == 2 else total


def norm_over_ranks(sums: Sequence[Sequence[float]], norm_type: float = 2.0) -> float:
    """The norm over the ranks of a sharded model, from what each tensor of each rank adds to it: ``sums[rank][k]`` is
    ``tree(block_sums(...))`` of that rank's k-th tensor. Tensor by tensor in the order of the ranks, missing ones zero,
    then the tree over tensors. Of order 1, 2 or inf."""
    fold = np.maximum if norm_type == math.inf else np.add
    added = np.zeros(max(map(len, sums), default=0))
    for own in sums:
        added[: len(own)] = fold(added[: len(own)], own)
    total = tree(added, norm_type)
    return math.sqrt(total) if norm_type == 2 else total


def clip_coefficient(norm: float, max_norm: float) -> float:
    """``min(1, max_norm / (norm + 1e-6))``, NaN for a NaN: :func:`torch.nn.utils.clip_grad_norm_`, in float64."""
    coefficient = max_norm / (norm + 1e-6)
    return 1.0 if coefficient > 1 else coefficient


def clip(grad: Array, *, clip_coef: float = 1.0, clip_value: float | None = None) -> tuple[Array]:
    """A gradient clipped in place: multiplied by ``clip_coef``, then bounded by ``clip_value``, stored to nearest."""
    x = decode(grad)
    with np.errstate(all="ignore"):
        return (encode_like(before(x, x, 0.0, clip_coef=clip_coef, clip_value=clip_value)[1], grad),)
