"""What rules may use and no shipped one does: the rules of ``extras/``, which only builds for tests have, replayed.

Their specifications stand here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bits import SPECIAL, Array
from test_equality import DTYPES
from test_replay import assert_all_equal, call_of, machine  # noqa: F401


def lane_ops(p: Array, g: Array, a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    largest = np.where((g > p) | np.isnan(g), g, p)
    return largest, np.where(g > p, a, -a), np.where(np.isnan(b) | (b == 0), b, np.sign(b)), np.abs(c)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes(machine: tuple[list[str], list[str]], dtype: type, tmp_path: Path) -> None:  # noqa: F811
    values = np.array(SPECIAL).astype(dtype)
    p, g = (a.reshape(-1) for a in np.meshgrid(values, values))
    rng = np.random.default_rng(0)
    calls = []
    for size in (p.size, *range(1, 20)):
        arrays = [x[:size] for x in (p, g, *(rng.permutation(p) for _ in range(3)))]
        calls.append(call_of("lane_ops-a-b-c", 1, {}, {}, [[x] for x in arrays], [lane_ops(*arrays)]))
    assert_all_equal(machine, calls, tmp_path)
