"""timm: optimizers by name, groups by layer, its schedules, its scaler, Lookahead."""

from __future__ import annotations

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import assert_same, need, training

timm = need("timm")
need("timm.optim")
need("timm.scheduler")
need("timm.utils")

ours, theirs = fusedstep.torch, torch.optim


def tiny():
    torch.manual_seed(0)
    return timm.create_model("test_byobnet", num_classes=2)


def train(model, opt, clip=None, schedule=None, scaler=None, steps=4):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 64, 64, generator=generator), torch.arange(8) % 2
    losses = []
    for step in range(steps):
        if schedule is not None:
            schedule.step_update(step)
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        if scaler is not None:
            scaler(loss, opt, clip_grad=clip, parameters=model.parameters())
        else:
            loss.backward()
            if clip is not None:
                timm.utils.dispatch_clip_grad(model.parameters(), clip)
            opt.step()
        losses.append(loss.item())
    return training(model, opt, losses)


def register():
    registry = timm.optim._optim_factory.default_registry
    registry.register(timm.optim.OptimInfo("fusedadamw", ours.AdamW, "", has_betas=True))
    sgd = {"has_eps": False, "has_momentum": True, "defaults": {"nesterov": True}}  # as timm's own
    registry.register(timm.optim.OptimInfo("fusedsgd", ours.SGD, "", **sgd))


@pytest.mark.parametrize("decay", [{"weight_decay": 0.05}, {"weight_decay": 0.05, "layer_decay": 0.7}], ids=str)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_by_name(name, decay):
    register()
    options = {"lr": 0.01, "eps": 1e-3, **decay}
    runs = []
    for opt_name, limit, clip in ((f"fused{name}", {"max_norm": 1.0}, None), (name, {}, 1.0)):
        model = tiny()
        opt = timm.optim.create_optimizer_v2(model, opt_name, **options, **limit)
        schedule = timm.scheduler.CosineLRScheduler(opt, t_initial=4, warmup_t=2, t_in_epochs=False)
        runs.append(train(model, opt, clip, schedule))
    assert isinstance(runs[0].optimizer, fusedstep.torch.FusedOptimizer)
    assert len(runs[0].optimizer.param_groups) >= 2
    assert_same(*(run._replace(state_dict={**run.state_dict, "param_groups": lrs(run)}) for run in runs))
    assert runs[0].optimizer.clipped_steps > 0


def lrs(run):
    return [(group["lr"], group["weight_decay"]) for group in run.optimizer.param_groups]


@pytest.mark.parametrize("way", ["client", "step"])
def test_scaler(way):
    scalers = [timm.utils.NativeScaler(device="cpu") for _ in range(2)]
    runs = []
    for library, scaler in zip((ours, theirs), scalers, strict=True):
        model, own = tiny(), library is ours and way == "step"
        limit = {"max_norm": 1.0} if own else {}
        opt = library.SGD(model.parameters(), lr=0.05, momentum=0.9, **limit)
        runs.append(train(model, opt, None if own else 1.0, scaler=scaler))
    assert_same(*runs)
    assert scalers[0].state_dict() == scalers[1].state_dict()


def test_adaptive_clipping():
    runs = []
    for library in (ours, theirs):
        model = tiny()
        opt = library.SGD(model.parameters(), lr=0.05, momentum=0.9)
        images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            opt.zero_grad()
            model(images).square().mean().backward()
            timm.utils.dispatch_clip_grad(model.parameters(), 0.01, mode="agc")
            opt.step()
        runs.append(training(model, opt))
    assert_same(*runs)


def test_lookahead():
    """A wrapper that shares the groups and adds keys of its own to them."""
    runs = []
    for library, limit, clip in ((ours, {"max_norm": 1.0}, None), (theirs, {}, 1.0)):
        model = tiny()
        base = library.SGD(model.parameters(), lr=0.05, momentum=0.9, **limit)
        run = train(model, timm.optim.Lookahead(base, alpha=0.5, k=2), clip, steps=5)
        runs.append(run._replace(state_dict=base.state_dict(), optimizer=base))
    assert_same(*runs)
    assert runs[0].optimizer.clipped_steps > 0
