from __future__ import annotations

import sys
import warnings


def warn(message: str) -> None:
    """A UserWarning about the line of whoever called torch or us."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("torch", "fusedstep"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
