"""On a real GPU: the torch classes and functions against the CPU, bit for bit; graphs, streams, launches.

Every rule, option, size and layout is in ``tests/core``, whose ``backend`` includes a GPU where there is one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fusedstep.torch as fst
from fusedstep import functional, reference
from tests.helpers.devices import GPU
from tests.helpers.torch_spec import SHORT

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not GPU, reason="needs a CUDA device and a build with CUDA")]
LARGE = [(3_000_017,), (1000, 1003), (768, 768), (5,), (0,), (33, 7, 3)]
MANY = [(1 + k % 40,) for k in range(6000)]


def models(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[list[nn.Parameter]]:
    """The same parameters on the CPU and on the GPU."""
    generator = torch.Generator().manual_seed(0)
    cpu = [nn.Parameter(torch.randn(s, dtype=dtype, generator=generator)) for s in shapes]
    return [cpu, [nn.Parameter(p.detach().cuda()) for p in cpu]]


def set_grads(both: list[list[nn.Parameter]], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for cpu, gpu in zip(*both, strict=True):
        cpu.grad = torch.randn(cpu.shape, dtype=cpu.dtype, generator=generator) * scale
        gpu.grad = cpu.grad.cuda()


def same(a: Any, b: Any) -> bool:
    """Of tensors, wherever they are, and of ids."""
    return torch.equal(a.cpu(), b.cpu()) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


def assert_same(both: list[list[nn.Parameter]], optimizers: list[Any]) -> None:
    for cpu, gpu in zip(*both, strict=True):
        assert torch.equal(cpu, gpu.cpu())
        states = [opt.state.get(p, {}) for opt, p in zip(optimizers, (cpu, gpu), strict=True)]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            assert same(value, states[1][key]), key


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("shapes", [LARGE, MANY], ids=["large", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_equals_the_cpu(name: str, options: dict[str, Any], max_norm: float | None, shapes: Any, dtype: Any) -> None:
    both = models(shapes, dtype)
    optimizers = [getattr(fst, name)(ps, **{"lr": 0.05, **options}, max_norm=max_norm) for ps in both]
    for seed in range(3):
        set_grads(both, seed)
        for opt in optimizers:
            opt.step()
        norms = [opt.total_norm for opt in optimizers]
        assert norms == [None, None] if max_norm is None else float(norms[0]) == float(norms[1])
    assert_same(both, optimizers)


@pytest.mark.parametrize(("name", "options"), [c for c in SHORT if not c.values[1].get("centered")])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("state_dtype", [None, "bfloat16"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"]
)
def test_sixteen_bits(
    name: str, options: dict[str, Any], max_norm: float | None, state_dtype: str | None, dtype: torch.dtype
) -> None:
    both = models([*LARGE[1:], (70_001,)], dtype)
    own = {"lr": 0.05, **options, "max_norm": max_norm, "state_dtype": state_dtype}
    optimizers = [getattr(fst, name)(ps, **own, seed=2**63 + 7) for ps in both]
    for seed in range(3):
        set_grads(both, seed)
        for opt in optimizers:
            opt.step()
    assert_same(both, optimizers)
    if max_norm is not None:
        assert float(optimizers[0].total_norm) == float(optimizers[1].total_norm)
    norms = [fst.clip_grad_norm_(ps, 0.5) for ps in both]
    assert norms[0].dtype == norms[1].dtype == torch.float32
    assert norms[0] == norms[1].cpu()
    for cpu, gpu in zip(*both, strict=True):
        assert torch.equal(cpu.grad, gpu.grad.cpu())


def test_a_scaler_with_float16_gradients() -> None:
    both = models(LARGE[1:], torch.float16)
    optimizers = [fst.AdamW(ps, lr=0.05, fused=True) for ps in both]
    scalers = [torch.amp.GradScaler(device, init_scale=256.0) for device in ("cpu", "cuda")]
    for seed in range(4):
        set_grads(both, seed)
        for ps, opt, scaler in zip(both, optimizers, scalers, strict=True):
            scaler.scale(torch.ones((), device=ps[0].device))
            if seed == 2:
                ps[0].grad[3] = math.inf
            scaler.step(opt)
            scaler.update()
    assert [scaler.get_scale() for scaler in scalers] == [128.0, 128.0]
    assert [int(opt.skipped_steps) for opt in optimizers] == [1, 1]
    assert_same(both, optimizers)


@pytest.mark.parametrize("storage", [(torch.float32, None), (torch.bfloat16, "bfloat16")], ids=["float32", "bfloat16"])
def test_layouts(storage: Any) -> None:
    both = models([(64, 32, 5, 5), (100, 300)], storage[0])
    for ps in both:
        ps[0].data = ps[0].data.to(memory_format=torch.channels_last)
        ps[1].data = ps[1].data.t().contiguous().t()
    optimizers = [fst.AdamW(ps, max_norm=1.0, state_dtype=storage[1]) for ps in both]
    for seed in range(2):
        set_grads(both, seed)  # contiguous, unlike the parameters
        for opt in optimizers:
            opt.step()
    assert_same(both, optimizers)


@pytest.mark.parametrize("storage", [(torch.float32, None), (torch.bfloat16, "bfloat16")], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("shapes", [[(1000,)] * 300, MANY], ids=["300", "6000"])
def test_replays_equal_eager_steps(storage: Any, name: str, max_norm: float | None, shapes: Any) -> None:
    options = {"momentum": 0.9} if name == "SGD" else {"capturable": True}
    options["state_dtype"] = storage[1]
    sides = []
    for _ in range(2):
        _, params = models(shapes, storage[0])
        opt = getattr(fst, name)(params, lr=torch.tensor(0.05, device="cuda"), max_norm=max_norm, **options)
        for p in params:
            p.grad = torch.zeros_like(p)
        sides.append((opt, params))
    (eager, eager_params), (captured, captured_params) = sides
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        captured.step()
    torch.cuda.current_stream().wait_stream(side)
    eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for step in range(5):
        generator = torch.Generator(device="cuda").manual_seed(step)
        for a, b in zip(eager_params, captured_params, strict=True):
            a.grad.copy_(torch.randn(a.shape, generator=generator, device="cuda"))
            b.grad.copy_(a.grad)
        for opt in (eager, captured):
            opt.param_groups[0]["lr"].fill_(0.1 / (step + 1))
        eager.step()
        graph.replay()
    for a, b in zip(eager_params, captured_params, strict=True):
        assert torch.equal(a, b)
        for key, value in eager.state[a].items():
            assert same(value, captured.state[b][key]), key
    if max_norm is not None:
        assert float(eager.total_norm) == float(captured.total_norm)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_a_capture_without_capturable_raises() -> None:
    _, params = models([(5,)])
    opt = fst.AdamW(params)
    params[0].grad = torch.ones_like(params[0])
    opt.step()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        try:
            with pytest.raises(RuntimeError, match="expected a torch optimizer with capturable=True"):
                opt.step()
        finally:
            graph.capture_end()
    assert float(opt.state[params[0]]["step"]) == 1.0


def test_side_streams() -> None:
    """On torch's current stream, whichever that is, with nothing but torch's own ordering."""
    both = models(MANY)
    optimizers = [fst.AdamW(ps, max_norm=1.0) for ps in both]
    streams = [torch.cuda.Stream() for _ in range(3)]
    for seed in range(9):
        set_grads(both, seed)
        optimizers[0].step()
        stream = streams[seed % 3]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)
            optimizers[1].step()
        torch.cuda.current_stream().wait_stream(stream)
    assert_same(both, optimizers)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_grad_scaler_without_waiting() -> None:
    both = models(LARGE)
    optimizers = [fst.AdamW(ps, max_norm=1.0) for ps in both]
    scalers = [torch.amp.GradScaler(device, init_scale=8.0) for device in ("cpu", "cuda")]
    for scaler, device in zip(scalers, ("cpu", "cuda"), strict=True):
        scaler.scale(torch.ones((), device=device))
    for seed in range(5):
        set_grads(both, seed, 8.0)
        if seed in (0, 3):
            for ps in both:
                ps[0].grad[7] = math.inf
        for scaler, opt in zip(scalers, optimizers, strict=True):
            waiting = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                scaler.step(opt)
            finally:
                torch.cuda.set_sync_debug_mode(waiting)
            scaler._scale.fill_(8.0)
            scaler.update(8.0)
    for cpu, gpu in zip(*both, strict=True):
        assert torch.equal(cpu, gpu.cpu())


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_clipping_functions(norm_type: float) -> None:
    both = models(LARGE)
    set_grads(both, 0)
    norms = [fst.clip_grad_norm_(ps, 0.5, norm_type) for ps in both]
    assert norms[1].is_cuda
    assert float(norms[0]) == float(norms[1])
    assert float(fst.get_total_norm([p.grad for p in both[0]])) == float(fst.get_total_norm([p.grad for p in both[1]]))
    for ps in both:
        fst.clip_grads_with_norm_(ps, 0.1, fst.get_total_norm([p.grad for p in ps]))
        fst.clip_grad_value_(ps, 1e-4)
    assert all(torch.equal(a.grad, b.grad.cpu()) for a, b in zip(*both, strict=True))


def kernels_of(step: Any) -> list[str]:
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        step()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [e.name for e in events if not e.name.startswith(("Optimizer.", "ProfilerStep"))]


@pytest.mark.parametrize(("max_norm", "launches"), [(None, 1), (1.0, 3)])
def test_launches(max_norm: float | None, launches: int) -> None:
    _, params = models([(1000,)] * 1000)
    for p in params:
        p.grad = torch.ones_like(p)
    names = kernels_of(fst.AdamW(params, max_norm=max_norm).step)
    assert len(names) == launches, names


def test_state_of_torch_goes_on() -> None:
    """A checkpoint of torch's own, its step counts on the host, and one of fused=True, on the device."""
    for fused in (False, True):
        _, params = models([(50, 3)])
        params[0].grad = torch.ones_like(params[0])
        theirs = torch.optim.AdamW(params, fused=fused)
        theirs.step()
        ours = fst.AdamW(params)
        ours.load_state_dict(theirs.state_dict())
        ours.step()
        assert float(ours.state[params[0]]["step"]) == 2.0


def test_functional_on_tensors_and_cupy() -> None:
    p, g = np.arange(5, dtype=np.float32), np.ones(5, np.float32)
    want = reference.sgd(p, g, lr=0.5, clip_coef=reference.clip_coefficient(reference.total_norm([g]), 1.0))[0]
    tensor = torch.from_numpy(p.copy()).cuda()
    assert functional.sgd(tensor, torch.from_numpy(g).cuda(), lr=0.5, max_norm=1.0) == reference.total_norm([g])
    assert np.array_equal(tensor.cpu().numpy(), want)
    cupy = pytest.importorskip("cupy")
    array = cupy.asarray(p)
    functional.sgd(array, cupy.asarray(g), lr=0.5, max_norm=1.0)
    assert np.array_equal(cupy.asnumpy(array), want)


def test_wrong_places() -> None:
    gpu, cpu = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(ValueError, match=r"sgd: grads\[0\] is on device cpu, expected cuda:0 to match params\[0\]"):
        functional.sgd(gpu, cpu, lr=0.1)
    with pytest.raises(ValueError, match=r"capturable=True is for CUDA graphs"):
        fst.AdamW([nn.Parameter(cpu)], capturable=True)
    p = nn.Parameter(gpu)
    p.grad = torch.ones_like(p)
    opt = fst.AdamW([p])
    opt.step()
    opt.state[p]["exp_avg"] = opt.state[p]["exp_avg"].cpu()
    before = p.detach().clone()
    with pytest.raises(ValueError, match=r"AdamW: exp_avg\[0\] is on device cpu, expected cuda:0"):
        opt.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_steps_skipped_for_their_norm(name: str, options: dict[str, Any]) -> None:
    """Decided by the kernels, with the report of the CPU; nothing waits but a first step of SGD with momentum."""
    both = models(LARGE)
    optimizers = [getattr(fst, name)(ps, **{"lr": 0.05, **options}, max_norm=0.5, nonfinite="skip") for ps in both]
    for seed in range(6):
        set_grads(both, seed)
        if seed in (0, 2, 3):
            for ps in both:
                ps[0].grad[7] = math.inf if seed else math.nan
        for opt in optimizers:
            waiting = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error" if opt.state or name != "SGD" else waiting)
            try:
                opt.step()
            finally:
                torch.cuda.set_sync_debug_mode(waiting)
        for what in ("total_norm", "clip_coefficient", "clipped_steps", "skipped_steps"):
            cpu, gpu = (getattr(opt, what) for opt in optimizers)
            assert gpu.is_cuda
            assert torch.equal(cpu, gpu.cpu()) or cpu.isnan() == gpu.cpu().isnan() == 1, what
    assert [opt.skipped_steps.item() for opt in optimizers] == [3, 3]
    assert_same(both, optimizers)


def test_a_norm_over_ranks_with_nccl(tmp_path: Any) -> None:
    """A world of one: the way of the sums to the other ranks and back changes no bit."""
    import torch.distributed as dist

    if not dist.is_nccl_available():
        pytest.skip("this torch has no nccl")
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        both = models(LARGE)
        groups = (None, dist.group.WORLD)
        optimizers = [fst.AdamW(ps, max_norm=0.5, norm_group=g) for ps, g in zip(both, groups, strict=True)]
        for seed in range(3):
            set_grads(both, seed)
            for opt in optimizers:
                opt.step()
            assert float(optimizers[0].total_norm) == float(optimizers[1].total_norm)
        assert_same(both, optimizers)
        norms = [fst.clip_grad_norm_(ps, 0.5, norm_group=g) for ps, g in zip(both, groups, strict=True)]
        assert float(norms[0]) == float(norms[1])
    finally:
        dist.destroy_process_group()
