"""The one home of argument validation: each function returns the value in its own type, or raises naming the argument.

``label`` is who was called ("adam", "AdamW"). TypeError: not of this kind. ValueError: out of range.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _core, _dtypes

# What a norm of the gradients that is NaN or infinite does, the strictest last.
NONFINITE = ("propagate", "skip", "raise")


def number(label: str, name: str, value: Any) -> float:
    """``float(value)``."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text is no number")
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{label}: {name} is too large for a float") from error
    except Exception as error:  # whatever an object's __float__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected a number") from error


def flag(label: str, name: str, value: Any) -> bool:
    """``bool(value)``."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text is no truth value")
        return bool(value)
    except Exception as error:  # whatever an object's __bool__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected True or False") from error


@dataclass(frozen=True)
class Range:
    """Numbers that an option may have. ``bad`` is what tests try."""

    text: str  # "a finite number >= 0"; {name} stands for the option's name
    holds: Callable[[float], bool]
    bad: tuple[float, ...]

    def check(self, label: str, name: str, value: Any) -> float:
        result = number(label, name, value)
        if not self.holds(result):
            raise ValueError(f"{label}: {name} is {value}, expected {self.text.format(name=name)}")
        return result


NON_NEGATIVE = Range(
    "a finite number >= 0", lambda x: 0.0 <= x < math.inf, (math.nan, math.inf, -math.inf, -1.0, -1e-300)
)
FRACTION = Range("0 <= {name} < 1", lambda x: 0.0 <= x < 1.0, (math.nan, math.inf, -math.inf, -0.1, 1.0, 1.5))
UNIT = Range("0 <= {name} <= 1", lambda x: 0.0 <= x <= 1.0, (math.nan, math.inf, -math.inf, -0.1, 1.5))
SHRINKING = Range("0 < {name} < 1", lambda x: 0.0 < x < 1.0, (math.nan, math.inf, -math.inf, -0.1, 0.0, 1.0, 1.5))
GROWING = Range("1 < {name} < inf", lambda x: 1.0 < x < math.inf, (math.nan, math.inf, -math.inf, -2.0, 0.0, 1.0))
FINITE = Range("a finite number", math.isfinite, (math.nan, math.inf, -math.inf))
POSITIVE = Range("a finite number > 0", lambda x: 0.0 < x < math.inf, (0.0, math.nan, math.inf, -math.inf, -1.0))
STEPS = Range("a number of steps >= 0", NON_NEGATIVE.holds, NON_NEGATIVE.bad)
LIMIT = Range("a number >= 0", lambda x: x >= 0.0, (math.nan, -math.inf, -1.0))  # inf is no limit


def several(label: str, name: str, value: Any, count: int) -> tuple[Any, ...]:
    """Any sequence of so many."""
    try:
        if len(value) == count and not isinstance(value, (str, bytes, Mapping)):
            return tuple([value[k] for k in range(count)])
    except Exception:  # whatever an object's __len__ or __getitem__ raises
        pass
    many = {2: "two", 3: "three", 4: "four"}.get(count, str(count))
    raise ValueError(f"{label}: {name} is {value!r}, expected a sequence of {many} numbers")


def limit_or_none(label: str, name: str, value: Any) -> float | None:
    """A bound >= 0, inf for none; or None."""
    try:
        return None if value is None else LIMIT.check(label, name, value)
    except ValueError as error:
        raise ValueError(f"{error} or None") from None


def nonfinite(label: str, value: Any, error_if_nonfinite: Any = False) -> str:
    """What a non-finite norm does, from our option and torch's."""
    if not isinstance(value, str) or value not in NONFINITE:
        raise ValueError(f"{label}: nonfinite is {value!r}, expected one of {', '.join(map(repr, NONFINITE))}")
    if not flag(label, "error_if_nonfinite", error_if_nonfinite):
        return value
    if value == "skip":
        raise ValueError(f"{label}: error_if_nonfinite with nonfinite='skip', expected one of them")
    return "raise"


def strictest(options: Iterable[Mapping[str, Any]]) -> str:
    """The norm of several groups is one, and so is what follows from it."""
    asked = {o["nonfinite"] for o in options}
    return next((word for word in reversed(NONFINITE) if word in asked), "propagate")


def needs_norm(label: str, nonfinite: str, has_norm: bool) -> None:
    """Raise ValueError for a choice about norms where nothing asks for a norm."""
    if nonfinite == "propagate" or has_norm:
        return
    name = "error_if_nonfinite (nonfinite='raise')" if nonfinite == "raise" else "nonfinite='skip'"
    raise ValueError(f"{label}: {name} without max_norm, expected both or neither (inf clips nothing)")


def norm_type(label: str, value: Any) -> float:
    """A norm's order; ``"inf"`` as in torch."""
    order = math.inf if isinstance(value, str) and value == "inf" else number(label, "norm_type", value)
    if not order > 0:
        raise ValueError(f"{label}: norm_type is {value}, expected 1, 2, inf or another number > 0")
    return order


def stream(label: str, value: Any) -> int | None:
    """A CUDA stream's address, or None."""
    try:
        address = None if value is None else operator.index(value)
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"{label}: stream is {value!r}, expected the address of a CUDA stream or None") from error
    if address is not None and not 0 <= address < 2**64:
        raise ValueError(f"{label}: stream is {value!r}, expected the address of a CUDA stream or None")
    return address


def mapping(label: str, name: str, value: Any, of: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{label}: {name} is a {type(value).__name__}, expected a dict of {of}")
    return value


LARGEST_STEP = _core.most_steps - 1  # a count that a step can still advance


def step_count(label: str, name: str, value: Any, least: int) -> int:
    """A step number (``least`` 1), or how many steps were taken before one (0)."""
    try:
        count = operator.index(value)
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected an integer >= {least}") from error
    if not least <= count < LARGEST_STEP + least:
        raise ValueError(f"{label}: {name} is {value}, expected an integer from {least} to 2**53 - {2 - least}")
    return count


def steps(label: str, value: Any, count: int) -> int | list[int]:
    """A step number >= 1, or one for each of ``count`` parameters."""
    many = isinstance(value, (list, tuple))
    given: Sequence[Any] = value if many else [value]
    if many and len(given) != count:
        raise ValueError(f"{label}: step has {len(given)} numbers, expected {count} to match params")
    checked = [step_count(label, f"step[{k}]" if many else "step", item, 1) for k, item in enumerate(given)]
    return checked if many else checked[0]


def seed(label: str, name: str, value: Any) -> int:
    """Any integer, modulo 2**64."""
    try:
        return operator.index(value) % 2**64
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected an integer") from error


def tensor_id(label: str, name: str, value: Any) -> int:
    """The number by which the random numbers of a parameter are told from those of others."""
    try:
        found = operator.index(value)
    except Exception as error:  # whatever an object's __index__ raises
        raise TypeError(f"{label}: {name} is {value!r}, expected an integer >= 0") from error
    if not 0 <= found < 2**60:
        raise ValueError(f"{label}: {name} is {found}, expected an integer from 0 to 2**60 - 1")
    return found


def tensor_ids(label: str, name: str, value: Any, count: int) -> list[int]:
    """One for each of ``count`` parameters, no two alike; a number alone is that of one parameter."""
    try:
        given, many = list(value), True
    except TypeError:
        given, many = [value], False
    found = [tensor_id(label, f"{name}[{k}]" if many else name, item) for k, item in enumerate(given)]
    if len(found) != count:
        have = f"has {len(found)} numbers" if many else f"is {value}"
        raise ValueError(f"{label}: {name} {have}, expected a list of {count} to match params")
    if len(set(found)) < count:
        k = next(k for k, number in enumerate(found) if number in found[:k])
        raise ValueError(f"{label}: {name}[{k}] is {found[k]}, which {name}[{found.index(found[k])}] is too")
    return found


def attribute(label: str, name: str, value: Any) -> str:
    """The name of an attribute."""
    if not isinstance(value, str):
        raise TypeError(f"{label}: {name} is {value!r}, expected the name of an attribute, such as 'grad'")
    if not value.isidentifier():
        raise ValueError(f"{label}: {name} is {value!r}, expected the name of an attribute, such as 'grad'")
    return value


def state_dtype(label: str, name: str, value: Any) -> str | dict[str, str] | None:
    """What state arrays are stored as, by name: all of them, or each by its own name; None where nothing is said."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: _state_dtype(label, f"{name}[{key!r}]", v, "") for key, v in value.items()}
    return _state_dtype(label, name, value, ", a dict of these by the names of the arrays, or None")


def _state_dtype(label: str, name: str, value: Any, more: str) -> str:
    expected = f"expected {' or '.join(map(repr, _dtypes.STATE))}{more}"
    found = _dtypes.name_of(value)
    if found is None:
        raise TypeError(f"{label}: {name} is {value!r}, {expected}")
    if found not in _dtypes.STATE:
        why = "; in float16 a second moment below 6e-8 is zero" if found == "float16" else ""
        raise ValueError(f"{label}: {name} is {value!r}, {expected}{why}")
    return found


def arrays(value: Any) -> list[Any]:
    """One array as a list of one; a list, a generator, a dict's values as a list."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) and not _is_array(value):
        try:
            return list(value)
        except Exception:  # whatever an object's __iter__ raises: the core says what was expected
            pass
    return [value]


def _is_array(value: Any) -> bool:
    if any(hasattr(type(value), name) for name in ("dtype", "__dlpack__", "__array_interface__")):
        return True
    try:
        memoryview(value).release()
    except Exception:
        return False
    return True
