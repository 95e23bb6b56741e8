"""Parameter groups with and without weight decay."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

import torch

from .. import _arguments as check


def param_groups(
    model: torch.nn.Module,
    weight_decay: float = 1e-2,
    *,
    decay_vectors: bool = False,
    decay_embeddings: bool = True,
    no_decay: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters of a model as two groups: with ``weight_decay``, and without.

    Args:
        model: its parameters are taken once each, in order; those that do not require gradients are left out, and so is
            a group that would be empty.
        weight_decay: of the first group, a finite number >= 0.
        decay_vectors: whether parameters of one dimension or none (biases, gains of norms) decay.
        decay_embeddings: whether the weights of ``Embedding`` and ``EmbeddingBag`` decay.
        no_decay: names of parameters, or patterns (``"*.pos_embed"``), that never decay. What the model's own
            ``no_weight_decay()`` names, if it has one, as timm's models do, comes on top.

    >>> import torch, fusedstep.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
    >>> groups = fusedstep.torch.param_groups(model, weight_decay=0.1)
    >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
    [(1, 0.1), (3, 0.0)]
    >>> opt = fusedstep.torch.AdamW(groups, lr=1e-3)
    """
    label = "param_groups"
    check.NON_NEGATIVE.check(label, "weight_decay", weight_decay)
    if isinstance(no_decay, str):
        raise TypeError(f"{label}: no_decay is {no_decay!r}, expected a list of names")
    own = getattr(model, "no_weight_decay", None)
    patterns = [*no_decay, *(own() if callable(own) else ())]
    embeddings = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag))
    }

    def decays(name: str, param: torch.Tensor) -> bool:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return False
        return (decay_vectors or param.ndim > 1) and (decay_embeddings or id(param) not in embeddings)

    with_decay: list[torch.Tensor] = []
    without: list[torch.Tensor] = []
    for name, param in model.named_parameters():
        if param.requires_grad:
            (with_decay if decays(name, param) else without).append(param)
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
