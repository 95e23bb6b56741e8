"""The optimizers, each declared once: options, state, specification. Functions and classes are made from these.

``fusedstep.functional``, ``fusedstep.numpy``, ``fusedstep.torch`` and ``fusedstep.reference`` are their faces.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .._rule import Rule
from ._all import ALL

__all__ = ["ALL", "Rule", "named"]


def named(label: str, name: Any, classes: ModuleType) -> Any:
    """Of the classes of a module, the one that ``name`` spells, whatever its case: "adamw", "AdamW", "adam_w"."""
    faces = {known: getattr(classes, known) for known in classes.__all__}
    if not isinstance(name, str):
        raise TypeError(f"{label}: name is {name!r}, expected one of {', '.join(faces)}")
    spelled = {known.lower(): face for known, face in faces.items()}
    try:
        return spelled[name.lower().replace("_", "").replace("-", "")]
    except KeyError:
        raise ValueError(f"{label}: no optimizer is called {name!r}, expected one of {', '.join(faces)}") from None
