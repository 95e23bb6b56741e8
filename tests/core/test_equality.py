"""Every kernel equals the specification, bit for bit.

The kernels come from the declarations, so a rule that is added is tested here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fusedstep
from tests.helpers.bits import Guarded, assert_same_bits
from tests.helpers.declared import KERNELS
from tests.helpers.kernels import (
    COMMON,
    DTYPES,
    HYPER,
    LARGE,
    SMALL,
    SPECIAL_COMMON,
    check_case,
    hyper_of,
    random_arrays,
    rule_id,
    special_lists,
)
from tests.helpers.properties import examples


@pytest.mark.pairwise("backend", "dtype", "common", "offset", each=["rule"])
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("common", COMMON)
@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_small_tensors(backend: str, rule: dict[str, Any], common: str, dtype: type, offset: int) -> None:
    rng = np.random.default_rng(offset)
    lists = random_arrays(rng, SMALL, dtype, 2 + len(rule["state"]))
    for kind, t in zip(HYPER, (2, 1, 1000), strict=True):
        check_case(rule, hyper_of(rule, kind), COMMON[common], t, lists, offset)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("common", ["plain", "all"])
@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_large_tensors(backend: str, rule: dict[str, Any], common: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    lists = random_arrays(rng, LARGE, dtype, 2 + len(rule["state"]))
    check_case(rule, hyper_of(rule, "middle"), COMMON[common], 7, lists, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_special_values(backend: str, rule: dict[str, Any], dtype: type) -> None:
    for lists in special_lists(rule, dtype):
        for common in SPECIAL_COMMON:
            check_case(rule, hyper_of(rule, "middle"), COMMON[common], 3, lists, 0)


@examples(60)
@given(data=st.data())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_any_values(rule: dict[str, Any], dtype: type, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 40))
    arrays = hnp.arrays(dtype, n, elements=st.floats(width=np.dtype(dtype).itemsize * 8))
    lists = [[data.draw(arrays)] for _ in range(2 + len(rule["state"]))]
    numbers = st.floats(0, 1, exclude_max=True)
    hyper = {name: data.draw(numbers) for name in rule["hyper"]}
    common = {
        "weight_decay": data.draw(numbers),
        "decoupled": data.draw(st.booleans()),
        "maximize": data.draw(st.booleans()),
        "grad_scale": data.draw(st.floats(1e-30, 1e30)),
        "max_norm": data.draw(st.none() | st.floats(0, 1e30)),
        "clip_value": data.draw(st.none() | st.floats(0, 1e30)),
    }
    for name in fusedstep.targets():
        before = fusedstep.active_target()
        fusedstep.use_target(name)
        try:
            check_case(rule, hyper, common, data.draw(st.integers(1, 10**6)), lists, 0)
        finally:
            fusedstep.use_target(before)


def test_bits_tell_zeros_apart_and_see_one_ulp() -> None:
    """The comparison itself can fail."""
    with pytest.raises(AssertionError):
        assert_same_bits(np.float32([0.0]), np.float32([-0.0]))
    with pytest.raises(AssertionError):
        assert_same_bits(np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2)))
    with pytest.raises(AssertionError):
        assert_same_bits(np.float32([np.nan]), np.float32([1.0]))
    assert_same_bits(np.float32([np.nan]), -np.float32([np.nan]))


def test_sentinels_see_a_write_outside() -> None:
    guarded = Guarded(np.zeros(5, np.float32), 1)
    guarded.buffer[guarded.slice.stop] = 0
    with pytest.raises(AssertionError, match="outside"):
        guarded.assert_intact()
