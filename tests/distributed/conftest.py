"""The fixture ``ranks``: a function on several processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.helpers import devices

GLOO = dist.is_available() and dist.is_gloo_available() and sys.platform != "win32"
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.cuda)] if devices.GPU else [])]


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int, str], Any]]:
    from tests.helpers.ranks import Pool

    found: dict[tuple[int, str], Pool] = {}

    def folder() -> Path:
        return tmp_path_factory.mktemp("ranks")

    def pool(size: int, where: str) -> Pool:
        return found.setdefault((size, where), Pool(size, where, folder))

    yield pool
    for each in found.values():
        each.end()


@pytest.fixture(params=DEVICES)
def ranks(pools: Callable[[int, str], Any], request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """``ranks(body, size, *args)``: what ``body(rank, size, *args)`` returned in each process, by rank.

    With fewer GPUs than ``size`` there are as many processes as GPUs, unless ``exact``: then the test is skipped.
    """
    if not GLOO:
        pytest.skip("needs gloo")

    def run(body: Callable[..., Any], size: int, *args: Any, exact: bool = False, **kwargs: Any) -> list[Any]:
        if request.param == "cuda":
            gpus = torch.cuda.device_count()
            if exact and gpus < size:
                pytest.skip(f"needs {size} GPUs, there are {gpus}")
            size = min(size, gpus)
        return pools(size, request.param).run(body, *args, **kwargs)

    run.device = request.param  # type: ignore[attr-defined]
    return run
