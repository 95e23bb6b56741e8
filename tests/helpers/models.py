"""A small language model, the ways in which torch divides it over processes, and all of it put together again."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module

from tests.helpers import ranks as at
from tests.helpers.bits import assert_same_bits
from tests.helpers.sharded import Layout
from tests.helpers.torch_spec import reals


class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """A small language model; ``lone`` has fewer rows than there are processes."""

    def __init__(self, width=8, hidden=12, words=13):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(2))
        self.head = nn.Linear(width, words)
        self.lone = nn.Parameter(torch.ones(1))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        scores = self.head(x) * self.lone
        return nn.functional.cross_entropy(scores.flatten(0, 1).float(), tokens.roll(-1, 1).flatten())


def batch(step):
    return torch.randint(13, (12, 6), generator=torch.Generator().manual_seed(step))


def shard(model, mesh, **options):
    """Nested: each block, and the rest."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def tensor_parallel(model, mesh):
    """With sequence parallelism, whose norms get partial sums as gradients. ``lone`` is left as it is."""
    plan = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
    }
    for k in range(len(model.blocks)):
        plan[f"blocks.{k}.norm"] = SequenceParallel()
        plan[f"blocks.{k}.up"] = ColwiseParallel(input_layouts=Shard(1))
        plan[f"blocks.{k}.down"] = RowwiseParallel(output_layouts=Shard(1))
    return parallelize_module(model, mesh, plan)


def fsdp(model, size, **options):
    return shard(model, at.mesh(size), **options), None


def low_precision(model, size, reduce):
    return fsdp(model, size, mp_policy=MixedPrecisionPolicy(torch.bfloat16, reduce))


def in_bfloat16(model, size):
    return fsdp(model.bfloat16(), size)


def offloaded(model, size):
    return fsdp(model, size, offload_policy=CPUOffloadPolicy(pin_memory=False))


def columns(model, size):
    """Divided along their last dimension, where all ranks get as much."""
    return fsdp(model, size, shard_placement_fn=lambda p: Shard(1) if p.ndim == 2 and p.shape[1] % size == 0 else None)


def partly(model, size):
    """The blocks are sharded, the rest is plain: its gradients are the ranks' own, so all see the whole batch."""
    for block in model.blocks:
        fully_shard(block, mesh=at.mesh(size))
    return model, 0


def hybrid(model, size):
    return shard(model, at.mesh(2, 2, names=("replicate", "shard"))), None


def tp(model, size):
    return tensor_parallel(model, at.mesh(size)), 0


def fsdp_and_tp(model, size):
    mesh = at.mesh(2, 2, names=("dp", "tp"))
    return shard(tensor_parallel(model, mesh["tp"]), mesh["dp"]), mesh["dp"]


def plan(id, size, function, **options):
    return pytest.param(size, functools.partial(function, **options), id=f"{id}-{size}")


PLANS = [
    plan("fsdp", 2, fsdp),
    plan("fsdp", 3, fsdp),
    plan("fsdp-kept", 2, fsdp, reshard_after_forward=False),
    plan("fsdp-resharded", 3, fsdp, reshard_after_forward=True),
    plan("fsdp-resharded-by-2", 4, fsdp, reshard_after_forward=2),
    plan("fsdp-mixed", 3, low_precision, reduce=torch.float32),
    plan("fsdp-low", 2, low_precision, reduce=torch.bfloat16),
    plan("fsdp-bfloat16", 2, in_bfloat16),
    plan("fsdp-offloaded", 2, offloaded),
    plan("fsdp-columns", 2, columns),
    plan("fsdp-partly", 3, partly),
    plan("hsdp", 4, hybrid),
    plan("tp", 2, tp),
    plan("tp", 3, tp),
    plan("fsdp-tp", 4, fsdp_and_tp),
]


def whole(x):
    """All of a tensor, on every rank."""
    x = x.detach()
    return reals((x.full_tensor() if isinstance(x, DTensor) else x).cpu())


def layout_of(x):
    return Layout(tuple(x.device_mesh.shape), tuple(x.placements)) if isinstance(x, DTensor) else None


def everything(model, opt):
    """Of each parameter: all of it and of its state."""
    states = {n: {"param": p, **opt.state.get(p, {})} for n, p in model.named_parameters()}
    return {
        name: {k: whole(v) if isinstance(v, torch.Tensor) else v for k, v in arrays.items()}
        for name, arrays in states.items()
    }


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, arrays in expected.items():
        assert got[name].keys() == arrays.keys(), name
        for key, value in arrays.items():
            if isinstance(value, np.ndarray):
                assert_same_bits(got[name][key], value, f"{key} of {name}")
            else:
                assert got[name][key] == value, f"{key} of {name}"
