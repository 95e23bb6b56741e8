"""What each optimizer is trained beside: the class of torch.optim, or of pytorch_optimizer where torch has none."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import nn

from fusedstep.rules import Rule

PEERS: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "foreach": {"foreach": True}, "default": {}}
SPELLED = {"amsgrad": "ams_bound"}  # by pytorch_optimizer, where it has another word
ELSEWHERE = ("clip_exp", "no_prox", "decouple", "t_alpha", "t_beta3")  # options that it has in another form, or lacks


def has(peer: str, rule: type[Rule], device: str) -> bool:
    """Whether torch can step that way: it has fused kernels for some optimizers on some devices only."""
    if not rule.torch_class:
        return peer == "default"
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        getattr(torch.optim, rule.torch_class)([parameter], **PEERS[peer]).step()
    except (TypeError, RuntimeError):
        return False
    return True


def original(rule: type[Rule], options: dict[str, Any], peer: str) -> tuple[str, type[torch.optim.Optimizer], Any]:
    """Where the class is from, the class and its options; ValueError says what it lacks."""
    if rule.torch_class:
        return "torch.optim", getattr(torch.optim, rule.torch_class), {**options, **PEERS[peer]}
    try:
        cls = getattr(importlib.import_module("pytorch_optimizer"), rule.__name__)
    except ImportError:
        raise ValueError(f"torch.optim has no {rule.__name__}: pip install pytorch_optimizer") from None
    given = {**{name: rule.defaults[name] for name in rule.own}, **options}
    known = inspect.signature(cls).parameters
    found: dict[str, Any] = {}
    for name, value in given.items():
        if SPELLED.get(name, name) in known:
            found[SPELLED.get(name, name)] = value
        elif value != rule.defaults[name] and name not in ELSEWHERE:
            raise ValueError(f"pytorch_optimizer's {rule.__name__} has no {name}")
    if "weight_decouple" in known:
        found["weight_decouple"] = given.get("no_prox", rule.is_decoupled(given))
    if "clip_exp" in given:  # it counts steps from 1 where the authors' code counts from 0
        found["clip_lambda"] = lambda step: (step - 1) ** given["clip_exp"]
    return "pytorch_optimizer", cls, found
