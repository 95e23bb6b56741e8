"""Runs what the tests hand to the compiled core on a CUDA device, so that the same tests cover it.

The host build (``FUSEDSTEP_CUDA=HOST``) runs the CUDA kernels on the CPU, where every array can count as lying on a
device. On a real GPU each array is copied there with its layout, alignment and surroundings, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np

from fusedstep import _core

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
    """Copies of host arrays on the GPU; :meth:`back` copies the whole memory they span back."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], tuple[Any, np.ndarray]] = {}

    def __call__(self, x: Any) -> Any:
        import torch

        if isinstance(x, (list, tuple)):
            return [self(a) for a in x]
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "fc" or x.dtype.itemsize not in (4, 8, 16):
            return x
        low, high = np.lib.array_utils.byte_bounds(x) if x.size else (x.ctypes.data, x.ctypes.data)
        pad = 64  # bytes around it, so that a write outside comes back too
        memory = np.lib.stride_tricks.as_strided(np.empty(0, np.uint8), (0,))
        if high > low and x.base is not None:
            memory = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * (high - low)).from_address(low))
        elif high > low:
            memory = x.reshape(-1).view(np.uint8) if x.flags.c_contiguous else x.ravel(order="K").view(np.uint8)
        buffer = torch.empty(high - low + 256 + 2 * pad, dtype=torch.uint8, device="cuda")
        shift = (low - buffer.data_ptr()) % 256
        region = buffer[shift : shift + high - low]
        region.copy_(torch.from_numpy(memory))
        self._copies[(low, high)] = (region, memory)
        dtype = getattr(torch, x.dtype.name)
        item = x.dtype.itemsize
        flat = buffer[shift % item :]
        flat = flat[: flat.numel() // item * item].view(dtype)
        offset = (shift - shift % item + x.ctypes.data - low) // item
        return torch.as_strided(flat, x.shape, [s // item for s in x.strides], offset)

    def back(self) -> None:
        for region, memory in self._copies.values():
            memory[...] = region.cpu().numpy()
        self._copies.clear()


def mirrored(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: list[Any], **kwargs: Any) -> Any:
        mirror = Mirror()
        if first and isinstance(first[0], dict):
            keys = ("params", "grads", "state_arrays")
            first = [{**g, **{k: mirror(g[k]) for k in keys}} for g in first]
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

    from fusedstep.torch import _base, clip

    def on_gpu(x: Any) -> bool:
        return isinstance(x, torch.Tensor)

    with (
        mock.patch.object(_base, "on_gpu", on_gpu),
        mock.patch.object(clip, "on_gpu", on_gpu),
        mock.patch.multiple(_core, **{name: synchronized(getattr(_core, name)) for name in ARRAY_CALLS[1:]}),
        pretending(scalars) as host,
    ):
        yield host
