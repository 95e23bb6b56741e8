from __future__ import annotations

from collections.abc import Iterator

import pytest

import fusedstep


@pytest.fixture(params=fusedstep.targets())
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set this machine has, forced in turn."""
    before = fusedstep.active_target()
    fusedstep.use_target(request.param)
    yield request.param
    fusedstep.use_target(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Returns to the automatic thread count after a test that sets it."""
    yield
    fusedstep.set_num_threads(None)
