"""The specification: what every kernel computes, in plain NumPy, operation by operation.

Each backend equals these functions bit for bit (a NaN equals a NaN), for any instruction set, thread count and memory
layout. They are written to be read, and are slow.

Two rules make that possible. Element-wise arithmetic uses only ``+ - * / sqrt``, comparison and select, each rounded
once to the dtype of the arrays. Whatever is constant during a step is computed in float64 and rounded once.

A rule takes ``(param, grad, *states)`` and returns new arrays ``(param, *states)``. Its variant is chosen by the state
arrays given: ``rmsprop`` with a ``grad_avg`` is centered. All rules accept the keywords of :func:`before`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NORM_BLOCK = 2048
"""Elements of one block of a sum; block ``i`` starts at element ``i * NORM_BLOCK`` in row-major order."""
NORM_LANES = 32
"""Running sums within a block; element ``i`` belongs to lane ``i % NORM_LANES``."""


# --------------------------------------------------------------------------------------------------------- rounding


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


# ------------------------------------------------------------------------------------------------- before every rule


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


# ------------------------------------------------------------------------------------------------------------ rules


def sgd(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    **common: Any,
) -> tuple[Array, ...]:
    """Gradient descent; with a ``momentum_buffer``, SGD with momentum (Polyak 1964; Sutskever et al. 2013).

    ``p -= lr * g``, or ``b = momentum * b + (1 - dampening) * g; p -= lr * (g + momentum * b if nesterov else b)``.
    At step 1 the buffer is a copy of the gradient, undampened, as in :class:`torch.optim.SGD`.
    """
    with np.errstate(all="ignore"):
        p, g = before(param, grad, lr, **common)
        rate = rounded(lr, p)
        if momentum_buffer is None:
            return (p - rate * g,)
        mu = rounded(momentum, p)
        b = g if step == 1 else mu * momentum_buffer + rounded(1.0 - dampening, p) * g
        return p - rate * (g + mu * b if nesterov else b), b


def adagrad(
    param: Array, grad: Array, sum: Array, *, step: int, lr: float, lr_decay: float = 0.0, eps: float, **common: Any
) -> tuple[Array, ...]:
    """Adagrad (Duchi, Hazan & Singer 2011): ``s += g**2; p -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)``.

    As :class:`torch.optim.Adagrad`: eps outside the root.
    """
    with np.errstate(all="ignore"):
        p, g = before(param, grad, lr, **common)
        s = sum + g * g
        rate = rounded(lr / (1.0 + (step - 1) * lr_decay), p)
        return p - rate * g / (np.sqrt(s) + rounded(eps, p)), s


def rmsprop(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None = None,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float = 0.0,
    **common: Any,
) -> tuple[Array, ...]:
    """RMSprop (Hinton 2012); centered with a ``grad_avg`` (Graves 2013), with momentum with a ``momentum_buffer``.

    ``s = alpha * s + (1 - alpha) * g**2; d = sqrt(s) + eps; p -= lr * g / d``. Centered subtracts the square of the
    gradients' average under the root. With momentum ``b = momentum * b + g / d; p -= lr * b``. As
    :class:`torch.optim.RMSprop`, where a centered variance that rounds below zero gives NaN too.
    """
    with np.errstate(all="ignore"):
        p, g = before(param, grad, lr, **common)
        a, one_minus_a, rate = rounded(alpha, p), rounded(1.0 - alpha, p), rounded(lr, p)
        s = a * square_avg + one_minus_a * (g * g)
        variance, states = s, [s]
        if grad_avg is not None:
            average = a * grad_avg + one_minus_a * g
            variance = s - average * average
            states.append(average)
        denominator = np.sqrt(variance) + rounded(eps, p)
        if momentum_buffer is None:
            return p - rate * g / denominator, *states
        b = rounded(momentum, p) * momentum_buffer + g / denominator
        return p - rate * b, *states, b


def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    **common: Any,
) -> tuple[Array, ...]:
    """Adam (Kingma & Ba 2015); AMSGrad with a ``max_exp_avg_sq`` (Reddi et al. 2018); AdamW with ``decoupled=True``.

    ``m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
    p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)`` with ``c = 1 - beta**step``, and ``sqrt(c2)`` multiplied out: one
    division per element. AMSGrad takes the running maximum of the raw ``v``, as :class:`torch.optim.Adam` does.
    """
    with np.errstate(all="ignore"):
        p, g = before(param, grad, lr, **common)
        correction1 = 1.0 - power(beta1, step)
        root2 = math.sqrt(1.0 - power(beta2, step))
        m = rounded(beta1, p) * exp_avg + rounded(1.0 - beta1, p) * g
        v = rounded(beta2, p) * exp_avg_sq + rounded(1.0 - beta2, p) * (g * g)
        states = [m, v]
        if max_exp_avg_sq is not None:
            states.append(maximum(max_exp_avg_sq, v))
        step_size = rounded(lr * root2 / correction1, p)
        return p - step_size * m / (np.sqrt(states[-1]) + rounded(eps * root2, p)), *states


def adamw(param: Array, grad: Array, *states: Array, **options: Any) -> tuple[Array, ...]:
    """:func:`adam` with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return adam(param, grad, *states, decoupled=True, **options)


# ------------------------------------------------------------------------------------------------------------ norms


def block_sums(x: Array, norm_type: float | None = 2.0) -> Array:
    """One float64 per block of ``NORM_BLOCK`` elements: the sum of ``|x|`` (1), ``x**2`` (2) or ``x`` (None), or the
    largest ``|x|`` (inf).

    Each lane adds its elements in order; then lanes are folded in halves. Missing elements of the last block count as
    zero. The square of a float32 is exact in float64 and cannot overflow.
    """
    flat = np.ravel(x).astype(np.float64)  # row-major, whatever the layout in memory
    with np.errstate(all="ignore"):
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


def total_norm(arrays: Sequence[Array], norm_type: float = 2.0) -> float:
    """The norm of all elements of all arrays, as one vector: 1, 2 and inf bit for bit, other p > 0 to a few ulp.

    A tree over the blocks of each array, then a tree over the arrays. Other p: ``sum(|x|**p) ** (1/p)``, scaled by the
    largest ``|x|`` so that no power overflows.
    """
    if norm_type not in (1, 2, math.inf):
        flat = np.abs(np.concatenate([np.zeros(0), *(np.ravel(a) for a in arrays)]).astype(np.float64))
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
    """A gradient clipped in place: multiplied by ``clip_coef``, then bounded by ``clip_value``."""
    with np.errstate(all="ignore"):
        return (before(grad, grad, 0.0, clip_coef=clip_coef, clip_value=clip_value)[1],)
