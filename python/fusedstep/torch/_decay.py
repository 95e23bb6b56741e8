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
        no_decay: names of parameters, or patterns (``"*.pos_embed"``), that never decay. ValueError for one that is no
            parameter's. What the model's own ``no_weight_decay()`` names, if it has one, as timm's models do, comes on
            top.

    >>> import torch, fusedstep.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
    >>> groups = fusedstep.torch.param_groups(model, weight_decay=0.1)
    >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
    [(1, 0.1), (3, 0.0)]
    >>> opt = fusedstep.torch.AdamW(groups, lr=1e-3)
    """
    label = "param_groups"
    check.NON_NEGATIVE.check(label, "weight_decay", weight_decay)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{label}: model is a {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(no_decay, str):
        raise TypeError(f"{label}: no_decay is {no_decay!r}, expected a list of names")
    names = list(model.named_parameters(remove_duplicate=False))  # a tied parameter has several

    def named(pattern: str) -> set[int]:
        return {id(param) for name, param in names if fnmatch.fnmatchcase(name, pattern)}

    own = getattr(model, "no_weight_decay", None)
    spared = set().union(*map(named, own() if callable(own) else ()))
    for k, pattern in enumerate(no_decay):
        if not isinstance(pattern, str):
            raise TypeError(f"{label}: no_decay[{k}] is {pattern!r}, expected a name or a pattern")
        if not (found := named(pattern)):
            raise ValueError(f"{label}: no_decay has {pattern!r}, expected names or patterns of the model's parameters")
        spared |= found
    embeddings = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag))
    }

    def decays(param: torch.Tensor) -> bool:
        if id(param) in spared:
            return False
        return (decay_vectors or param.ndim > 1) and (decay_embeddings or id(param) not in embeddings)

    trained = [param for param in model.parameters() if param.requires_grad]
    with_decay = [param for param in trained if decays(param)]
    without = [param for param in trained if not decays(param)]
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
