"""What the stateful classes and the functions know about each rule: options, their ranges, state arrays.

Pure Python, no torch. Option names and defaults are torch.optim's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]

# What a norm of the gradients that is NaN or infinite does, the strictest last.
NONFINITE = ("propagate", "skip", "raise")
# Clipping folded into the step belongs to a run, not to what is trained: it is in no checkpoint.
RUN_TIME: dict[str, Any] = {"max_norm": None, "clip_value": None, "nonfinite": "propagate"}
# Shared by every rule, weight decay as torch spells it.
COMMON: dict[str, Any] = {"weight_decay": 0.0, "maximize": False, **RUN_TIME}


@dataclass(frozen=True)
class Rule:
    """One optimizer. ``states`` names the state arrays that a choice of options needs, in the kernel's order."""

    name: str  # of the kernels' family
    defaults: Options
    states: Callable[[Options], tuple[str, ...]]
    hyper: Callable[[Options], dict[str, float]]  # the kernel's scalars
    decoupled: Callable[[Options], bool] = lambda o: False
    has_step: bool = True  # torch keeps a step count in the state
    initial: Callable[[Options], float] = lambda o: 0.0  # state arrays start from it, both parts of complex ones
    takes_sparse: str = ""  # torch's class for sparse gradients, as this one takes none


def _flatten_betas(o: Options) -> dict[str, float]:
    betas = o["betas"]
    return {"lr": float(o["lr"]), "beta1": float(betas[0]), "beta2": float(betas[1]), "eps": float(o["eps"])}


def _same(*names: str) -> Callable[[Options], dict[str, float]]:
    return lambda o: {name: float(bool(o[name]) if name in _FLAGS else o[name]) for name in names}


SGD = Rule(
    name="sgd",
    defaults={"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "nesterov": False},
    states=lambda o: ("momentum_buffer",) if o["momentum"] != 0 else (),
    hyper=_same("lr", "momentum", "dampening", "nesterov"),
    has_step=False,
    takes_sparse="torch.optim.SGD",
)
ADAGRAD = Rule(
    name="adagrad",
    defaults={"lr": 1e-2, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
    states=lambda o: ("sum",),
    hyper=_same("lr", "lr_decay", "eps"),
    initial=lambda o: float(o["initial_accumulator_value"]),
    takes_sparse="torch.optim.Adagrad",
)
RMSPROP = Rule(
    name="rmsprop",
    defaults={"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False},
    states=lambda o: (
        "square_avg",
        *(("grad_avg",) if o["centered"] else ()),
        *(("momentum_buffer",) if o["momentum"] != 0 else ()),
    ),
    hyper=_same("lr", "alpha", "eps", "momentum"),
    takes_sparse="torch.optim.SparseAdam",
)
ADAM = Rule(
    name="adam",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "decoupled_weight_decay": False},
    states=lambda o: ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if o["amsgrad"] else ())),
    hyper=_flatten_betas,
    decoupled=lambda o: bool(o.get("decoupled_weight_decay", False)),
    takes_sparse="torch.optim.SparseAdam",
)
ADAMW = Rule(
    name="adam",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "weight_decay": 1e-2},
    states=ADAM.states,
    hyper=_flatten_betas,
    decoupled=lambda o: True,
    takes_sparse="torch.optim.SparseAdam",
)

RULES: dict[str, Rule] = {"SGD": SGD, "Adagrad": ADAGRAD, "RMSprop": RMSPROP, "Adam": ADAM, "AdamW": ADAMW}

# ------------------------------------------------------------------------------------------------------------- checks

_NON_NEGATIVE = (
    "lr",
    "momentum",
    "lr_decay",
    "initial_accumulator_value",
    "eps",
    "alpha",
    "weight_decay",
)
_LIMITS = ("max_norm", "clip_value")  # None: off; inf is no limit
_FRACTIONS = ("beta1", "beta2")
_FLAGS = ("maximize", "nesterov", "centered", "amsgrad", "decoupled_weight_decay")


def number(label: str, name: str, value: Any) -> float:
    """``float(value)``, or a TypeError that names the argument."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text is no number")
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{label}: {name} is too large for a float") from error
    except Exception as error:  # whatever an object's __float__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected a number") from error


def scale(label: str, value: Any) -> float:
    """A gradient scale as a float, ValueError unless finite and > 0."""
    number_ = number(label, "grad_scale", value)
    if not 0.0 < number_ < math.inf:
        raise ValueError(f"{label}: grad_scale is {value}, expected a finite number > 0")
    return number_


def flag(label: str, name: str, value: Any) -> bool:
    """``bool(value)``, or a TypeError that names the argument."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text is no truth value")
        return bool(value)
    except Exception as error:  # whatever an object's __bool__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected True or False") from error


def nonfinite(label: str, value: Any, error_if_nonfinite: Any = False) -> str:
    """What a non-finite norm does, from our option and torch's."""
    if not isinstance(value, str) or value not in NONFINITE:
        raise ValueError(f"{label}: nonfinite is {value!r}, expected one of {', '.join(map(repr, NONFINITE))}")
    if not flag(label, "error_if_nonfinite", error_if_nonfinite):
        return value
    if value == "skip":
        raise ValueError(f"{label}: error_if_nonfinite with nonfinite='skip', expected one of them")
    return "raise"


def strictest(options: Iterable[Options]) -> str:
    """The norm of several groups is one, and so is what follows from it."""
    asked = {o["nonfinite"] for o in options}
    return next((word for word in reversed(NONFINITE) if word in asked), "propagate")


def needs_norm(label: str, nonfinite: str, has_norm: bool) -> None:
    """Raise ValueError for a choice about norms where nothing asks for a norm."""
    if nonfinite == "propagate" or has_norm:
        return
    name = "error_if_nonfinite (nonfinite='raise')" if nonfinite == "raise" else "nonfinite='skip'"
    raise ValueError(f"{label}: {name} without max_norm, expected both or neither (inf clips nothing)")


def _pair(label: str, name: str, value: Any) -> tuple[Any, Any]:
    try:
        if len(value) == 2 and not isinstance(value, (str, bytes, Mapping)):
            return value[0], value[1]
    except Exception:  # whatever an object's __len__ or __getitem__ raises
        pass
    raise ValueError(f"{label}: {name} is {value!r}, expected a sequence of two numbers")


def check(label: str, options: Options, least_lr: float = 0.0) -> None:
    """Raise ValueError for a hyper-parameter out of range, TypeError for one that is no number."""
    for name in _NON_NEGATIVE:
        least = least_lr if name == "lr" else 0.0
        if name in options and not least <= number(label, name, options[name]) < math.inf:
            raise ValueError(f"{label}: {name} is {options[name]}, expected a finite number >= 0")
    for name in _LIMITS:
        value = options.get(name)
        if value is not None and not number(label, name, value) >= 0.0:
            raise ValueError(f"{label}: {name} is {value}, expected a number >= 0 or None")
    if "betas" in options:
        beta1, beta2 = _pair(label, "betas", options["betas"])
        options = {**options, "beta1": beta1, "beta2": beta2}
    for name in _FRACTIONS:
        if name in options and not 0.0 <= number(label, name, options[name]) < 1.0:
            raise ValueError(f"{label}: {name} is {options[name]}, expected 0 <= {name} < 1")
    for name in _FLAGS:
        if name in options:
            flag(label, name, options[name])
    if "nonfinite" in options:
        nonfinite(label, options["nonfinite"])
    if "dampening" in options:
        if not math.isfinite(number(label, "dampening", options["dampening"])):
            raise ValueError(f"{label}: dampening is {options['dampening']}, expected a finite number")
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError(
                f"{label}: nesterov with momentum {options['momentum']} and dampening {options['dampening']}, "
                "expected a momentum > 0 and a dampening of 0"
            )


def core_group(label: str, rule: Rule, options: Options, /, least_lr: float = 0.0, **more: Any) -> dict[str, Any]:
    """A checked group in the form that the compiled core reads (``_core.pyi``)."""
    check(label, options, least_lr)
    states = rule.states(options)
    return {
        "label": label,
        "rule": rule.name,
        "states": states,
        "state_args": states,
        "hyper": rule.hyper(options),
        "weight_decay": float(options["weight_decay"]),
        "decoupled": rule.decoupled(options),
        "maximize": bool(options["maximize"]),
        "max_norm": None if options["max_norm"] is None else float(options["max_norm"]),
        "clip_value": None if options["clip_value"] is None else float(options["clip_value"]),
        "has_step": rule.has_step,
        "takes_sparse": rule.takes_sparse,
        **more,
    }
