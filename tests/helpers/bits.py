"""Equality as the rounding contract means it: every bit, -0.0 apart from 0.0, except that a NaN equals a NaN."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Where rounding goes wrong first: zeros, subnormals, the limits of both exponents, values that overflow when squared.
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-45,
    -1e-45,
    1e-39,
    1.1754944e-38,
    3.4028235e38,
    1e20,
    -1e-20,
]


def reals(array: Any) -> Array:
    """A copy, of a complex array as pairs of reals."""
    array = np.asarray(array).copy(order="C")
    return array.reshape((*array.shape, 1)).view(array.real.dtype) if array.dtype.kind == "c" else array


def assert_same_bits(got: Any, expected: Any, what: str = "") -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, what
    assert got.shape == expected.shape, what
    real = np.dtype(f"f{got.dtype.itemsize // 2}") if got.dtype.kind == "c" else got.dtype
    g, e = np.ascontiguousarray(got).reshape(-1).view(real), np.ascontiguousarray(expected).reshape(-1).view(real)
    integer = np.dtype(f"u{real.itemsize}")
    with np.errstate(invalid="ignore"):  # by a signalling NaN
        same = (g.view(integer) == e.view(integer)) | (np.isnan(g) & np.isnan(e))
    if not same.all():
        k = int(np.flatnonzero(~same)[0])
        raise AssertionError(
            f"{what}: {np.count_nonzero(~same)} of {same.size} differ, first [{k}]: {g[k]!r} != {e[k]!r}"
        )


class Guarded:
    """An array inside a larger buffer of sentinels, ``offset`` elements past a 64-byte boundary."""

    MARGIN = 32  # elements; more than any lane is wide

    def __init__(self, values: Array, offset: int = 0) -> None:
        item = values.dtype.itemsize
        raw = np.empty((values.size + 2 * self.MARGIN + offset) * item + 64, np.uint8)
        start = -raw.ctypes.data % 64
        self.buffer = raw[start:][: (values.size + 2 * self.MARGIN + offset) * item].view(values.dtype)
        self.sentinel = values.dtype.type(-123.456)
        self.buffer[:] = self.sentinel
        self.slice = slice(self.MARGIN + offset, self.MARGIN + offset + values.size)
        self.array = self.buffer[self.slice].reshape(values.shape)
        self.array[...] = values

    def assert_intact(self) -> None:
        outside = np.ones(self.buffer.size, bool)
        outside[self.slice] = False
        assert (self.buffer[outside] == self.sentinel).all(), "written outside the array"
