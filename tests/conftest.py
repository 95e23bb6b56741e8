"""Fixtures, options and the choice of cases, for all tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

import pytest

import fusedstep
from fusedstep import _core
from tests.helpers import devices, properties
from tests.helpers.covering import pairwise

properties.register()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every case of tests that are marked pairwise")


def _value(item: pytest.Function, name: str) -> Hashable:
    value = item.callspec.params[name]
    return value if isinstance(value, str) else id(value)  # cases of one test have the same objects


def _case(item: pytest.Function, mark: pytest.Mark) -> tuple[Hashable, ...]:
    parts = mark.kwargs.get("parts", ())
    values = [item.callspec.params[n].split("-") if n in parts else [_value(item, n)] for n in mark.args]
    return tuple(value for several in values for value in several)


@pytest.hookimpl(tryfirst=True)  # before -k and -m: what they leave does not change what is drawn
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draws from the products of tests marked ``pairwise``. A case that is named by its id alone is always run."""
    if config.getoption("--full"):
        return
    tests: dict[Hashable, dict[Hashable, dict[pytest.Item, tuple[Hashable, ...]]]] = defaultdict(dict)
    for item in items:
        mark = item.get_closest_marker("pairwise")
        if mark is not None and isinstance(item, pytest.Function):
            each = tuple(_value(item, name) for name in mark.kwargs.get("each", ()))
            groups = tests[item.path, item.originalname]
            groups.setdefault(each, {})[item] = _case(item, mark)
    left: set[pytest.Item] = set()
    for groups in tests.values():
        for turn, cases in enumerate(groups.values()):
            drawn = pairwise(list(cases.values()), turn)
            left |= {item for item, case in cases.items() if case not in drawn}
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]


@pytest.fixture(params=fusedstep.targets())
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set this machine has, forced in turn."""
    before = fusedstep.active_target()
    fusedstep.use_target(request.param)
    yield request.param
    fusedstep.use_target(before)


CUDA = [pytest.param("cuda", marks=pytest.mark.cuda)] if devices.HOST or devices.GPU else []


@pytest.fixture(params=[*fusedstep.targets(), *CUDA])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set, and CUDA: a GPU, or its kernels run on the CPU in the build for that."""
    if request.param == "cuda":
        with devices.arrays_on_cuda():
            yield "cuda"
        return
    before = fusedstep.active_target()
    fusedstep.use_target(request.param)
    yield request.param
    fusedstep.use_target(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Returns to the automatic thread count after a test that sets it."""
    yield
    fusedstep.set_num_threads(None)


@pytest.fixture(params=["exchange", "fallback"])
def reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """How torch tensors are read: through DLPack's C exchange API, or as with a torch that lacks it."""
    _core.set_exchange_api(request.param == "exchange")
    yield
    _core.set_exchange_api(True)
