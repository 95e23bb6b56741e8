"""What rules may use and no shipped one does: the rules of ``extras/``, which only builds for tests have, replayed.

Their specifications stand here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bits import SPECIAL, Array
from fusedstep import reference
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


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars(machine: tuple[list[str], list[str]], dtype: type, wide: bool, tmp_path: Path) -> None:  # noqa: F811
    """A step computes with what is stored, whatever the parameters are."""
    stored = np.float64 if wide else np.float32
    hyper = {"lr": 0.3, "factor": 0.96}
    p, g = np.linspace(-1, 1, 37).astype(dtype), np.linspace(2, -3, 37).astype(dtype)
    product = last = 1.0
    calls = []
    for t in (1, 2, 3):
        before = [product, wide, last, wide]
        product = float(stored(product * hyper["factor"]))
        rate = reference.rounded(hyper["lr"] * product + last, p)
        last = float(stored(t / 3.0))
        want = [(p - rate * g,)]
        calls.append(call_of("product", t, hyper, {}, [[p], [g]], want, scalars=[*before, product, last]))
    assert_all_equal(machine, calls, tmp_path)
