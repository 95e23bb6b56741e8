"""Fields of records: arrays whose strides are no whole number of elements are refused, others are read right."""

from __future__ import annotations

import numpy as np
import pytest

from fusedstep import functional, reference
from tests.helpers.bits import assert_same_bits


@pytest.mark.parametrize("argument", ["params", "grads"])
@pytest.mark.parametrize("beside", ["u1", "f4"])
def test_fields_that_lie_between_elements(argument: str, beside: str) -> None:
    records = np.zeros(10, [("x", "f8"), ("beside", beside)])
    records["x"] = np.arange(10)
    arrays = {"params": np.ones(10), "grads": np.ones(10), argument: records["x"]}
    before = records.copy()
    with pytest.raises(ValueError, match=rf"sgd: {argument}\[0\] has strides that are not multiples"):
        functional.sgd(**arrays, lr=0.5)
    assert (records == before).all()


def test_fields_of_whole_elements() -> None:
    records = np.zeros(10, [("x", "f4"), ("y", "f4"), ("count", "i4")])
    records["y"] = np.arange(10)
    p = np.ones(10, np.float32)
    (want,) = reference.sgd(p, records["y"], lr=0.5)
    functional.sgd(p, records["y"], lr=0.5)
    assert_same_bits(p, want)
    (want,) = reference.sgd(records["x"], p, lr=0.5)
    functional.sgd(records["x"], p, lr=0.5)
    assert_same_bits(records["x"], want)
    assert (records["y"] == np.arange(10)).all()
    assert (records["count"] == 0).all()


def test_one_record_has_no_stride_to_speak_of() -> None:
    records = np.ones(1, [("x", "f8"), ("beside", "u1")])
    functional.sgd(records["x"], np.ones(1), lr=0.5)
    assert records["x"] == 0.5
