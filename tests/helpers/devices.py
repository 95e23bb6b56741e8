"""Runs what the tests hand to the compiled core on a CUDA device, so that the same tests cover it.

The host build (``FUSEDSTEP_CUDA=HOST``) runs the CUDA kernels on the CPU, where every array can count as lying on a
device. On a real GPU each array is copied there with its layout, alignment and surroundings, and back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest

from fusedstep import _core
from tests.helpers.bits import BFLOAT16

HOST = _core.cuda == "host"
GPU = bool(_core.cuda) and not HOST and _core.cuda_devices() > 0


def synchronized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Waits for the device, and turns a fault of a kernel into an exception."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            _core.cuda_host.synchronize()
            error = _core.cuda_host.last_error()
            assert not error, error

    return call


class Mirror:
    """Copies of host arrays on the GPU, at the same place within 256 bytes.

    :meth:`back` copies the memory they span back. Around each lies memory of known contents, to see a write outside.
    """

    PAD, FILL = 256, 0xA5

    def __init__(self) -> None:
        self._copies: list[tuple[Any, int, Any]] = []  # buffer, where the array's memory starts in it, that memory

    def __call__(self, x: Any) -> Any:
        import torch

        if isinstance(x, (list, tuple)):
            return [self(a) for a in x]
        if not isinstance(x, np.ndarray) or (x.dtype.kind not in "fc" and x.dtype != BFLOAT16):
            return x
        if any(s < 0 for s in x.strides):
            pytest.skip("torch has no negative strides")
        item = x.dtype.itemsize
        span = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)) + item if x.size else 0
        memory = (ctypes.c_uint8 * span).from_address(x.ctypes.data)
        buffer = torch.full((span + 2 * self.PAD + 256,), self.FILL, dtype=torch.uint8, device="cuda")
        start = self.PAD + (x.ctypes.data - buffer.data_ptr() - self.PAD) % 256
        buffer[start : start + span].copy_(
            torch.frombuffer(bytearray(memory), dtype=torch.uint8) if span else buffer[:0]
        )
        self._copies.append((buffer, start, memory))
        flat = buffer[start % item :]
        flat = flat[: flat.numel() // item * item].view(getattr(torch, x.dtype.name))
        return torch.as_strided(flat, x.shape, [s // item for s in x.strides], start // item)

    def back(self) -> None:
        for buffer, start, memory in self._copies:
            whole = buffer.cpu().numpy()
            end = start + len(memory)
            ctypes.memmove(memory, whole[start:end].tobytes(), len(memory))
            assert (whole[:start] == self.FILL).all(), "written before the array"
            assert (whole[end:] == self.FILL).all(), "written after the array"
        self._copies.clear()


def mirrored(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: list[Any], **kwargs: Any) -> Any:
        mirror = Mirror()
        if first and isinstance(first[0], tuple):
            first = [(g[0], *map(mirror, g[1:4]), *g[4:]) for g in first]
        else:
            first = mirror(first)
        try:
            return function(first, **kwargs)
        finally:
            mirror.back()

    return call


ARRAY_CALLS = ("step_arrays", "norm", "clip_norm", "clip_value")


@contextmanager
def arrays_on_cuda() -> Iterator[None]:
    """Every array that reaches the core lies on a CUDA device, and every call has ended when it returns."""
    wrap = synchronized if HOST else mirrored
    calls = {name: wrap(getattr(_core, name)) for name in ARRAY_CALLS}
    with mock.patch.multiple(_core, **calls), pretending() if HOST else nullcontext():
        yield


@contextmanager
def pretending(scalars: bool = False) -> Iterator[Any]:
    """In the host build: arrays count as lying on device 0, and single numbers (step counts, lr, found_inf) if
    ``scalars``. Calls return before their work is done, as on a GPU."""
    host = _core.cuda_host
    host.pretend(True, scalars)
    before = host.allocations()
    try:
        yield host
        host.synchronize()
        assert host.last_error() == ""
        kept = 64 * 2  # tables stay
        assert host.allocations() - before <= kept, "device memory was not freed"
    finally:
        host.synchronize()
        host.pretend(False)


@contextmanager
def torch_pretending(scalars: bool = False) -> Iterator[Any]:
    """:func:`pretending`, with the torch layer treating every tensor as one on a GPU.

    Norms wait, since torch's own operations on them would not.
    """
    import torch

    from fusedstep.torch import _base, _rides, _run, clip

    def on_gpu(x: Any) -> bool:
        return isinstance(x, torch.Tensor)

    with (
        mock.patch.object(_base, "on_gpu", on_gpu),
        mock.patch.object(_run, "on_gpu", on_gpu),
        mock.patch.object(_rides, "on_gpu", on_gpu),
        mock.patch.object(clip, "on_gpu", on_gpu),
        mock.patch.multiple(_core, **{name: synchronized(getattr(_core, name)) for name in ARRAY_CALLS[1:]}),
        pretending(scalars) as host,
    ):
        yield host
