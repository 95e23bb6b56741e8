"""Models that torch divides over processes: FSDP2, tensor parallel, both at once.

The gradients that torch leaves are put together, and one process steps with them: it must end with the same bits. And
one process that trains with the whole batch must end at the same loss, as far as the rounding of gradients goes.
"""

import functools

import numpy as np
import pytest
import torch

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers.torch_spec import case

if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
    pytest.skip("this torch has FSDP2 under another name", allow_module_level=True)

from torch.distributed.tensor import DTensor

from tests.helpers import models
from tests.helpers import ranks as at
from tests.helpers.models import PLANS, Net, assert_same, batch, everything, layout_of, whole
from tests.helpers.sharded import specified_norm

pytestmark = pytest.mark.xdist_group("distributed")
STEPS = 4


def train(rank, size, divide, name, options):
    model, mesh = divide(Net().to(at.device()), size)
    if isinstance(mesh, int):
        count, index = 1, mesh
    else:
        count, index = (size, rank) if mesh is None else (mesh.size(), mesh.get_local_rank())
    opt = getattr(fst, name)(model.parameters(), **options)
    losses, gradients, norms = [], [], []
    for step in range(STEPS):
        tokens = batch(step)
        loss = model(tokens[index * 12 // count : (index + 1) * 12 // count].to(at.device()))
        loss.backward()
        total = torch.stack([loss.detach().full_tensor() if isinstance(loss, DTensor) else loss.detach()])
        torch.distributed.all_reduce(total)
        losses.append(total.item() / size)
        grads = {n: p.grad for n, p in model.named_parameters()}
        gradients.append({n: (whole(g), layout_of(model.get_parameter(n))) for n, g in grads.items()})
        opt.step()
        norms.append(None if opt.total_norm is None else (opt.total_norm.item(), opt.clip_coefficient.item()))
        for p in model.parameters():
            if isinstance(p, DTensor):
                assert p.grad.placements == p.placements
        opt.zero_grad()
    return everything(model, opt), losses, gradients, norms


def alone(name, options, gradients, dtype):
    """One process steps with these gradients."""
    model = Net().to(dtype)
    opt = getattr(fst, name)(model.parameters(), **options)
    for grads in gradients:
        for n, p in model.named_parameters():
            if dtype != torch.float32 and not hasattr(p, "grad_dtype"):
                pytest.skip("this torch has no grad_dtype")
            p.grad_dtype = None
            p.grad = torch.from_numpy(grads[n].astype(np.float32))
        opt.step()
    return everything(model, opt)


@functools.cache
def trained_whole():
    """The losses of one process that sees the whole batch."""
    model = Net()
    opt = fst.AdamW(model.parameters(), lr=0.05, max_norm=0.5)
    losses = []
    for step in range(STEPS):
        loss = model(batch(step))
        loss.backward()
        losses.append(loss.item())
        opt.step()
        opt.zero_grad()
    return losses


def dtype_of(divide):
    return torch.bfloat16 if divide.func is models.in_bfloat16 else torch.float32


@pytest.mark.parametrize(("size", "divide"), PLANS)
def test_a_model_trains_as_in_one_process(ranks, size, divide):
    options = {"lr": 0.05, "max_norm": 0.5}
    results = ranks(train, size, divide, "AdamW", options, exact=size == 4)
    _, losses, gradients, norms = results[0]
    assert [r[3] for r in results] == [norms] * len(results)
    low = dtype_of(divide) == torch.bfloat16 or divide.func is models.low_precision
    assert losses == pytest.approx(trained_whole(), rel=2e-2 if low else 1e-5)
    assert losses[-1] < losses[0]
    scaled = []
    for grads, (norm, coefficient) in zip(gradients, norms, strict=True):
        specified = specified_norm(list(grads.values()), len(results))
        assert (norm, coefficient) == (specified, reference.clip_coefficient(specified, 0.5))
        scaled.append({n: reference.decode(g) * np.float32(coefficient) for n, (g, _) in grads.items()})
    assert min(coefficient for _, coefficient in norms) < 1
    expected = alone("AdamW", {"lr": 0.05}, scaled, dtype_of(divide))
    for got, *_ in results:
        assert_same(got, expected)


@pytest.mark.parametrize(("size", "divide"), PLANS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        case("SGD", lr=0.1, momentum=0.9, nesterov=True, l1=1e-3),
        case("AdamW", lr=0.05, ema_decay=0.9, cautious="unscaled", state_dtype="bfloat16"),
    ],
)
def test_steps_without_clipping_have_the_same_bits(ranks, size, divide, name, options):
    results = ranks(train, size, divide, name, options, exact=size == 4)
    gradients = [{n: reference.decode(g) for n, (g, _) in grads.items()} for grads in results[0][2]]
    expected = alone(name, options, gradients, dtype_of(divide))
    for got, *_ in results:
        assert_same(got, expected)


def placements(rank, size):
    model, _ = models.fsdp_and_tp(Net().to(at.device()), size)
    model(batch(0)[:4].to(at.device())).backward()
    return [(n, tuple(p.device_mesh.shape), str(p.placements)) for n, p in model.named_parameters()]


def test_these_models_have_the_placements_that_the_tests_are_about(ranks):
    """Strided ones, and parameters on a part of the mesh."""
    (found, *_) = ranks(placements, 4, exact=True)
    shapes = {shape for _, shape, _ in found}
    assert shapes == {(2, 2), (2,)}
    text = {n: p for n, _, p in found}
    assert "Strided" in text["blocks.0.up.weight"] or "_S(" in text["blocks.0.up.weight"]


def partial_gradients(rank, size):
    model, _ = models.tp(Net().to(at.device()), size)
    model(batch(0).to(at.device())).backward()
    norm = model.blocks[0].norm
    before = [str(p.grad.placements) for p in norm.parameters()]
    sums = [p.grad.full_tensor() for p in norm.parameters()]
    fst.SGD(norm.parameters(), lr=0.1).step()
    for p, total in zip(norm.parameters(), sums, strict=True):
        assert p.grad.placements == p.placements
        assert torch.equal(p.grad.to_local(), total)
    return before


def test_sequence_parallel_norms_have_partial_gradients(ranks):
    for before in ranks(partial_gradients, 2):
        assert all("P" in text for text in before)


def accumulated(rank, size):
    """Two micro-batches, the first without communication; then a step, all on one rank's bits."""
    model, _ = models.fsdp(Net().to(at.device()), size)
    opt = fst.AdamW(model.parameters(), lr=0.05, max_norm=0.5)
    own = batch(0)[rank * 12 // size : (rank + 1) * 12 // size].to(at.device())
    half = len(own) // 2
    for k, part in enumerate((own[:half], own[half:])):
        model.set_requires_gradient_sync(k == 1)
        (model(part) / 2).backward()
    opt.step()
    return everything(model, opt)


def test_accumulated_gradients(ranks):
    results = ranks(accumulated, 2)
    model = Net()
    opt = fst.AdamW(model.parameters(), lr=0.05, max_norm=0.5)
    model(batch(0)).backward()
    opt.step()
    expected = everything(model, opt)
    for got in results:
        for name, arrays in expected.items():
            np.testing.assert_allclose(got[name]["exp_avg"], arrays["exp_avg"], rtol=1e-4, atol=1e-7)
