"""CUDA arrays where there is no CUDA in the build, or no driver or device."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import fusedstep.torch as fst
from fusedstep import _core, functional
from tests.helpers.devices import GPU, HOST
from tests.helpers.torch_spec import make_params

pytestmark = pytest.mark.skipif(GPU or HOST, reason="there is a CUDA device, or one is pretended")


class Claims:
    """An array whose DLPack capsule says that it lies on a CUDA device."""

    def __init__(self) -> None:
        self.array = np.ones(3, np.float32)

        self.__cuda_array_interface__ = {"data": (self.array.ctypes.data, False)}  # writable: the capsule cannot say so

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: Any = None) -> Any:
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = pointer(capsule, b"dltensor")
        ctypes.c_int32.from_address(tensor + ctypes.sizeof(ctypes.c_void_p)).value = 2  # device_type, after data
        return capsule


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: functional.sgd(a, b, lr=0.1),
        lambda a, b: functional.sgd(a, b, lr=0.1, max_norm=1.0),
        lambda a, b: functional.clip_grad_value([a, b], 0.5),
        lambda a, b: functional.total_norm([a, b]),
    ],
    ids=["step", "clipped", "clip_value", "norm"],
)
def test_it_is_said(call: Any) -> None:
    arrays = Claims(), Claims()
    if _core.cuda:
        with pytest.raises(RuntimeError, match=r"cuda\w+ failed.*: cudaError"):
            call(*arrays)
    else:
        with pytest.raises(
            ValueError, match=r"\[0\] is on device .*, expected cpu \(this build of fusedstep has no CUDA\)"
        ):
            call(*arrays)
    assert all((a.array == 1).all() for a in arrays)


def test_no_devices_are_counted() -> None:
    assert _core.cuda_devices() == 0


def test_capturable_needs_a_device() -> None:
    for cls in (fst.Adam, fst.AdamW, fst.RMSprop):
        params = make_params()
        with pytest.raises(ValueError, match="capturable=True is for CUDA graphs; CPU tensors need capturable=False"):
            cls(params, capturable=True)
