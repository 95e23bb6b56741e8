"""skorch: who clips, options set in training, groups, schedules, checkpoints, copies."""

from __future__ import annotations

import pickle

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import assert_same, need, training

skorch = need("skorch")
need("skorch.callbacks")

ours, theirs = fusedstep.torch, torch.optim
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)
LIMIT = 0.5


def net_of(library, name, clip="client", callbacks=(), **options):
    torch.manual_seed(0)
    callbacks = list(callbacks)
    if clip == "client":
        callbacks.append(("clip", skorch.callbacks.GradientNormClipping(LIMIT)))
    else:
        options["optimizer__max_norm"] = LIMIT
    return skorch.NeuralNetRegressor(
        torch.nn.Linear(8, 1), optimizer=getattr(library, name), lr=0.05, batch_size=16, train_split=None, verbose=0,
        callbacks=callbacks, **options,
    )  # fmt: skip


def result(net):
    return training(net.module_, net.optimizer_, net.history[:, "train_loss"])


@pytest.mark.parametrize("clip", ["client", "step"])
@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "AdamW"])
def test_as_torch(name, clip):
    nets = []
    for library, way in ((ours, clip), (theirs, "client")):
        net = net_of(
            library, name, way, [("schedule", skorch.callbacks.LRScheduler("StepLR", step_size=2, gamma=0.5))],
            optimizer__param_groups=[("bias", {"weight_decay": 0.0})], optimizer__weight_decay=0.1,
        )  # fmt: skip
        nets.append(net.fit(X, Y, epochs=6))
    assert_same(*map(result, nets))
    opt = nets[0].optimizer_
    assert isinstance(opt, fusedstep.torch.FusedOptimizer)
    assert clip == "client" or opt.clipped_steps > 0


def test_options_set_in_training():
    nets = []
    for library, way in ((ours, "step"), (theirs, "client")):
        net = net_of(library, "AdamW", way).partial_fit(X, Y, epochs=2)
        if way == "step":
            net.set_params(optimizer__max_norm=0.1)
        else:
            net.set_params(callbacks__clip__gradient_clip_value=0.1)
        nets.append(net.set_params(optimizer__lr=0.02).partial_fit(X, Y, epochs=2))
    assert nets[0].optimizer_.param_groups[0]["max_norm"] == 0.1
    assert_same(*map(result, nets))


@pytest.mark.parametrize(("first", "second"), [(theirs, ours), (ours, theirs)], ids=["from torch", "to torch"])
def test_checkpoint_of_the_other_library(first, second):
    ways = {ours: "step", theirs: "client"}
    saving = skorch.callbacks.Checkpoint(monitor=None, dirname="half")
    net_of(first, "AdamW", ways[first], [("save", saving)]).fit(X, Y, epochs=3)
    nets = []
    for library in (second, theirs):
        load = skorch.callbacks.LoadInitState(skorch.callbacks.Checkpoint(monitor=None, dirname="half"))
        nets.append(net_of(library, "AdamW", ways[library], [("load", load)]).fit(X, Y, epochs=3))
    assert_same(*map(result, nets))
    assert nets[0].optimizer_.state_dict()["state"][0]["step"] == 24


def test_pickled_net_goes_on():
    net = net_of(ours, "AdamW", "step").fit(X, Y, epochs=2)
    copy = pickle.loads(pickle.dumps(net))
    for one in (net, copy):
        one.partial_fit(X, Y, epochs=2)
    assert_same(result(copy), result(net))
    assert copy.optimizer_.param_groups[0]["max_norm"] == LIMIT
