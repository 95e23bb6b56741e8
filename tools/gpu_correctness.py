"""Is the answer right on a GPU? Tests, sanitizers, and what needs a real device: graphs, scaling, memory that runs out.

    pip install . -C cmake.define.FUSEDSTEP_CUDA=ON -C cmake.define.CMAKE_CUDA_ARCHITECTURES=native
    python tools/gpu_correctness.py                          all cases, under six minutes
    python tools/gpu_correctness.py --cases memcheck cupy    some
    python tools/gpu_correctness.py --list

Needs torch with CUDA, pytest and hypothesis, no network. Every case is saved when it ends. A second call goes on with
those that have not passed. compute-sanitizer and CuPy take part where they are installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

import fusedstep.torch
from fusedstep import functional
from gpu_run import ROOT, Case, main, python

SIZES = ((257, 33), (1000,), (7,))
LARGE = ((7,), (4_000_000,))  # the second has memory of its own: none of it is left in a block of torch's cache
# Without torch's cache every tensor is an allocation of its own, whose ends memcheck knows.
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
ADAMW = "test_gpu and AdamW and (equals_the_cpu and float32 or sixteen_bits and bfloat16-bfloat16)"


def parameters(device: str, sizes: tuple[tuple[int, ...], ...] = SIZES) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(t) for t in gradients(device, 0, sizes)]


def gradients(device: str, seed: int, sizes: tuple[tuple[int, ...], ...] = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).to(device) for size in sizes]


def same(some: list[torch.nn.Parameter], others: list[torch.nn.Parameter]) -> None:
    for a, b in zip(some, others, strict=True):
        assert a.detach().cpu().numpy().tobytes() == b.detach().cpu().numpy().tobytes(), "other bits"


def grad_scaler(device: str = "cuda") -> None:
    """A scaler that leaves unscaling and skipping to the step gives the bits of one that does both itself."""
    trained, skipped = [], []
    for within in (True, False):
        params, scaler = parameters(device), torch.amp.GradScaler(device, init_scale=2.0**10)
        opt = fusedstep.torch.AdamW(params, lr=0.1, fused=within or None)
        for step in range(5):
            scale = float(scaler.scale(torch.ones((), device=device)))
            for p, g in zip(params, gradients(device, step), strict=True):
                p.grad = g * (torch.inf if step == 2 else scale)
            scaler.step(opt)
            scaler.update()
        trained.append(params)
        skipped.append(int(opt.skipped_steps))
        assert scaler.get_scale() == 2.0**9, "the overflow did not halve the scale"
    same(*trained)
    assert skipped == [1, 0], skipped  # the second was not called in the step that overflowed


def whole_step_graph(device: str = "cuda") -> None:
    """Forward, backward and step in one CUDA graph give the bits of steps that are called one by one."""
    trained = []
    for captured in (False, True):
        params = parameters(device)
        opt = fusedstep.torch.AdamW(params, lr=0.01, max_norm=1.0, capturable=True)

        def step(params: list[torch.nn.Parameter] = params, opt: torch.optim.Optimizer = opt) -> None:
            opt.zero_grad(set_to_none=True)
            torch.stack([torch.tanh(3 * p).pow(2).sum() for p in params]).sum().backward()
            opt.step()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            step = graph.replay
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        trained.append(params)
    same(*trained)


def out_of_memory(device: str = "cuda") -> None:
    """A first step without memory for its state raises and changes nothing; with memory it is the CPU's step."""
    here, there = (parameters(where, LARGE) for where in (device, "cpu"))
    for params, where in ((here, device), (there, "cpu")):
        for p, g in zip(params, gradients(where, 1, LARGE), strict=True):
            p.grad = g
    opt = fusedstep.torch.AdamW(here, lr=0.1)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0)
    try:
        opt.step()
    except torch.OutOfMemoryError:
        pass
    else:
        raise AssertionError("there was memory")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    same(here, there)
    opt.step()
    fusedstep.torch.AdamW(there, lr=0.1).step()
    same(here, there)


def cupy(device: str = "cuda") -> None:
    """Arrays of CuPy are updated in place, with the bits of NumPy's."""
    import cupy as cp  # type: ignore[import-not-found]

    one = [[np.array(t.detach().numpy()) for t in parameters("cpu")], [t.numpy() for t in gradients("cpu", 1)]]
    arrays = [*one, [np.zeros_like(a) for a in one[0]], [np.zeros_like(a) for a in one[0]]]
    on_gpu = [[cp.asarray(a) for a in some] for some in arrays]
    for lists in (arrays, on_gpu):
        functional.adamw(*lists, step=1, lr=0.1, max_norm=1.0, **({"norm_out": cp.empty(1)} if lists is on_gpu else {}))
    for some, others in zip(arrays, on_gpu, strict=True):
        for a, b in zip(some, others, strict=True):
            assert a.tobytes() == cp.asnumpy(b).tobytes(), "other bits"


FUNCTIONS: dict[str, Callable[[], None]] = {
    "grad-scaler": grad_scaler,
    "whole-step-graph": whole_step_graph,
    "out-of-memory": out_of_memory,
    "cupy": cupy,
}


def tests(name: str, about: str, where: str) -> Case:
    """Without a test of that name pytest ends with status 5, which is no success."""
    return Case(name, about, python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "-k", where))


def function(name: str) -> Case:
    about = (FUNCTIONS[name].__doc__ or "").strip()
    return Case(name, about, python(__file__, "--function", name), 60.0, module="cupy" if name == "cupy" else "")


def sanitized(tool: str) -> Case:
    """compute-sanitizer on the cases of AdamW: the others differ from it in arithmetic alone."""
    command = "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *tests("", "", ADAMW).command
    about, env = f"compute-sanitizer, {tool}: the cases of AdamW", UNCACHED if tool == "memcheck" else {}
    return Case(tool, about, command, 90.0, env, program="compute-sanitizer")


CASES = [
    tests("torch", "the torch classes: graphs, streams, launches, the bits of the CPU", "test_gpu"),
    *(function(name) for name in FUNCTIONS),
    tests("equality", "every rule and option, against the specification", "test_equality"),
    tests("arrays", "layouts and norms, against the specification", "test_layout or test_norm"),
    *(sanitized(tool) for tool in ("memcheck", "racecheck", "initcheck")),
]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--function"]:
        FUNCTIONS[sys.argv[2]]()
    else:
        raise SystemExit(main(__doc__, CASES, ROOT / "build/gpu-correctness"))
