"""What the tests with other libraries share: which is there, what it warns of, what a training leaves."""

from __future__ import annotations

import copy
import functools
import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

import fusedstep.torch

BOTH = (torch.optim, fusedstep.torch)
REQUIRED = os.environ.get("FUSEDSTEP_REQUIRE_CLIENTS", "") not in ("", "0")
CLOSE = {"rtol": 1e-4, "atol": 2e-6}  # float32, a few steps

# What the libraries at their pinned versions warn of, of themselves.
WARNINGS = {
    "transformers": ["ignore:'pin_memory' argument is set as true but no accelerator:UserWarning"],
    "Lightning": [
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
        "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
        "ignore:The '.*_dataloader' does not have many workers:UserWarning",
    ],
}


def need(library: str) -> ModuleType:
    """The library; a test that lacks it is skipped, or fails where ``FUSEDSTEP_REQUIRE_CLIENTS`` is set, as in CI."""
    if find_spec(library) is None and not REQUIRED:
        pytest.skip(f"not installed: {library}", allow_module_level=True)
    let_torchvision_import()
    return importlib.import_module(library)


@functools.cache
def let_torchvision_import() -> None:
    """PyPI's torchvision is compiled for torch with CUDA. Beside torch for the CPU its library does not load, and its
    import then stops at two operators that are not there. timm imports it; nothing here uses these operators."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def warns(client: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.filterwarnings(line) for line in WARNINGS.get(client, [])]


class Training(NamedTuple):
    """What a training has left, and the optimizer out of its wrappers."""

    losses: list[float]
    parameters: dict[str, torch.Tensor]
    state_dict: dict[str, Any]
    optimizer: Any


def training(model: torch.nn.Module, optimizer: Any, losses: list[float] | None = None) -> Training:
    while not isinstance(vars(optimizer).get("param_groups"), list):
        optimizer = optimizer.optimizer  # of accelerate, Lightning, Fabric
    parameters = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return Training(list(losses or []), parameters, copy.deepcopy(optimizer.state_dict()), optimizer)


def assert_same(ours: Training, theirs: Training, **tolerance: float) -> None:
    """Losses, parameters, state and options, as far as rounding goes."""
    tolerance = {**CLOSE, **tolerance}
    torch.testing.assert_close(ours.losses, theirs.losses, **tolerance)
    assert ours.parameters
    torch.testing.assert_close(ours.parameters, theirs.parameters, **tolerance)
    assert theirs.state_dict["state"]
    torch.testing.assert_close(ours.state_dict["state"], theirs.state_dict["state"], **tolerance)
    assert ours.state_dict["param_groups"] == theirs.state_dict["param_groups"]
