"""The processes of the tests themselves: a failure, an end and a hang are told, and the next function finds others."""

import os

import pytest
import torch
import torch.distributed as dist

from tests.helpers import ranks as at

pytestmark = [pytest.mark.xdist_group("distributed"), pytest.mark.slow]


def fine(rank, size, number, *, factor):
    total = torch.tensor([float(rank)], device=at.device())
    dist.all_reduce(total)
    return rank, size, number * factor, total.item()


def raises(rank, size):
    if rank == 1:
        raise ValueError("on purpose")
    dist.barrier()


def ends(rank, size):
    if rank == 0:
        os._exit(3)


def skips(rank, size):
    pytest.skip("not here")


def test_failures_are_told(ranks, monkeypatch):
    monkeypatch.setattr(at, "GRACE", 1.0)
    assert ranks(fine, 2, 3, factor=2, exact=True) == [(0, 2, 6, 1.0), (1, 2, 6, 1.0)]
    with pytest.raises(pytest.fail.Exception) as failed:
        ranks(raises, 2)
    assert "rank 1 of 2 failed: Traceback" in str(failed.value)
    assert "ValueError: on purpose" in str(failed.value)
    waiting = str(failed.value).partition("rank 0 of 2 did not answer, and was in\n")[2]
    assert "in raises" in waiting
    with pytest.raises(pytest.fail.Exception, match="rank 0 of 2 failed: the process ended, exit code 3"):
        ranks(ends, 2)
    with pytest.raises(pytest.skip.Exception, match="not here"):
        ranks(skips, 2)
    assert ranks(fine, 2, 1, factor=1) == [(0, 2, 1, 1.0), (1, 2, 1, 1.0)]
