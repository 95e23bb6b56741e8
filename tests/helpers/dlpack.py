"""Arrays known by DLPack alone: plain, of before DLPack 1.0, beside a buffer that says otherwise, and forged."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


class Only:
    """Has DLPack's two methods and nothing else of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)


class Unversioned(Only):
    """Without ``max_version``, as before DLPack 1.0: that it may be written is told elsewhere."""

    @property
    def __array_interface__(self) -> Any:
        return self.array.__array_interface__

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__(stream=stream)


class Buffered(bytearray):
    """Has a buffer protocol too, of other contents: what DLPack says of the device counts, as CuPy's arrays need."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(64)
        self.array = array

    __dlpack_device__, __dlpack__ = Only.__dlpack_device__, Only.__dlpack__


# Offsets and types of dlpack.h's DLTensor.
FIELDS = {"data": (0, ctypes.c_void_p), "device_type": (8, ctypes.c_int32), "code": (20, ctypes.c_uint8)}
FIELDS |= {"bits": (21, ctypes.c_uint8), "lanes": (22, ctypes.c_uint16), "byte_offset": (40, ctypes.c_uint64)}
get_pointer = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Forged(Only):
    """A true capsule with one field replaced."""

    def __init__(self, array: np.ndarray, name: str, value: Any) -> None:
        super().__init__(array)
        self.field, self.value = FIELDS[name], value

    def __dlpack__(self, stream: Any = None) -> Any:
        capsule = self.array.__dlpack__()
        offset, kind = self.field
        kind.from_address(get_pointer(capsule, b"dltensor") + offset).value = self.value
        return capsule
