"""Which arrays may be written: immutable and masked ones; blocks of one matrix, which share memory and no element."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fusedstep.numpy as fnp
from fusedstep import functional
from tests.helpers.bits import assert_same_bits
from tests.helpers.properties import examples

ONES = np.ones(4, np.float32)


# ---------------------------------------------------------------------------------------------------- immutable memory


class Unversioned:
    """Exports a DLPack capsule from before 1.0, which cannot say whether it may be written."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__()


class Says(Unversioned):
    name, read_only = "__array_interface__", False

    def __getattr__(self, name: str) -> Any:
        if name == type(self).name:
            return {"data": (self.array.ctypes.data, self.read_only), "version": 3}
        raise AttributeError(name)


class SaysOnGpu(Says):
    name = "__cuda_array_interface__"


class SaysReadOnly(Says):
    read_only = True


class SaysNonsense(Says):
    def __getattr__(self, name: str) -> Any:
        if name == "__array_interface__":
            return {"data": None}
        raise AttributeError(name)


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Flagged(Unversioned):
    """Exports a 1.x capsule, which says that it is read-only."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return frozen(self.array).__dlpack__(**keywords)


def of_jax(array: np.ndarray) -> Any:
    required = os.environ.get("FUSEDSTEP_REQUIRE_CLIENTS") and sys.version_info >= (3, 11)  # which it needs
    if find_spec("jax") is None and not required:
        pytest.skip("JAX is not installed")
    import jax.numpy as jnp

    return jnp.asarray(array)


IMMUTABLE = {
    "unversioned": Unversioned,
    "says read-only": SaysReadOnly,
    "says nonsense": SaysNonsense,
    "flagged": Flagged,
    "numpy": frozen,
    "bytes": lambda array: memoryview(array.tobytes()).cast("f"),
    "jax": of_jax,
}
WRITES: dict[str, Any] = {
    "param": lambda x: functional.sgd(x, ONES, lr=1.0),
    "second param": lambda x: functional.sgd([ONES.copy(), x], [ONES, ONES], lr=1.0, max_norm=1.0),
    "state": lambda x: functional.sgd(ONES.copy(), ONES, x, lr=1.0, momentum=0.5),
    "clip_grad_norm": lambda x: functional.clip_grad_norm([x], 1.0),
    "clip_grad_value": lambda x: functional.clip_grad_value([ONES.copy(), x], 1.0),
    "class": lambda x: fnp.Adam([x]),
}


@pytest.mark.parametrize("what", IMMUTABLE)
@pytest.mark.parametrize("how", WRITES)
def test_immutable_memory_is_not_written(what: str, how: str) -> None:
    x = IMMUTABLE[what](np.full(4, 2.0, np.float32))
    with pytest.raises(ValueError, match=r"\[[01]\] (is read-only|may be immutable).*expected a writable array"):
        WRITES[how](x)
    if what == "jax":
        assert np.asarray(x).tolist() == [2.0] * 4
    assert ONES.tolist() == [1.0] * 4


@pytest.mark.parametrize("what", IMMUTABLE)
def test_immutable_memory_is_read(what: str) -> None:
    g = IMMUTABLE[what](np.full(4, 2.0, np.float32))
    p = ONES.copy()
    functional.sgd(p, g, lr=0.25)
    opt = fnp.SGD([p], lr=0.25)
    opt.step([g])
    assert p.tolist() == [0.0] * 4
    assert functional.total_norm([g]) == 4.0


@pytest.mark.parametrize("cls", [Says, SaysOnGpu])
def test_an_unversioned_capsule_of_memory_that_may_be_written(cls: type[Says]) -> None:
    x = cls(np.full(4, 2.0, np.float32))
    functional.sgd(x, ONES, lr=1.0)
    assert x.array.tolist() == [1.0] * 4


def test_jax_keeps_what_its_aliases_hold() -> None:
    x = of_jax(np.zeros(4, np.float32))
    alias = type(x).__add__(x, 0)
    with pytest.raises(ValueError, match=r"sgd: params\[0\] may be immutable \(as JAX's arrays are"):
        functional.sgd([x], [ONES], lr=1.0)
    assert np.asarray(x).tolist() == np.asarray(alias).tolist() == [0.0] * 4


# -------------------------------------------------------------------------------------------------------- masked arrays


MASKED: dict[str, Any] = {
    **WRITES,
    "gradient": lambda x: functional.adamw(ONES.copy(), x, ONES.copy(), ONES.copy(), step=1, lr=0.1),
    "norm": lambda x: functional.total_norm([ONES, x]),
    "gradient of a class": lambda x: fnp.SGD([ONES.copy()]).step([x]),
}


@pytest.mark.parametrize("how", MASKED)
@pytest.mark.parametrize("mask", [[0, 1, 0, 0], False])
def test_masked_arrays_are_refused(how: str, mask: Any) -> None:
    x = np.ma.masked_array(np.full(4, 2.0, np.float32), mask=mask)
    with pytest.raises(TypeError, match=r"\[[01]\] is a masked array \(MaskedArray\), expected a plain one"):
        MASKED[how](x)
    assert x.data.tolist() == [2.0] * 4


def test_a_subclass_that_masks_nothing_is_fine() -> None:
    class Mine(np.ndarray):
        pass

    p = np.ones(4, np.float32).view(Mine)
    functional.sgd(p, ONES, lr=1.0)
    assert p.tolist() == [0.0] * 4


# ------------------------------------------------------------------------------------------------- blocks of one matrix


def elements(a: np.ndarray) -> set[int]:
    """Addresses of all elements, one by one."""
    offsets = np.zeros(a.shape, np.int64)
    for axis, (n, stride) in enumerate(zip(a.shape, a.strides, strict=True)):
        offsets += np.arange(n).reshape([-1 if k == axis else 1 for k in range(a.ndim)]) * stride
    return set((a.ctypes.data + offsets).ravel().tolist())


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """A view of the same memory: a block, a slice with a step, reversed, transposed."""
    memory = MEMORY[draw(st.sampled_from(sorted(MEMORY)))]
    index = []
    for n in memory.shape:
        start, stop = sorted((draw(st.integers(0, n - 1)), draw(st.integers(1, n))))
        step = draw(st.sampled_from([1, 1, 1, 2, 3]))
        part = slice(start, max(stop, start + 1), step)
        index.append(draw(st.sampled_from([part, part, part, start])) if memory.ndim > 1 else part)
    view = memory[(*index, ...)]
    if draw(st.booleans()):
        view = view[(*(slice(None, None, draw(st.sampled_from([1, -1]))) for _ in range(view.ndim)), ...)]
    return view.T if draw(st.booleans()) else view


BASE = np.zeros(420, np.float32)
MEMORY = {
    "flat": BASE,
    "matrix": BASE.reshape(20, 21),
    "odd": BASE[:399].reshape(19, 21),
    "cube": BASE.reshape(5, 7, 12),
}


@given(views(), views())
@examples(600)
def test_arrays_that_share_an_element_and_only_those_are_refused(a: np.ndarray, b: np.ndarray) -> None:
    BASE[:] = 1.0
    expected = BASE.copy()
    share = bool(elements(a) & elements(b))
    grads = [np.full(x.shape, 0.25, np.float32) for x in (a, b)]
    if share:
        with pytest.raises(ValueError, match=r"params\[[01]\] and params\[[01]\] share memory"):
            functional.sgd([a, b], grads, lr=1.0)
        assert_same_bits(BASE, expected)
        return
    functional.sgd([a, b], grads, lr=1.0)
    start = BASE.ctypes.data
    for address in elements(a) | elements(b):
        expected[(address - start) // 4] = 0.75
    assert_same_bits(BASE, expected)


@given(views(), views())
@examples(200)
def test_gradients_may_share_with_each_other_but_not_with_what_is_written(a: np.ndarray, b: np.ndarray) -> None:
    BASE[:] = 1.0
    p, q = np.ones(a.shape, np.float32), np.ones(b.shape, np.float32)
    functional.sgd([p, q], [a, b], lr=1.0)
    assert not p.any()
    assert not q.any()
    share = bool(elements(a) & elements(b))
    if a.shape != b.shape:
        return
    if not share:
        functional.sgd([a], [b], lr=1.0)
        return
    with pytest.raises(ValueError, match="share memory"):
        functional.sgd([a], [b], lr=1.0)
    assert (BASE == 1).all()


def test_the_same_blocks_come_back() -> None:
    """Layouts seen before are not looked at again; others at the same address are."""
    matrix = np.zeros((6, 8), np.float32)
    left, right, wide = matrix[:, :4], matrix[:, 4:], matrix[:, :5]
    g, h = np.ones((6, 4), np.float32), np.ones((6, 5), np.float32)
    for _ in range(6):
        functional.sgd([left, right], [g, g], lr=1.0)
        with pytest.raises(ValueError, match="share memory"):
            functional.sgd([wide, right], [h, g], lr=1.0)
    assert (matrix == -6).all()


BLOCKS = """
import resource
import numpy as np
from fusedstep import functional
GIB = 2**30
resource.setrlimit(resource.RLIMIT_AS, (12 * GIB, 12 * GIB))
memory = np.zeros(2 * GIB, np.float32)  # 8 GiB that nothing touches; a list of its addresses would take 16
matrix = memory[: 30000 * 70001].reshape(30000, 70001)
cube = memory[: 400 * 300 * 17000].reshape(400, 300, 17000)
blocks = {
    "columns": [matrix[:, :35000], matrix[:, 35000:]],
    "weight beside bias": [matrix[:, :70000], matrix[:, 70000]],
    "q, k, v": [matrix[:, 20000 * k : 20000 * (k + 1)] for k in range(3)],
    "middle": [cube[:, :100], cube[:, 100:]],
    "interleaved": [matrix[:, 0::2], matrix[:, 1::2]],
    "rows of a transposed matrix": [matrix[:, :35000].T, matrix[:, 35000:].T],
}
last = memory[-1000:]  # stands for an error that comes after the blocks have been told apart, before anything is done
for name, params in blocks.items():
    params = [*params, last, last]
    grads = [np.broadcast_to(np.float32(1), p.shape) for p in params]
    n = len(params)
    try:
        functional.sgd(params, grads, lr=1.0)
    except ValueError as error:
        assert f"params[{n - 2}] and params[{n - 1}] share memory" in str(error), (name, error)
    else:
        raise AssertionError(name)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs an address space that can be limited")
def test_blocks_are_told_apart_without_looking_at_each_element() -> None:
    """Sorting the addresses of their elements took 100 times as long as the step; here there is no room for them."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer needs the whole address space")
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
