"""Timing: contenders take turns on the same memory, on fresh random gradients, with caches warm or scrubbed."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness.cases import Case
from machine import cache_mib

GRADIENT = 1e-3  # standard deviation
POOL = 2**22  # random numbers that all data is taken from, at changing places: filling 124M anew would take seconds
MOST = 100  # samples of one contender


def dtype_of(case: Case) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, case.dtype)
    return dtype


class Data:
    """Parameters with gradients, which :meth:`refresh` replaces in place."""

    def __init__(self, case: Case, tiny: bool = False) -> None:
        generator = torch.Generator(device=case.device).manual_seed(0)
        make = {"generator": generator, "device": case.device, "dtype": torch.float32}
        self._pool = torch.randn(POOL + 4096, **make).to(dtype_of(case))
        self._small = self._pool * GRADIENT
        # Two elements, not one: a tensor of one may be a number, which some have to ask for more than an array.
        shapes = [(2,)] * len(case.shapes.tensors) if tiny else case.shapes.tensors
        self._turn = 0
        self.params = [torch.nn.Parameter(self._like(shape, self._pool)) for shape in shapes]
        for p in self.params:
            p.grad = self._like(tuple(p.shape), self._small)

    def _like(self, shape: tuple[int, ...], source: torch.Tensor) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=source.dtype, device=source.device)
        self._fill(tensor, source)
        return tensor

    def _fill(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        flat = tensor.view(-1)
        for start in range(0, flat.numel(), POOL):
            self._turn = (self._turn * 69069 + 1) % 4096
            part = flat[start : start + POOL]
            part.copy_(source[self._turn : self._turn + part.numel()])

    def state(self, case: Case) -> dict[Any, dict[str, Any]]:
        """What a torch optimizer of these parameters has after a step: one memory for all that keep these arrays."""
        value = case.rule.spec.initial({**case.rule.spec.defaults, **case.rule.options})
        count = {"step": 1.0} if case.rule.spec.has_step else {}
        return {
            p: {
                **{name: torch.tensor(n) for name, n in count.items()},
                **{name: torch.full_like(p, value, requires_grad=False) for name in case.rule.states},
            }
            for p in self.params
        }

    @torch.no_grad()
    def refresh(self) -> None:
        """Other gradients, as after a backward pass: just written, never zero."""
        for p in self.params:
            self._fill(p.grad, self._small)


class Scrubber:
    """Replaces what is in the caches: writes twice the last-level cache, at most a gigabyte."""

    def __init__(self, device: str) -> None:
        size = int(min(2 * (cache_mib() or 64), 1024)) * 2**20 if device == "cpu" else 2**28
        self._buffer = torch.ones(size // 4, device=device)

    def __call__(self) -> None:
        self._buffer.add_(1)


Sample = tuple[float, float | None]
"""Seconds of a step, and those after which the call has returned where that is before its end."""


def sample_cpu(step: Callable[[], Any]) -> Sample:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start, None


class SampleCuda:
    """Events around a step that was queued while the device slept, so that the host's part is not in them."""

    def __init__(self) -> None:
        self._host: dict[int, float] = {}

    def __call__(self, step: Callable[[], Any]) -> Sample:
        ahead = 2 * self._host.get(id(step), 5e-3) + 50e-6
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(int(min(ahead, 0.2) * 2e9))  # cycles of at most 2 GHz
        begin.record()
        start = time.perf_counter()
        step()
        host = time.perf_counter() - start
        end.record()
        end.synchronize()
        self._host[id(step)] = host
        return begin.elapsed_time(end) / 1e3, host


def sampler(device: str) -> Callable[[Callable[[], Any]], Sample]:
    return sample_cpu if device == "cpu" else SampleCuda()


class TooLong(BaseException):
    """What was to be done in limited time was not. No Exception: compilers go on after those."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLong` in the main thread after so many seconds: for compilers that take minutes."""

    def interrupt(*_: Any) -> None:
        raise TooLong(f"not ready after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def take_turns(
    steps: dict[str, Callable[[], Any]],
    case: Case,
    data: Data,
    budget: float,
    least: int,
    tell: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Sample]]:
    """A B C A B C ...: samples of each, at least ``least``, within about ``budget`` seconds.

    A contender that has used its share of the budget sits out, so that a slow one does not take the others' samples.
    """
    sample = sampler(case.device)
    scrub = Scrubber(case.device) if case.cache == "cold" else None
    samples: dict[str, list[Sample]] = {name: [] for name in steps}
    used = dict.fromkeys(steps, 0.0)
    begin = time.perf_counter()
    gc.collect()
    gc.disable()  # a collection of Python's in the middle of one step would be an outlier of that one
    try:
        while True:
            late = time.perf_counter() - begin > budget
            turn = [
                name
                for name in steps
                if len(samples[name]) < least
                or (not late and len(samples[name]) < MOST and used[name] < budget / len(steps))
            ]
            if not turn:
                return samples
            for name in turn:
                tell(name)
                start = time.perf_counter()
                data.refresh()
                if scrub:
                    scrub()
                samples[name].append(sample(steps[name]))
                used[name] += time.perf_counter() - start
    finally:
        gc.enable()


def nbytes(arrays: list[Any]) -> int:
    """Bytes of tensors, of those that a tensor subclass is made of, and of NumPy arrays; each memory once."""
    seen: dict[int, int] = {}
    todo = list(arrays)
    while todo:
        x = todo.pop()
        if hasattr(type(x), "__tensor_flatten__") and type(x) is not torch.Tensor:
            todo += [getattr(x, name) for name in x.__tensor_flatten__()[0]]
        elif isinstance(x, torch.Tensor):
            storage = x.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        else:
            seen[x.ctypes.data] = x.nbytes
    return sum(seen.values())


def peak_bytes(step: Callable[[], Any], device: str) -> int | None:
    """Memory that a step needs for a while; on the CPU by resident pages, so blind below a megabyte."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
        before = _kib(status, "VmRSS")
        step()
        return max(0, _kib(status, "VmHWM") - before) * 1024
    except OSError:
        return None  # not Linux, or not allowed


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def free_bytes(device: str) -> int:
    if device != "cpu":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
