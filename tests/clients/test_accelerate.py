"""accelerate: GradScaler and skipped steps, schedules, accumulation, saved states."""

from __future__ import annotations

import math

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import assert_same, need, training

accelerate = need("accelerate")
need("accelerate.optimizer")
need("accelerate.scheduler")

ours, theirs = fusedstep.torch, torch.optim


def scaled_run(library, gradients, name="AdamW", **options):
    """The optimizer and schedule that ``prepare`` makes for fp16, which accelerate itself has for GPUs only."""
    accelerate.Accelerator(cpu=True)
    p = torch.nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
    scaler.scale(torch.tensor(1.0))
    raw = getattr(library, name)([p], lr=0.1, **options)
    halving = torch.optim.lr_scheduler.StepLR(raw, 1, 0.5)
    opt = accelerate.optimizer.AcceleratedOptimizer(raw, scaler=scaler)
    schedule = accelerate.scheduler.AcceleratedScheduler(halving, opt)
    seen = []
    for gradient in gradients:
        p.grad = scaler.get_scale() * torch.tensor(gradient)
        opt.step()
        schedule.step()
        seen.append((opt.step_was_skipped, opt.param_groups[0]["lr"], scaler.get_scale(), p.grad.tolist()))
        opt.zero_grad()
    return seen, p.detach(), raw


GRADIENTS = [[1.0, 2.0], [math.inf, 1.0], [3.0, -1.0], [math.nan, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("first", [0, 1], ids=["", "overflow first"])
def test_skipped_steps_and_schedules(name, first):
    seen, p, opt = scaled_run(ours, GRADIENTS[first:], name)
    expected, q, _ = scaled_run(theirs, GRADIENTS[first:], name)
    assert [skipped for skipped, *_ in seen] == [False, True, False, True, False][first:]
    torch.testing.assert_close(seen, expected, equal_nan=True)
    torch.testing.assert_close(p, q)
    assert opt.skipped_steps == 0  # GradScaler does not call these


def test_a_step_that_clips_skips_by_itself():
    """As with torch's fused=True: accelerate sees a step, so the schedule goes on; ``skipped_steps`` tells."""
    seen, p, opt = scaled_run(ours, GRADIENTS, max_norm=1.0)
    expected, *_ = scaled_run(theirs, GRADIENTS, fused=True)
    assert [entry[:3] for entry in seen] == [entry[:3] for entry in expected]
    assert not any(skipped for skipped, *_ in seen)
    assert opt.skipped_steps == 2
    assert opt.clipped_steps == 3
    assert opt.total_norm.item() == pytest.approx(math.sqrt(2))
    assert opt.state_dict()["state"][0]["step"] == 3
    assert p.isfinite().all()


@pytest.mark.parametrize("clip", ["client", "value", "step"])
@pytest.mark.parametrize("name", ["RMSprop", "AdamW"])
def test_accumulated_gradients(clip, name):
    def run(library, clip):
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        limit = {"max_norm": 0.5} if clip == "step" else {}
        x = torch.randn(64, 8)
        model, opt, batches = accelerator.prepare(
            model, getattr(library, name)(model.parameters(), lr=0.05, **limit),
            torch.utils.data.DataLoader(x, batch_size=8),
        )  # fmt: skip
        losses = []
        for _ in range(2):
            for x in batches:
                with accelerator.accumulate(model):
                    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and clip == "client":
                        accelerator.clip_grad_norm_(model.parameters(), 0.5)
                    if accelerator.sync_gradients and clip == "value":
                        accelerator.clip_grad_value_(model.parameters(), 0.05)
                    opt.step()
                    opt.zero_grad()
                losses.append(loss.item())
        return training(model, opt, losses)

    got, expected = run(ours, clip), run(theirs, "client" if clip == "step" else clip)
    assert_same(got, expected)
    if clip == "step":
        assert 0 < got.optimizer.clipped_steps <= 6  # steps, not batches


@pytest.mark.parametrize(("first", "second"), [(theirs, ours), (ours, theirs)], ids=["from torch", "to torch"])
def test_state_of_the_other_library(first, second, tmp_path):
    def start(library):
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(cpu=True)
        model = torch.nn.Linear(8, 1)
        limit = {"max_norm": 0.5} if library is ours else {}
        opt = library.AdamW(model.parameters(), lr=0.05, **limit)
        schedule = torch.optim.lr_scheduler.StepLR(opt, 5, 0.5)
        return library, accelerator, *accelerator.prepare(model, opt, schedule)

    def train(library, accelerator, model, opt, schedule):
        losses = []
        for seed in range(4):
            x = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
            loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
            accelerator.backward(loss)
            if library is theirs:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            schedule.step()
            opt.zero_grad()
            losses.append(loss.item())
        return training(model, opt, losses)

    train(*(saved := start(first)))
    saved[1].save_state(tmp_path / "half")
    results = []
    for library in (second, theirs):
        resumed = start(library)
        resumed[1].load_state(tmp_path / "half")
        results.append(train(*resumed))
    assert_same(*results)
    assert results[0].state_dict["state"][0]["step"] == 8
    assert results[0].state_dict["param_groups"][0]["lr"] == 0.025
