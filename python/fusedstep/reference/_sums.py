"""Sums in their fixed order, and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arithmetic import Array, kept, masked, rounded
from .._formats import decode

NORM_BLOCK = 2048
"""Elements of one block of a sum; block ``i`` starts at element ``i * NORM_BLOCK`` in row-major order."""
NORM_LANES = 32
"""Running sums within a block; element ``i`` belongs to lane ``i % NORM_LANES``."""


def block_sums(x: Array, norm_type: float | None = 2.0) -> Array:
    """One float64 per block of ``NORM_BLOCK`` elements: the sum of ``|x|`` (1), ``x**2`` (2) or ``x`` (None), or the
    largest ``|x|`` (inf).

    Each lane adds its elements in order; then lanes are folded in halves. Missing elements of the last block count as
    zero. The square of a float32 is exact in float64 and cannot overflow. Of what is stored in 16 bits, the decoded
    values count.
    """
    with np.errstate(all="ignore"):
        flat = np.ravel(decode(np.asarray(x))).astype(np.float64)  # row-major, whatever the layout in memory
        flat = flat if norm_type is None else flat * flat if norm_type == 2 else np.abs(flat)
    blocks = -(-flat.size // NORM_BLOCK)
    padded = np.zeros(blocks * NORM_BLOCK)
    padded[: flat.size] = flat
    rows = padded.reshape(blocks, NORM_BLOCK // NORM_LANES, NORM_LANES)
    fold = np.maximum if norm_type == math.inf else np.add
    with np.errstate(all="ignore"):
        lanes = np.zeros((blocks, NORM_LANES))
        for k in range(NORM_BLOCK // NORM_LANES):
            lanes = fold(lanes, rows[:, k])
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = fold(lanes[:, :half], lanes[:, half:])
    result: Array = lanes[:, 0]
    return result


def tree(values: Array, norm_type: float = 2.0) -> float:
    """The sum (largest, for inf) over a complete binary tree, padded with zeros: neighbours first."""
    fold = np.maximum if norm_type == math.inf else np.add
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        while values.size > 1:
            if values.size % 2:
                values = np.append(values, 0.0)
            values = fold(values[0::2], values[1::2])
    return float(values[0])


STATISTICS = ("param_norm", "grad_norm", "update_norm", "update_max", "clipped", "nan", "inf")
"""What :func:`statistics` has, in this order."""


def statistics(
    param: Array,
    grad: Array,
    d: Array,
    *,
    mask: Any = None,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
) -> Array:
    """What a step tells of a tensor, in float64: :data:`STATISTICS`.

    ``param`` is the parameter as the step found it, ``grad`` the gradient as given, ``d`` the direction that the
    parameter took. The 2-norms are of the parameter, of the gradient (divided by ``grad_scale``) and of the direction;
    then come the largest ``abs(d)`` (NaN if one is), and the counts of elements of the gradient that ``clip_value``
    bounded, that are NaN, and that are infinite. Elements that a mask leaves out count as zero.
    """
    p, g = decode(np.asarray(param)), decode(np.asarray(grad))
    keep = kept(p, mask)
    g, d = masked(g, keep), masked(d, keep)
    with np.errstate(all="ignore"):
        bound = rounded(math.inf if clip_value is None else clip_value, g)
        norms = [math.sqrt(tree(block_sums(x))) for x in (p, g, d)]
        largest = tree(block_sums(d, math.inf), math.inf)
        clipped = np.abs(g * rounded(clip_coef / grad_scale, g)) > bound
        counts = [np.count_nonzero(x) for x in (clipped, np.isnan(g), np.isinf(g))]
    return np.array([norms[0], norms[1] / grad_scale, norms[2], largest, *counts], np.float64)
