from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# No client may look for a model or an update on the network.
for name in ("HF_HUB_OFFLINE", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ[name] = "1"


def need(client: str) -> object:
    """The module, or a skip; where FUSEDSTEP_REQUIRE_CLIENTS is set a failure."""
    if find_spec(client) is None and os.environ.get("FUSEDSTEP_REQUIRE_CLIENTS") != "1":
        pytest.skip(f"{client} is not installed", allow_module_level=True)
    make_torchvision_importable()
    return importlib.import_module(client)
