"""Timing: contenders take turns on the same memory, on fresh random gradients."""

from __future__ import annotations

import gc
import math
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.cases import Case

GRADIENT = 1e-3  # standard deviation
POOL = 2**22  # random numbers that all data is taken from, at changing places: filling 124M anew would take seconds
LONGEST_SLEEP, CYCLES = 0.3, 2e9  # seconds that a device sleeps at most, and its cycles in one: at most 2 GHz
MOST = 100  # samples of one contender


class Data:
    """Parameters with gradients, which :meth:`refresh` replaces in place."""

    def __init__(self, case: Case, tiny: bool = False) -> None:
        generator = torch.Generator(device=case.device).manual_seed(0)
        make = {"generator": generator, "device": case.device, "dtype": torch.float32}
        self._pool = torch.randn(POOL + 4096, **make).to(case.torch_dtype)
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
        """What a torch optimizer of these parameters has after a step: one memory for all that keep these arrays.

        Step counts and other states of one number are to be copied: each contender moves them on.
        """
        spec = case.rule.spec
        starts, numbers = spec.starts(case.rule.options), spec.number_starts(case.rule.options)
        numbers |= {"step": 1.0} if spec.has_step else {}
        return {
            p: {name: torch.tensor(x) for name, x in numbers.items()}
            | {name: torch.full_like(p, x, dtype=case.state_dtype, requires_grad=False) for name, x in starts.items()}
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


def mask_of(shape: tuple[int, ...]) -> torch.Tensor:
    """Which elements of a tensor of this shape train: half of them."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5


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
    device: str,
    refresh: Callable[[str], None],
    budget: float,
    least: int,
) -> tuple[dict[str, list[Sample]], dict[str, Exception]]:
    """A B C B A C C B A ...: samples of each, at least ``least``, and what those raised that failed.

    ``refresh`` writes the gradients that the contender of that name reads. Each has the same share of the budget: a
    slow one gets fewer samples. The order of each round is drawn anew, since each finds in the caches what the one
    before it left there.
    """
    sample = sampler(device)
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
                for name, taken in samples.items()
                if name not in failed
                and (len(taken) < least or (len(taken) < MOST and used[name] < budget / len(steps)))
            ]
            if not names:
                return {name: taken for name, taken in samples.items() if name not in failed}, failed
            order.shuffle(names)
            for name in names:
                start = time.perf_counter()
                refresh(name)
                try:
                    samples[name].append(sample(steps[name]))
                except Exception as error:  # out of memory, say: the others go on
                    failed[name] = error
                used[name] += time.perf_counter() - start
    finally:
        gc.enable()


def bytes_by_format(arrays: list[Any]) -> dict[str, int]:
    """Bytes of tensors, of those that a tensor subclass is made of, and of NumPy arrays, by dtype; each memory once."""
    seen: dict[int, tuple[str, int]] = {}
    todo = list(arrays)
    while todo:
        x = todo.pop()
        if hasattr(type(x), "__tensor_flatten__") and type(x) is not torch.Tensor:
            todo += [getattr(x, name) for name in x.__tensor_flatten__()[0]]
        elif isinstance(x, torch.Tensor):
            storage = x.untyped_storage()
            seen[storage.data_ptr()] = str(x.dtype).removeprefix("torch."), storage.nbytes()
        else:
            seen[x.ctypes.data] = np.asarray(x).dtype.name, x.nbytes
    found: dict[str, int] = defaultdict(int)
    for name, size in seen.values():
        found[name] += size
    return dict(found)


def moved(case: Case, params: list[Any], state: list[Any]) -> dict[str, float]:
    """Bytes per element that a step cannot avoid, by format, of the tensors as they are stored.

    Parameter and state are read and written, the gradient is read, twice for its norm, and masks are read. Clipping
    alone writes the gradient.
    """
    total: dict[str, float] = defaultdict(float)
    alone = case.rule.clips_alone
    for passes, arrays in ((2 * (not alone), params), (1 + case.clip + alone, [p.grad for p in params]), (2, state)):
        for name, size in bytes_by_format(arrays).items():
            if passes:
                total[name] += (1 if name == "bool" else passes) * size / case.shapes.elements
    return {name: float(f"{size:.4g}") for name, size in total.items()}


def free_bytes(device: str) -> float:
    """What may still be taken: of the device, or of the machine and of the container that this runs in."""
    if device != "cpu":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info()[0])
    free = [math.inf]
    with suppress(OSError, ValueError):
        _, _, rest = Path("/proc/meminfo").read_text().partition("MemAvailable:")
        free.append(int(rest.split(maxsplit=1)[0]) * 1024)
    with suppress(OSError, ValueError):  # no limit reads "max"
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free)
