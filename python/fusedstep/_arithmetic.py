"""What specifications are written in: rounding to the arrays' dtype, exact comparison and powers; and what comes before
every rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rounded(value: float, like: Array) -> Any:
    """A float64 constant, rounded once to the dtype of ``like``, ties to even."""
    with np.errstate(all="ignore"):
        return like.dtype.type(value)


def power(beta: float, step: int) -> float:
    """``beta ** step`` by binary exponentiation in float64: multiplications only, so that every platform agrees."""
    result = 1.0
    while step > 0:
        if step & 1:
            result *= beta
        beta *= beta
        step >>= 1
    return result


def minimum(a: Any, b: Array) -> Array:
    """``a`` where ``a < b``, else ``b``: of a NaN and a number, ``b``."""
    return np.where(a < b, a, b)


def maximum(a: Any, b: Array) -> Array:
    """``a`` where ``a > b``, else ``b``: of a NaN and a number, ``b``."""
    return np.where(a > b, a, b)


def before(
    param: Array,
    grad: Array,
    lr: float,
    *,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    clip_coef: float = 1.0,
    clip_value: float | None = None,
) -> tuple[Array, Array]:
    """Unscale, clip to norm, negate, clip by value, decay: the parameter and gradient that the rule then sees.

    ``clip_coef`` is ``clip_coefficient(total_norm(grads) / grad_scale, max_norm)``. Unscaling, clipping to norm and
    negation are one multiplication, rounded once. L2 decay adds ``weight_decay * param`` to the gradient, after
    clipping; decoupled decay (Loshchilov & Hutter 2019) multiplies the parameter instead.
    """
    multiplier = clip_coef / grad_scale
    grad = grad * rounded(-multiplier if maximize else multiplier, grad)
    bound = rounded(math.inf if clip_value is None else clip_value, grad)
    grad = maximum(-bound, minimum(bound, grad))
    l2 = rounded(0.0 if decoupled else weight_decay, grad)
    if l2 != 0:
        grad = grad + l2 * param
    param = param * rounded(1.0 - lr * weight_decay if decoupled else 1.0, param)
    return param, grad
