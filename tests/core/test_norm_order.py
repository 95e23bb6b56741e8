"""A norm is added up in logical order: of values whose sum depends on the order, whatever the layout."""

from __future__ import annotations

import numpy as np
import pytest

from fusedstep import functional, reference
from tests.helpers.bits import Array


def several() -> list[Array]:
    """float64 numbers, of which nearly every addition rounds, in so many arrays that the order shows in some norm."""
    rng = np.random.default_rng(3)
    return [rng.standard_normal((17, 13, 11)) for _ in range(20)]


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("norm_type", [1, 2])
def test_logical_order(backend: str, axes: tuple[int, ...], norm_type: float) -> None:
    arrays = several()
    permuted = [np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes)) for x in arrays]
    norms = [reference.total_norm([x], norm_type) for x in arrays]
    assert norms != [reference.total_norm([x.transpose(axes)], norm_type) for x in arrays], "the order is not seen"
    assert functional.total_norm(permuted, norm_type, per_tensor=True) == norms
    assert functional.clip_grad_norm(permuted, 0.25, norm_type, per_tensor=True) == norms
