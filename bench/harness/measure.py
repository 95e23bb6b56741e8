"""Timing: contenders take turns on the same memory, on fresh random gradients, with caches warm or scrubbed."""

from __future__ import annotations

import ctypes
import gc
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness.cases import Case
from machine import cache_mib

GRADIENT = 1e-3  # standard deviation
POOL = 2**22  # random numbers that all data is taken from, at changing places: filling 124M anew would take seconds
LONGEST_SLEEP, CYCLES = 0.3, 2e9  # seconds that a device sleeps at most, and its cycles in one: at most 2 GHz
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
        starts = case.rule.spec.starts({**case.rule.spec.defaults, **case.rule.options})
        count = {"step": 1.0} if case.rule.spec.has_step else {}
        return {
            p: {
                **{name: torch.tensor(n) for name, n in count.items()},
                **{name: torch.full_like(p, start, requires_grad=False) for name, start in starts.items()},
            }
            for p in self.params
        }

    @torch.no_grad()
    def fill(self, tensor: torch.Tensor) -> None:
        """Numbers like a gradient's into another tensor."""
        self._fill(tensor, self._small)

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
        self._buffer.sum()  # read again: no line that is still to be written back is left for the step to pay


class Sample(NamedTuple):
    """Seconds of a step; on a GPU of its device, beside those until the call returned and until all had ended."""

    seconds: float
    host: float | None = None
    wall: float | None = None
    waits: bool = False  # for the device, or for a place in its queue: it has no time of the device alone


def sample_cpu(step: Callable[[], Any]) -> Sample:
    start = time.perf_counter()
    step()
    return Sample(time.perf_counter() - start)


def sample_cuda(step: Callable[[], Any]) -> Sample:
    """Two steps: one by the host's clock, one between events and queued while the device slept.

    A step that returns only after the device has woken up waits for it, or for its queue. What the events of such a
    step show is the host's time, so its time is that until all has ended.
    """
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    wall = time.perf_counter() - start
    ahead = min(2 * host + 200e-6, LONGEST_SLEEP)
    begin, end, awake = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    torch.cuda._sleep(int(ahead * CYCLES))
    awake.record()
    begin.record()
    step()
    waits = awake.query()
    end.record()
    end.synchronize()
    return Sample(wall if waits else begin.elapsed_time(end) / 1e3, host, wall, waits)


def sampler(device: str) -> Callable[[Callable[[], Any]], Sample]:
    return sample_cpu if device == "cpu" else sample_cuda


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
    refresh: Callable[[str], None],
    budget: float,
    least: int,
    tell: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, list[Sample]], dict[str, Exception]]:
    """A B C B A C C B A ...: samples of each, at least ``least``, and what those raised that failed.

    ``refresh`` writes the gradients that the contender of that name reads. Each has the same share of the budget: a
    slow one gets fewer samples. The order of each round is drawn anew, since each finds in the caches what the one
    before it left there.
    """
    sample = sampler(case.device)
    scrub = Scrubber(case.device) if case.cache == "cold" else None
    samples: dict[str, list[Sample]] = {name: [] for name in steps}
    failed: dict[str, Exception] = {}
    used = dict.fromkeys(steps, 0.0)
    order = random.Random(0)
    gc.collect()
    gc.disable()  # a collection of Python's in the middle of one step would be an outlier of that one
    try:
        while True:
            names = [
                name
                for name in steps
                if name not in failed
                and (len(samples[name]) < least or (len(samples[name]) < MOST and used[name] < budget / len(steps)))
            ]
            if not names:
                return {name: taken for name, taken in samples.items() if name not in failed}, failed
            order.shuffle(names)
            for name in names:
                tell(name)
                start = time.perf_counter()
                refresh(name)
                if scrub:
                    scrub()
                try:
                    samples[name].append(sample(steps[name]))
                except Exception as error:  # out of memory, say: the others go on
                    failed[name] = error
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
    """Memory that a step needs for a while; on the CPU by resident pages, so blind for what the heap has at hand."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    status = Path("/proc/self/status")
    try:
        with suppress(OSError, AttributeError):  # other C libraries than glibc have no such function
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
        before = _kib(status, "VmRSS")
        step()
        return max(0, _kib(status, "VmHWM") - before) * 1024
    except OSError:
        return None  # not Linux, or not allowed


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def free_bytes(device: str) -> float:
    """What may still be taken: of the device, or of the machine and of the container that this runs in."""
    if device != "cpu":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info()[0])
    free = [math.inf]
    with suppress(OSError, StopIteration):
        free.append(_kib(Path("/proc/meminfo"), "MemAvailable") * 1024)
    with suppress(OSError, ValueError):  # no limit reads "max"
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free)
