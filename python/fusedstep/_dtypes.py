"""What arrays are stored as, by names of dtypes that NumPy, torch and ml_dtypes have in common."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

STATE = ("float32", "bfloat16")  # what a state array may be asked to be stored as
SINGLE = ("float16", "bfloat16", "float32")  # parameters that are computed in float32; their state may be any of STATE
REAL = (*SINGLE, "float64")
COMPLEX = ("complex64", "complex128")
_HELD = {"float32": ("float16", "bfloat16"), "float64": SINGLE, "complex128": ("complex64",)}  # without loss


def name_of(dtype: Any) -> str | None:
    """Of a dtype of NumPy, torch or ml_dtypes, or of text; None for what is no dtype."""
    if isinstance(dtype, str):
        return dtype
    text = str(dtype)
    if text.startswith("torch."):
        return text.removeprefix("torch.")
    try:
        return None if dtype is None else np.dtype(dtype).name
    except Exception:  # whatever an object's dtype attribute raises
        return None


def stored_as(param: str, asked: str) -> str:
    """What the state of a parameter of this dtype is stored as."""
    return asked if param in SINGLE else param


def check_param(where: str, dtype: str, state_dtype: Any) -> None:
    """Raise ValueError for a parameter whose state has no choice."""
    if state_dtype and dtype in ("float64", *COMPLEX):
        raise ValueError(
            f"{where} has dtype {dtype}, expected float32, bfloat16 or float16 with state_dtype {state_dtype!r}; "
            "parameters of other dtypes belong in a group with state_dtype None"
        )


def loses(where: str, got: str, expected: str, known: tuple[str, ...]) -> bool:
    """Whether loaded values are rounded where they are kept as ``expected``; ValueError if they cannot be."""
    if got != expected and not (got in known and expected in known):
        others = [name for name in known if name != expected and expected in known]
        text = f" (or {', '.join(others)}, which are converted)" if others else ""
        raise ValueError(f"{where} of the state_dict has dtype {got}, expected {expected}{text}")
    return got != expected and got not in _HELD.get(expected, ())


def rounding(rounded: list[str]) -> str:
    """What to warn of, where a text for each array says from what to what it was rounded."""
    more = f" and {len(rounded) - 1} more arrays" if len(rounded) > 1 else ""
    return f"{rounded[0]}{more}; what state is stored as is said by state_dtype, and not by the checkpoint"


def numpy_dtype(label: str, name: str) -> np.dtype[Any]:
    """NumPy's dtype of this name; bfloat16 is that of ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ValueError(f"{label}: NumPy has no bfloat16; install ml_dtypes for state_dtype 'bfloat16'") from error
    return cast("np.dtype[Any]", np.dtype(ml_dtypes.bfloat16))
