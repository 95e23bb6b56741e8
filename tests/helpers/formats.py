"""The storage formats as other packages know them, and the numbers where rounding to them goes wrong first."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fusedstep import reference
from tests.helpers.bits import BFLOAT16, Array

CASTS = {"bfloat16": BFLOAT16, "float16": np.dtype(np.float16)}
INF = {"bfloat16": 0x7F80, "float16": 0x7C00}


def floats(bits: Any) -> Array:
    return np.asarray(bits).astype(np.uint32).view(np.float32)


@functools.cache
def near(format: str) -> tuple[Array, Array]:
    """Every finite number of a format, the ties between two of them, and the float32 before and after each; the codes
    for these. After the largest number comes a tie with infinity."""
    codes = np.arange(INF[format], dtype=np.uint32)
    ends = reference.decode(codes.astype(np.uint16), format).astype(np.float64)
    ends = np.append(ends, 2 * ends[-1] - ends[-2])  # where the next number would be
    exact, ties = (x.astype(np.float32).view(np.uint32) for x in (ends[:-1], (ends[:-1] + ends[1:]) / 2))
    values = [exact, ties, ties - 1, ties + 1, exact + 1, exact[1:] - 1]
    wanted = [codes, codes + codes % 2, codes, codes + 1, codes, codes[1:]]
    bits, want = np.concatenate(values), np.concatenate(wanted)
    assert len(bits) > 6 * 0x7BFF
    return floats(np.append(bits, bits | 0x80000000)), np.append(want, want | 0x8000).astype(np.uint16)
