"""Every kernel equals the specification, bit for bit, however parameter, gradient and states are stored.

The kernels come from the declarations, so a rule that is added is tested here.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fusedstep
from fusedstep import _core
from tests.helpers.bits import BFLOAT16, Guarded, assert_same_bits
from tests.helpers.declared import KERNELS
from tests.helpers.kernels import (
    COMMON,
    HYPER,
    LARGE,
    SEED,
    SMALL,
    SPECIAL_COMMON,
    STORED_KERNEL_IDS,
    STORED_KERNELS,
    check_case,
    dtypes_of,
    hyper_of,
    random_arrays,
    rule_id,
    special_lists,
    step,
    storages,
)
from tests.helpers.properties import examples


@pytest.mark.pairwise("backend", "storage", "common", "offset", each=["rule"], parts=["storage"])
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("common", COMMON)
@pytest.mark.parametrize(("rule", "storage"), STORED_KERNELS, ids=STORED_KERNEL_IDS)
def test_small_tensors(backend: str, rule: dict[str, Any], storage: str, common: str, offset: int) -> None:
    rng = np.random.default_rng(offset)
    lists = random_arrays(rng, SMALL, dtypes_of(storage))
    for kind, t in zip(HYPER, (2, 1, 1000), strict=True):
        check_case(rule, hyper_of(rule, kind), COMMON[common], t, lists, offset)


@pytest.mark.pairwise("backend", "storage", "common", each=["rule"], parts=["storage"])
@pytest.mark.parametrize("common", ["plain", "all"])
@pytest.mark.parametrize(("rule", "storage"), STORED_KERNELS, ids=STORED_KERNEL_IDS)
def test_large_tensors(backend: str, rule: dict[str, Any], storage: str, common: str) -> None:
    rng = np.random.default_rng(1)
    lists = random_arrays(rng, LARGE, dtypes_of(storage))
    tensors = [2**40 + 3 * k for k in range(len(LARGE))]
    check_case(rule, hyper_of(rule, "middle"), COMMON[common], 7, lists, 1, tensors)


@pytest.mark.pairwise("backend", "storage", each=["rule"], parts=["storage"])
@pytest.mark.parametrize(("rule", "storage"), STORED_KERNELS, ids=STORED_KERNEL_IDS)
def test_special_values(backend: str, rule: dict[str, Any], storage: str) -> None:
    for lists in special_lists(rule, dtypes_of(storage)):
        for common in SPECIAL_COMMON:
            check_case(rule, hyper_of(rule, "middle"), COMMON[common], 3, lists, 0)


@examples(120)
@given(data=st.data())
@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_any_values(rule: dict[str, Any], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 40))
    lists = []
    for dtype in dtypes_of(data.draw(st.sampled_from(storages(rule)))):
        if dtype == BFLOAT16:
            lists.append([data.draw(hnp.arrays(np.uint16, n)).view(dtype)])
        else:
            lists.append([data.draw(hnp.arrays(dtype, n, elements=st.floats(width=dtype.itemsize * 8)))])
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


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("t", [1, 2**24 + 1, 2**32 + 1, _core.most_steps])
@pytest.mark.parametrize("tensor", [0, 1, 2**31 + 5, 2**60 + 1])
def test_random_numbers_of_any_key(backend: str, seed: int, t: int, tensor: int) -> None:
    """The whole range of what they follow from."""
    (rule,) = (r for r in KERNELS if rule_id(r) == "adagrad-sum")
    lists = random_arrays(np.random.default_rng(4), [4000], dtypes_of("float32-float32-bfloat16"))
    check_case(rule, {"lr": 0.1, "lr_decay": 0.0, "eps": 1e-8}, {"seed": seed}, t, lists, 0, [tensor])


def test_seed_step_tensor_and_stream_each_change_the_numbers(target: str) -> None:
    (rule,) = (r for r in KERNELS if rule_id(r) == "rmsprop-square_avg-momentum_buffer")
    dtypes = dtypes_of("float32-float32-bfloat16-float32")
    hyper = {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "momentum": 0.5}
    found = []
    for seed, t, tensor in ((SEED, 3, 0), (SEED + 1, 3, 0), (SEED, 4, 0), (SEED, 3, 1)):
        lists = random_arrays(np.random.default_rng(5), [4000], dtypes)
        scalars = {"seed": seed}
        step(rule, hyper, scalars, t, lists[0], lists[1], lists[2:], [tensor])
        found.append(lists[2][0].view(np.uint16))
    for a, b in itertools.combinations(found, 2):
        assert 0 < np.count_nonzero(a != b) < 4000
        assert np.abs(a.astype(int) - b).max() == 1


def test_a_step_in_parts_draws_the_same_numbers(backend: str) -> None:
    """Of tensors in any order and number, each by its own id."""
    (rule,) = (r for r in KERNELS if rule_id(r) == "adagrad-sum")
    hyper = {"lr": 0.1, "lr_decay": 0.0, "eps": 1e-8}
    dtypes = dtypes_of("bfloat16-bfloat16-bfloat16")
    whole, parts = (random_arrays(np.random.default_rng(6), [5, 40_001, 700], dtypes) for _ in range(2))
    step(rule, hyper, {}, 2, *whole[:2], whole[2:])
    for some in ([2], [1, 0]):
        p, g, s = ([arrays[k] for k in some] for arrays in parts)
        step(rule, hyper, {}, 2, p, g, [s], some)
    for a, b in zip(whole, parts, strict=True):
        for x, y in zip(a, b, strict=True):
            assert_same_bits(x, y)


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
