from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusedstep import _core
from tests.helpers.properties import examples

CHUNK = _core.chunk


@examples(300)
@given(
    st.lists(st.integers(0, 5 * CHUNK) | st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1]), max_size=30),
    st.integers(1, 9),
)
def test_parts_cover_every_element_once_in_order(numels: list[int], parts: int) -> None:
    plan = _core.plan(numels, parts)
    assert len(plan) == parts
    chunks = [chunk for part in plan for chunk in part]
    want = [(t, b, min(b + CHUNK, n)) for t, n in enumerate(numels) for b in range(0, n, CHUNK)]
    assert chunks == want


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("numels", [[1000] * 300, [CHUNK * 1000], [10] * 1000 + [CHUNK * 500], [7 * CHUNK + 1] * 50])
def test_parts_are_even(numels: list[int], parts: int) -> None:
    """To within a chunk: an uneven part is the time of the whole call."""
    shares = [sum(e - b for _, b, e in part) for part in _core.plan(numels, parts)]
    assert max(shares) - min(shares) <= 2 * CHUNK
