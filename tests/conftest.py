from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import devices
import fusedstep
from fusedstep import _core

# A shared machine is slow now and then; that is no fault of a test.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


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
