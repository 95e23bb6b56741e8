"""What rides along in the pass: L1, masks, cautious steps, laws of decay, moving averages, statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from . import _arguments as check
from ._arithmetic import ema_weight

MASK, EMA = "mask", "ema"  # arrays in the state of a parameter, beside those of the rule
ARRAYS = frozenset({MASK, EMA})
EMA_STEP, DECAY_LR = "ema_step", "decay_lr"  # keys of a group, where they are used
MODES = ("lr", "fixed", "relative", "squared")
ZERO_TO_ONE = check.Range("0 <= {name} <= 1", lambda x: 0.0 <= x <= 1.0, (math.nan, -0.1, 1.1))
_OF_POWER: dict[str, tuple[float, check.Range]] = {
    "gamma": (1.0, check.POSITIVE),
    "power": (2 / 3, check.POSITIVE),
    "min_decay": (0.0, ZERO_TO_ONE),
    "update_after_step": (0, check.Range("an integer >= 0", lambda x: x >= 0 and x == math.floor(x), (-1, 0.5))),
}


def alone(state: Mapping[str, Any]) -> bool:
    """Whether the state of a parameter has nothing of the rule, but something beside it."""
    return bool(state) and state.keys() <= ARRAYS


def mask(label: str, name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value == "nonzero"):
        return value
    text = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
    raise ValueError(
        f"{label}: {name} is {text}, expected None or 'nonzero'; opt.set_mask() gives parameters masks of their own"
    )


def cautious(label: str, name: str, value: Any) -> bool | str:
    if isinstance(value, str) and value == "unscaled":
        return value
    if check.flag(label, name, False if isinstance(value, str) else value) or isinstance(value, str):
        raise ValueError(
            f"{label}: {name} is {value!r}, expected False or 'unscaled': scaling up what is left needs a second pass "
            "over memory, which is not there yet"
        )
    return False


def decay_mode(label: str, name: str, value: Any) -> str:
    if isinstance(value, str) and value in MODES:
        return value
    raise ValueError(f"{label}: {name} is {value!r}, expected one of {', '.join(map(repr, MODES))}")


def needs_decay_lr(mode: str) -> bool:
    return mode in ("relative", "squared")


def decay_lr(label: str, name: str, value: Any) -> float | None:
    return None if value is None else check.POSITIVE.check(label, name, value)


def ema_decay(label: str, name: str, value: Any) -> float | None:
    return None if value is None else ZERO_TO_ONE.check(label, name, value)


def ema_warmup(label: str, name: str, value: Any) -> dict[str, Any] | None:
    """As :func:`ema_weight` takes it."""
    if value is None:
        return None
    given = dict(value) if isinstance(value, Mapping) else {"kind": value}
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in ("linear", "mean", "power"):
        what = f"{name}['kind']" if isinstance(value, Mapping) else name
        raise ValueError(
            f"{label}: {what} is {kind!r}, expected 'linear', 'mean', 'power', a dict with such a kind, or None"
        )
    known = _OF_POWER if kind == "power" else {}
    if unknown := given.keys() - known.keys():
        expected = f"of {', '.join(known)}" if known else "of none"
        raise ValueError(f"{label}: {name} has {min(map(str, unknown))!r}, expected for {kind!r} the name {expected}")
    full = {n: default for n, (default, _) in known.items()} | given
    numbers = {n: known[n][1].check(label, f"{name}[{n!r}]", v) for n, v in full.items()}
    return {"kind": kind, **numbers}


def check_together(label: str, options: Mapping[str, Any], decoupled: bool, switch: str) -> None:
    """Raise ValueError for options that the decay of this optimizer cannot have, and for those that need others.

    ``switch``: the option that makes its decay decoupled."""
    for name, off in (("decay_mode", "lr"), ("cautious_decay", False)):
        value = options.get(name, off)
        if value != off and not decoupled:
            way = f"; {switch}=True decays the parameter itself" if switch else ""
            raise ValueError(f"{label}: {name} is {value!r}, expected {off!r} where decay is not decoupled{way}")
    if options.get("ema_warmup") is not None and options.get("ema_decay") is None:
        raise ValueError(f"{label}: ema_warmup without ema_decay, expected both or neither")


def of_core(
    label: str, options: Mapping[str, Any], starts: Callable[[], dict[str, float]], masks: bool, ema: bool
) -> dict[str, Any]:
    """The keywords of the core's group that say what rides along: none where nothing does."""
    found: dict[str, Any] = {}
    if l1 := float(options.get("l1", 0.0)):
        found["l1"] = l1
    if masks and options.get("mask") is not None:
        raise ValueError(
            f"{label}: mask is 'nonzero' for parameters that have masks of their own, expected one of both"
        )
    if masks or options.get("mask") is not None:
        found |= {"mask": "array" if masks else "nonzero", "starts": list(starts().values())}
    if options.get("cautious"):
        found["cautious"] = True
    if options.get("cautious_decay"):
        found["cautious_decay"] = True
    if (mode := options.get("decay_mode", "lr")) != "lr":
        found["decay_mode"] = mode
        if needs_decay_lr(mode):
            lr = options.get(DECAY_LR)
            found["decay_lr"] = check.POSITIVE.check(label, DECAY_LR, options["lr"] if lr is None else lr)
    if ema:
        found["ema"] = True
    if options.get("stats"):
        found["stats"] = True
    return found


def late_decay_lr(label: str, options: Mapping[str, Any], first_lr: Any, given: float | None) -> dict[str, float]:
    """The key of a group that got its law of decay after construction; none where it is there or not needed.

    ``first_lr``: what a scheduler has kept of its learning rate; ``given``: the ``decay_lr`` of the constructor."""
    if not needs_decay_lr(options.get("decay_mode", "lr")) or options.get(DECAY_LR) is not None:
        return {}
    lr = next(x for x in (given, first_lr, options["lr"]) if x is not None)
    return {DECAY_LR: check.POSITIVE.check(label, DECAY_LR, lr)}


def keys_of(label: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a group has for what rides along, from all its options."""
    keys: dict[str, Any] = {}
    if options.get("ema_decay") is not None:
        keys[EMA_STEP] = options.get(EMA_STEP, 0)
    if needs_decay_lr(options.get("decay_mode", "lr")):
        lr = options.get(DECAY_LR)
        keys[DECAY_LR] = check.POSITIVE.check(label, DECAY_LR, options["lr"] if lr is None else lr)
    return keys


def mask_arrays(label: str, value: Any) -> list[Any] | str | None:
    """The masks of a function: a list, in which None stands for no mask, or ``"nonzero"``."""
    if isinstance(value, str):
        if value != "nonzero":
            raise ValueError(f"{label}: masks is {value!r}, expected arrays of bool, 'nonzero' or None")
        return value
    return None if value is None else check.arrays(value)


def weight(label: str, n: Any, options: Mapping[str, Any]) -> float:
    """What the moving averages of a group take of its parameters in a step after ``n`` others."""
    count = check.step_count(label, EMA_STEP, n, 0)
    decay = ema_decay(label, "ema_decay", options["ema_decay"])
    assert decay is not None
    return ema_weight(count, decay, ema_warmup(label, "ema_warmup", options.get("ema_warmup")))
