"""Optimizer updates and clipping, in place, on arrays.

Every function takes one array or a list of arrays: NumPy arrays, torch tensors, CuPy arrays, or anything else that
speaks DLPack, on the CPU or on CUDA devices (not both in one call), of dtype float32 or float64 (complex64 and
complex128 are updated as pairs of reals), of any strides.
``grads`` and the state lists match ``params`` in length, and each array its parameter in shape and dtype. State arrays
start at zero and are kept by the caller.

An array that is written must be known to be mutable: JAX's arrays and read-only ones are refused there. Masked arrays
are refused everywhere.

Everything is validated before anything is written: after an exception, every array is as it was. ``TypeError`` and
``ValueError`` name the argument and its index. Results equal :mod:`fusedstep.reference` bit for bit.

On CUDA devices a call puts its work on ``stream`` (the address of a CUDA stream as an int; default: torch's current one
for torch tensors, else the legacy default stream) and returns without waiting, unless a norm is to be returned as a
float. With ``norm_out``, a float64 array on the device of one element (``per_tensor``: one per gradient), the norm is
left there, and nothing waits. Norms are of order 1, 2 or inf there.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from . import _core, _rules

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Common",
    "adagrad",
    "adam",
    "adamw",
    "clip_grad_norm",
    "clip_grad_value",
    "rmsprop",
    "sgd",
    "total_norm",
]

Arrays = Any  # one array, or a list of arrays
Steps = int | Sequence[int]


class Common(TypedDict, total=False):
    """Keywords of every update.

    A gradient is divided by ``grad_scale``, clipped to ``max_norm``, negated for ``maximize``, clipped to
    ``clip_value``, given its L2 term, and never written.
    """

    weight_decay: float
    """L2 (``adamw``: decoupled) decay, default 0 (``adamw``: 0.01)."""
    maximize: bool
    """Ascend instead of descend, default False."""
    grad_scale: float
    """What the gradients were multiplied by (loss scaling), > 0, default 1."""
    max_norm: float | None
    """Clip the gradients, as one vector, to this norm, in the same pass over memory; the update returns the norm.
    A non-finite norm makes the update NaN where torch's would be, unless ``nonfinite`` says otherwise."""
    norm_type: float
    """Order of that norm: 1, 2, inf, or any p > 0; default 2."""
    per_tensor: bool
    """Clip each gradient to ``max_norm`` on its own; the update returns a list of norms. Default False; needs a
    ``max_norm``."""
    clip_value: float | None
    """Bound on each element of the gradient, after ``max_norm``. Not for complex gradients, which raise TypeError."""
    nonfinite: str
    """What a norm that is infinite or NaN does: ``"propagate"`` (default); ``"skip"``: nothing is changed, the norm
    tells; ``"raise"``: RuntimeError, with nothing changed. Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``."""
    error_if_nonfinite: bool
    """torch's word for ``nonfinite="raise"``. Default False; needs a ``max_norm``."""
    norm_out: Any
    """On CUDA devices: where to leave the norm, instead of returning it. Default None; needs a ``max_norm``."""
    stream: int | None
    """On CUDA devices: the stream to work on. Default None."""


def as_list(arrays: Arrays) -> list[Any]:
    """One array as a list of one; a list, a generator, a dict's values as a list."""
    if isinstance(arrays, (list, tuple)):
        return list(arrays)
    if isinstance(arrays, Iterable) and not isinstance(arrays, (str, Mapping)) and not _is_array(arrays):
        try:
            return list(arrays)
        except Exception:  # whatever an object's __iter__ raises: the core says what was expected
            pass
    return [arrays]


def _is_array(value: Any) -> bool:
    if any(hasattr(type(value), name) for name in ("dtype", "__dlpack__", "__array_interface__")):
        return True
    try:
        memoryview(value).release()
    except Exception:
        return False
    return True


def check_norm_type(label: str, norm_type: Any) -> float:
    """A norm's order as a float, ValueError unless > 0; ``"inf"`` as in torch."""
    value = (
        math.inf if isinstance(norm_type, str) and norm_type == "inf" else _rules.number(label, "norm_type", norm_type)
    )
    if not value > 0:
        raise ValueError(f"{label}: norm_type is {norm_type}, expected 1, 2, inf or another number > 0")
    return value


def check_limit(label: str, name: str, value: Any) -> float:
    """A clipping limit as a float, ValueError unless >= 0."""
    limit = _rules.number(label, name, value)
    if not limit >= 0:
        raise ValueError(f"{label}: {name} is {value}, expected a number >= 0")
    return limit


def check_stream(label: str, stream: Any) -> int | None:
    """A CUDA stream's address as an int, or None."""
    try:
        address = None if stream is None else operator.index(stream)
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"{label}: stream is {stream!r}, expected the address of a CUDA stream or None") from error
    if address is not None and not 0 <= address < 2**64:
        raise ValueError(f"{label}: stream is {stream!r}, expected the address of a CUDA stream or None")
    return address


def _check_step(label: str, step: Any, count: int) -> int | list[int]:
    many = isinstance(step, (list, tuple))
    given = list(step) if many else [step]
    if many and len(given) != count:
        raise ValueError(f"{label}: step has {len(given)} numbers, expected {count} to match params")
    steps = []
    for k, value in enumerate(given):
        name = f"step[{k}]" if many else "step"
        try:
            steps.append(operator.index(value))
        except Exception as error:  # whatever an object's __index__ raises
            raise TypeError(f"{label}: {name} is {value!r}, expected an integer >= 1") from error
        if not 1 <= steps[-1] < 2**53:
            raise ValueError(f"{label}: {name} is {value}, expected an integer >= 1")
    return steps if many else steps[0]


def step_arrays(
    groups: list[dict[str, Any]],
    *,
    grad_scale: float = 1.0,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    nonfinite: str = "propagate",
    norm_out: Any = None,
    stream: int | None = None,
    report: Any = None,
) -> Any:
    """One call of the core for groups of :func:`fusedstep._rules.core_group`. Returns the norm, the norms or None."""
    label = groups[0]["label"] if groups else "step"
    return _core.step_arrays(
        groups,
        grad_scale=_rules.scale(label, grad_scale),
        norm_type=check_norm_type(label, norm_type),
        per_tensor=_rules.flag(label, "per_tensor", per_tensor),
        nonfinite=nonfinite,
        norm_out=norm_out,
        stream=check_stream(label, stream),
        report=report,
    )


def _update(
    label: str,
    rule: _rules.Rule,
    params: Arrays,
    grads: Arrays,
    states: dict[str, Arrays],
    step: Steps,
    hyper: dict[str, Any],
    common: Common,
) -> Any:
    """``states``: argument name to arrays, None for a state array that the variant lacks."""
    unknown = common.keys() - Common.__annotations__
    if unknown:
        raise TypeError(
            f"{label}: unexpected keyword {min(unknown)!r}, expected one of {sorted(Common.__annotations__)}"
        )
    call: dict[str, Any] = dict(common)
    options = {**_rules.COMMON, **hyper, **{k: call.pop(k) for k in _rules.COMMON if k in call}}
    given = {name: as_list(arrays) for name, arrays in states.items() if arrays is not None}
    params = as_list(params)
    group = _rules.core_group(
        label,
        rule,
        options,
        params=params,
        grads=as_list(grads),
        state_arrays=list(given.values()),
        step=_check_step(label, step, len(params)),
    )
    for name in group["states"]:
        if f"{name}s" not in given:
            raise TypeError(f"{label}: {name}s is None, expected an array or a list of arrays")
    has_norm = options["max_norm"] is not None
    per_tensor = _rules.flag(label, "per_tensor", call.get("per_tensor", False))
    call["nonfinite"] = _rules.nonfinite(label, options["nonfinite"], call.pop("error_if_nonfinite", False))
    _rules.needs_norm(label, call["nonfinite"], has_norm)
    if per_tensor and not has_norm:
        raise ValueError(f"{label}: per_tensor without max_norm, expected both or neither")
    if per_tensor and call["nonfinite"] == "skip":
        raise ValueError(f"{label}: nonfinite='skip' with per_tensor, expected 'propagate' or 'raise'")
    if call.get("norm_out") is not None and options["max_norm"] is None:
        raise ValueError(f"{label}: norm_out without max_norm, expected both or neither")
    group["state_args"] = tuple(given)
    return step_arrays([group], **call)


def sgd(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays | None = None,
    *,
    lr: float,
    step: Steps = 1,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    **common: Unpack[Common],
) -> Any:
    """Gradient descent; with ``momentum`` and ``momentum_buffers``, SGD as :class:`torch.optim.SGD`.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        momentum_buffers: updated in place; required if and only if ``momentum`` is not 0. Overwritten by the gradient
            where ``step`` is 1.
        lr: learning rate, >= 0.
        step: 1 in the first call, one number or one per parameter; matters to momentum only.
        momentum, dampening, nesterov: as in torch; nesterov needs a momentum and no dampening.
        **common: see :class:`Common`.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """
    if (momentum_buffers is None) != (_rules.number("sgd", "momentum", momentum) == 0):
        have = "no momentum_buffers" if momentum_buffers is None else "momentum_buffers"
        raise ValueError(f"sgd: momentum is {momentum} with {have}, expected both or neither")
    hyper = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    states = {"momentum_buffers": momentum_buffers}
    return _update("sgd", _rules.SGD, params, grads, states, step, hyper, common)


def adagrad(
    params: Arrays,
    grads: Arrays,
    sums: Arrays,
    *,
    step: Steps,
    lr: float,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    **common: Unpack[Common],
) -> Any:
    """Adagrad (Duchi, Hazan & Singer 2011), as :class:`torch.optim.Adagrad`.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        sums: sums of squared gradients, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr, lr_decay, eps: ``lr / (1 + (step - 1) * lr_decay)`` is the rate, ``eps`` is added to the root.
        **common: see :class:`Common`.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """
    hyper = {"lr": lr, "lr_decay": lr_decay, "eps": eps}
    return _update("adagrad", _rules.ADAGRAD, params, grads, {"sums": sums}, step, hyper, common)


def rmsprop(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    grad_avgs: Arrays | None = None,
    momentum_buffers: Arrays | None = None,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    **common: Unpack[Common],
) -> Any:
    """RMSprop (Hinton 2012), as :class:`torch.optim.RMSprop`.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        square_avgs: averages of squared gradients, updated in place.
        grad_avgs: averages of gradients, updated in place; given, the update is centered (Graves 2013).
        momentum_buffers: updated in place; required if and only if ``momentum`` is not 0.
        lr, alpha, eps, momentum: as in torch; ``eps`` is added to the root.
        **common: see :class:`Common`.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """
    if (momentum_buffers is None) != (_rules.number("rmsprop", "momentum", momentum) == 0):
        have = "no momentum_buffers" if momentum_buffers is None else "momentum_buffers"
        raise ValueError(f"rmsprop: momentum is {momentum} with {have}, expected both or neither")
    centered = grad_avgs is not None
    hyper = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
    states = {"square_avgs": square_avgs, "grad_avgs": grad_avgs, "momentum_buffers": momentum_buffers}
    return _update("rmsprop", _rules.RMSPROP, params, grads, states, 1, hyper, common)


def adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    step: Steps,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decoupled_weight_decay: bool = False,
    **common: Unpack[Common],
) -> Any:
    """Adam (Kingma & Ba 2015), as :class:`torch.optim.Adam`.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs, exp_avg_sqs: averages of gradients and of their squares, updated in place.
        max_exp_avg_sqs: given, updated in place, the update is AMSGrad (Reddi, Kale & Kumar 2018).
        step: 1 in the first call, one number or one per parameter.
        lr, beta1, beta2, eps: as in torch, 0 <= beta < 1.
        decoupled_weight_decay: ``weight_decay`` as in :func:`adamw`.
        **common: see :class:`Common`.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """
    rule = _rules.ADAMW if decoupled_weight_decay else _rules.ADAM
    return _adam(
        "adam", rule, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, step, lr, beta1, beta2, eps, common
    )


def adamw(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    step: Steps,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    **common: Unpack[Common],
) -> Any:
    """:func:`adam` with decoupled weight decay (Loshchilov & Hutter 2019), default 0.01; :class:`torch.optim.AdamW`."""
    common.setdefault("weight_decay", 1e-2)
    rule = _rules.ADAMW
    return _adam(
        "adamw", rule, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, step, lr, beta1, beta2, eps, common
    )


def _adam(
    label: str,
    rule: _rules.Rule,
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None,
    step: Steps,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    common: Common,
) -> Any:
    hyper = {"lr": lr, "betas": (beta1, beta2), "eps": eps, "amsgrad": max_exp_avg_sqs is not None}
    hyper["decoupled_weight_decay"] = False  # the rule given decides
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs, "max_exp_avg_sqs": max_exp_avg_sqs}
    return _update(label, rule, params, grads, states, step, hyper, common)


# ----------------------------------------------------------------------------------------------------------- clipping


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
        as_list(arrays),
        label="total_norm",
        arg="arrays",
        norm_type=check_norm_type("total_norm", norm_type),
        per_tensor=_rules.flag("total_norm", "per_tensor", per_tensor),
        error_if_nonfinite=_rules.flag("total_norm", "error_if_nonfinite", error_if_nonfinite),
        norm_out=norm_out,
        stream=check_stream("total_norm", stream),
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
        as_list(grads),
        label="clip_grad_norm",
        max_norm=check_limit("clip_grad_norm", "max_norm", max_norm),
        norm_type=check_norm_type("clip_grad_norm", norm_type),
        per_tensor=_rules.flag("clip_grad_norm", "per_tensor", per_tensor),
        error_if_nonfinite=_rules.flag("clip_grad_norm", "error_if_nonfinite", error_if_nonfinite),
        total_norm=None,
        norm_out=norm_out,
        stream=check_stream("clip_grad_norm", stream),
    )


def clip_grad_value(grads: Arrays, clip_value: float, *, stream: int | None = None) -> None:
    """Bound every element of ``grads`` to [-``clip_value``, ``clip_value``], in place. NaN stays NaN."""
    _core.clip_value(
        as_list(grads),
        label="clip_grad_value",
        value=check_limit("clip_grad_value", "clip_value", clip_value),
        stream=check_stream("clip_grad_value", stream),
    )
