"""Arrays that share memory are refused however their layouts came about, and whatever was verified before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from fusedstep import functional


def refused(*arrays: np.ndarray) -> bool:
    """Of arrays that are written in one call."""
    try:
        functional.clip_grad_value(list(arrays), 1.0)
    except ValueError as error:
        return "share memory" in str(error)
    return False


@pytest.mark.parametrize(
    ("shape", "strides", "shares"),
    [
        ((2, 3), (2, 1), True),  # the last of a row is the first of the next
        ((2, 3), (3, 1), False),
        ((3, 2), (1, 2), True),
        ((3, 2), (1, 3), False),
        ((2, 2, 2), (3, 2, 1), True),
        ((2, 2, 2), (4, 2, 1), False),
        ((3, 4), (0, 1), True),
        ((1, 4), (0, 1), False),
        ((2, 2), (2, 3), False),  # neither dimension lies within the other
        ((4, 3), (2, 3), True),
    ],
)
def test_an_array_that_shares_with_itself(shape: tuple[int, ...], strides: tuple[int, ...], shares: bool) -> None:
    x = as_strided(np.ones(64), shape, tuple(8 * s for s in strides))
    offsets = [sum(i * s for i, s in zip(index, strides, strict=True)) for index in np.ndindex(shape)]
    assert shares == (len(set(offsets)) < len(offsets))
    assert refused(x) == shares


def test_what_was_refused_is_refused_again() -> None:
    """A layout is remembered once it has been verified, and not before."""
    x = np.ones(100)
    for _ in range(3):
        assert refused(x[:60], x[59:])
        assert not refused(x[:60], x[60:])


def test_what_was_read_before_is_not_written() -> None:
    """The same arrays in the same order: gradients may share with each other, what is written may not."""
    p, q, g = np.ones(5), np.ones(5), np.ones(5)
    functional.sgd([p, q], [g, g], lr=0.1)
    assert refused(p, g, q, g)


def test_the_same_addresses_with_other_strides() -> None:
    """Two arrays of the same first element and the same number of elements as two that lay apart."""
    x = np.ones(64)
    even, odd = x[0:32:2], x[1:33:2]
    assert not refused(even, odd)
    assert refused(even, x[1:49:3])


def test_the_same_strides_with_other_shapes() -> None:
    x = np.ones(400)

    def block(rows: int, columns: int, start: int) -> np.ndarray:
        return as_strided(x[start:], (rows, columns), (160, 8))

    assert not refused(block(3, 4, 0), block(3, 4, 4))
    assert not refused(block(2, 6, 0), block(2, 6, 6))
    assert refused(block(2, 6, 0), block(2, 6, 4))
