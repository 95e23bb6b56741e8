"""What specifications are written in: rounding to the arrays' dtype, exact comparison and powers; and what comes before
and after every rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rounded(value: float, like: Array) -> Any:
    """A float64 constant, rounded once to the dtype of ``like``, ties to even."""
    with np.errstate(all="ignore"):
        return like.dtype.type(value)


def moving_average(old: Array, new: Array, beta: float) -> Array:
    """``beta * old + (1 - beta) * new``."""
    result: Array = rounded(beta, new) * old + rounded(1.0 - beta, new) * new
    return result


def power(beta: float, step: int) -> float:
    """``beta ** step`` by binary exponentiation in float64: multiplications only, so that every platform agrees."""
    result = 1.0
    while step > 0:
        if step & 1:
            result *= beta
        beta *= beta
        step >>= 1
    return result


_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")


def fs_log(x: float) -> float:
    """The natural logarithm to about 2 ulp, in float64 from ``+ - * /`` and exact moves of the exponent."""
    if not 0 < x < math.inf:
        return -math.inf if x == 0 else x if x > 0 else math.nan
    f, e = math.frexp(x)
    if f < 0.7071067811865476:
        f, e = 2.0 * f, e - 1
    s = (f - 1.0) / (f + 1.0)
    z = s * s
    series = 1.0 / 23.0
    for k in range(21, 1, -2):
        series = series * z + 1.0 / k
    return e * _LN2_HIGH + (2.0 * s + (2.0 * s * z * series + e * _LN2_LOW))


def fs_exp(x: float) -> float:
    """``e**x``, as :func:`fs_log`."""
    if not -746 <= x <= 710:
        return 0.0 if x < 0 else x if x != x else math.inf
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = 1.0
    for n in range(14, 0, -1):
        series = 1.0 + series * r / n
    size, base = abs(k), 0.5 if k < 0 else 2.0
    return series * power(base, size // 2) * power(base, size - size // 2)


def fs_pow(b: float, x: float) -> float:
    """``b**x`` for ``b >= 0``: ``fs_exp(x * fs_log(b))``, with an error of about ``1 + abs(x * log(b))`` ulp.

    For what is constant during a step and no integer power: libm's pow differs between platforms, this does not.
    """
    return 1.0 if x == 0 else fs_exp(x * fs_log(b))


def minimum(a: Any, b: Array) -> Array:
    """``a`` where ``a < b``, else ``b``: of a NaN and a number, ``b``."""
    return np.where(a < b, a, b)


def maximum(a: Any, b: Array) -> Array:
    """``a`` where ``a > b``, else ``b``: of a NaN and a number, ``b``."""
    return np.where(a > b, a, b)


def maximum_nan(a: Any, b: Array) -> Array:
    """``a`` where ``a > b``, else ``b``; NaN if either is."""
    return np.where((a > b) | (a != a), a, b)


def kept(param: Array, mask: Any) -> Array | None:
    """The elements that take part; None for all. ``mask``: a bool array, ``"nonzero"`` (of the parameter before the
    step; a NaN takes part) or None."""
    if mask is None:
        return None
    keep: Array = param != 0 if isinstance(mask, str) else np.asarray(mask, bool)
    return keep


def masked(x: Array, keep: Array | None, start: float = 0.0) -> Array:
    """``x``, and ``start`` where an element takes no part."""
    return x if keep is None else np.where(keep, x, rounded(start, x))


def decay_of(lr: float, weight_decay: float, mode: str = "lr", decay_lr: float | None = None) -> float:
    """The share of a parameter that decoupled decay takes away in a step, from left to right in float64."""
    if mode == "fixed":
        return weight_decay
    if mode == "lr":
        return lr * weight_decay
    assert decay_lr is not None
    return (lr if mode == "relative" else lr * lr) / decay_lr * weight_decay


def sign(x: Array) -> Array:
    """-1, 0 or 1: a zero keeps its sign, and a NaN stays NaN, where torch.sign gives 0."""
    one = rounded(1.0, x)
    return np.where(x > 0, one, np.where(x < 0, -one, x))


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
    mask: Any = None,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
) -> tuple[Array, Array]:
    """Unscale, clip to norm, negate, clip by value, mask, decay: the parameter and gradient that the rule then sees.

    ``clip_coef`` is ``clip_coefficient(total_norm(grads) / grad_scale, max_norm)``. Unscaling, clipping to norm and
    negation are one multiplication, rounded once. L2 decay adds ``weight_decay * param`` to the gradient, after
    clipping; decoupled decay (Loshchilov & Hutter 2019) multiplies the parameter instead, by 1 less :func:`decay_of`.
    Cautious decay is left to :func:`after`.
    """
    multiplier = clip_coef / grad_scale
    grad = grad * rounded(-multiplier if maximize else multiplier, grad)
    bound = rounded(math.inf if clip_value is None else clip_value, grad)
    grad = masked(maximum(-bound, minimum(bound, grad)), kept(param, mask))
    l2 = rounded(0.0 if decoupled else weight_decay, grad)
    if l2 != 0:
        grad = grad + l2 * param
    shrinks = decoupled and not cautious_decay
    param = param * rounded(1.0 - decay_of(lr, weight_decay, decay_mode, decay_lr) if shrinks else 1.0, param)
    return param, grad


def after(
    param: Array,
    shrunk: Array,
    grad: Array,
    d: Array,
    lr: float,
    *,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    mask: Any = None,
    cautious: Any = False,
    cautious_decay: bool = False,
    decay_mode: str = "lr",
    decay_lr: float | None = None,
) -> tuple[Array, Array]:
    """From the direction of the rule to the parameter after the step: that, and the direction that it took.

    ``param`` is the parameter as the step found it, ``shrunk`` and ``grad`` are what :func:`before` made. A cautious
    step (Liang et al. 2024) leaves out the elements whose direction and gradient have different signs; it does not
    scale the others up. Cautious decay leaves out those that the step moves away from zero. ``l1`` is the proximal step
    of ``lr * l1 * abs(p)``: soft thresholding (Duchi & Singer 2009).
    """
    if cautious:
        agreement = np.where(d > 0, grad, np.where(d < 0, -grad, d))
        d = np.where(agreement > 0, d, np.where(agreement < 0, rounded(0.0, d), agreement))  # a NaN stays
    if cautious_decay:
        agreement = np.where(d > 0, param, np.where(d < 0, -param, rounded(0.0, param)))
        share = rounded(decay_of(lr, weight_decay, decay_mode, decay_lr), param)
        shrunk = param if share == 0 else param - np.where(agreement < 0, rounded(0.0, param), share * param)
    new = shrunk - d
    if l1 != 0:
        threshold = rounded(lr * l1, new)
        new = new - maximum(-threshold, minimum(threshold, new))
    return masked(new, kept(param, mask)), d


def moved_average(ema: Array, param: Array, weight: float) -> Array:
    """The moving average of a parameter after a step: ``ema + weight * (param - ema)``, which a weight that does not
    change leaves as it is; the parameter itself where the weight is 1. ``param`` is what the next step reads."""
    w = rounded(weight, ema)
    new: Array = param.astype(ema.dtype)
    return new if w == 1 else ema + w * (new - ema)


def ema_weight(n: int, decay: float, warmup: Mapping[str, Any] | None = None) -> float:
    """What the average of the parameters takes of them in a step, after ``n`` others: 1 in the first.

    ``warmup``: None is ``1 - decay``; a dict has its ``kind`` and, for ``"power"``, the numbers of timm's ModelEmaV3.
    """
    kind = None if warmup is None else warmup["kind"]
    if n == 0:
        return 1.0
    if kind == "mean":
        return 1.0 / (n + 1)
    if kind == "linear":
        decay = min(decay, (1 + n) / (10 + n))
    elif kind == "power":
        assert warmup is not None
        s = max(0, n - warmup["update_after_step"] - 1)
        grown = 1.0 - fs_pow(1.0 + s / warmup["gamma"], -warmup["power"])
        decay = 0.0 if s == 0 else min(max(grown, warmup["min_decay"]), decay)
    return 1.0 - decay
