"""Parameter groups: torch's keys, and beside them the options that belong to a run, which no checkpoint sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._rule import ERROR_IF_NONFINITE, GRAD_ATTR, RIDES, RUN_TIME

_MISSING = object()
TENSOR_IDS = "tensor_ids"  # a tuple beside the parameters
_OFF: dict[str, Any] = {**{o.name: o.default for o in (*RUN_TIME.values(), GRAD_ATTR)}, TENSOR_IDS: None}
NAMES = (*_OFF, ERROR_IF_NONFINITE.name)
RIDING = "_rides"  # beside these, in no one's sight: what the core is told of the ride-alongs, () while all are off
_TOLD = tuple(o for o in RIDES.values() if o.name != "ema_warmup")
_SIMPLE = (bool, int, float, str)


def _riding(options: Mapping[str, Any]) -> tuple[Any, ...]:
    values = tuple(options[o.name] for o in _TOLD)
    off = (v is o.default or (isinstance(v, _SIMPLE) and v == o.default) for o, v in zip(_TOLD, values, strict=True))
    return () if all(off) else values


class ParamGroup(dict[str, Any]):
    """A group of ``opt.param_groups``.

    ``max_norm``, ``clip_value``, ``nonfinite``, ``error_if_nonfinite``, ``state_dtype``, ``grad_attr``, ``tensor_ids``
    and what rides along (``l1``, ``ema_decay``, ...) can be read and set like keys, but are none: iteration, ``len``,
    ``dict(group)`` and ``state_dict`` do not see them. So a checkpoint has torch's keys, and loading one leaves these
    options as they are. A merged group (``group | other``) has those of the group. ``error_if_nonfinite`` is
    ``nonfinite == "raise"``.
    """

    __slots__ = ("run_time",)
    run_time: dict[str, Any]

    def __new__(cls, *_: Any, **__: Any) -> ParamGroup:
        group = super().__new__(cls)
        group.run_time = dict(_OFF)
        group.run_time[RIDING] = ()
        return group

    def __init__(self, keys: Mapping[str, Any] = {}, run_time: Mapping[str, Any] = _OFF) -> None:
        super().__init__((key, value) for key, value in keys.items() if key not in NAMES)
        self.run_time.update(run_time)
        self.run_time[RIDING] = _riding(self.run_time)

    def __missing__(self, key: str) -> Any:
        if key == "error_if_nonfinite":
            return self.run_time["nonfinite"] == "raise"
        return self.run_time[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "error_if_nonfinite":
            if bool(value) != self[key]:
                self.run_time["nonfinite"] = "raise" if value else "propagate"
        elif key in self.run_time:
            self.run_time[key] = value
            if key in RIDES:
                self.run_time[RIDING] = _riding(self.run_time)
        else:
            super().__setitem__(key, value)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in NAMES

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in NAMES else super().get(key, default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> ParamGroup:  # type: ignore[override]
        self.update(other)
        return self

    def __or__(self, other: Any) -> ParamGroup:  # type: ignore[override]
        if not isinstance(other, dict):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> ParamGroup:  # type: ignore[override]
        return ParamGroup({**other, **self}, self.run_time) if isinstance(other, dict) else NotImplemented

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Of an option of the run: its value, and it is off from then on."""
        if key in NAMES:
            value = self[key]
            self[key] = _OFF.get(key, ERROR_IF_NONFINITE.default)
            return value
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def copy(self) -> ParamGroup:
        return ParamGroup(self, self.run_time)

    __copy__ = copy

    def __delitem__(self, key: str) -> None:
        self.pop(key)


def run_time(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run. A plain dict, as torch makes them and as some tools put in place of ours, has those it
    names; for the others the constructor's count."""
    if isinstance(group, ParamGroup):
        return group.run_time
    return split(group, defaults)[1]


def split(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Torch's keys of a group that may hold all in one, and its options of the run."""
    keys = {key: value for key, value in group.items() if key not in NAMES}
    if isinstance(group, ParamGroup):
        return keys, dict(group.run_time)
    mixed = ParamGroup({}, defaults)
    mixed.update({key: group[key] for key in NAMES if key in group})
    return keys, mixed.run_time
