from __future__ import annotations

import pytest

from tests.helpers.replays import MACHINES, Machine
from tests.helpers.tools import built_replay, need


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The command that replays files, and the targets it must name."""
    build, emulator, targets = MACHINES[request.param]
    need(*emulator[:1])
    only = ["--cuda"] if request.param == "cuda" else []
    return [*emulator, str(built_replay(build, tmp_path_factory) / "replay"), *only], targets
