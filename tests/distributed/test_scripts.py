"""The scripts of docs/distributed.md, and examples/fsdp2.py."""

import contextlib
import io
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

import fusedstep.torch
from tests.helpers.tools import ROOT

pytestmark = [pytest.mark.xdist_group("distributed"), pytest.mark.slow]
if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
    pytest.skip("this torch has FSDP2 under another name", allow_module_level=True)

PAGE = ROOT / "docs" / "distributed.md"


def scripts():
    """By their sections."""
    sections = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    return {title: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for title, text in found.items()}


SCRIPTS = {title: found[0] for title, found in scripts().items() if found}


def run(rank, size, title):
    """As torchrun would, but for the process group, which is there."""
    names = {"__name__": "__main__"}
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(dist, "init_process_group", lambda: None)
        exec(compile(SCRIPTS[title], f"{PAGE.name}, {title}", "exec"), names)
    optimizer = getattr(names["opt"], "optim", names["opt"])  # out of ZeRO
    assert isinstance(optimizer, fusedstep.torch.FusedOptimizer)
    steps = {int(state["step"]) for state in optimizer.state.values()}
    norm = optimizer.total_norm
    return said.getvalue(), steps, None if norm is None else norm.item()


def test_every_section_has_one_script_at_most():
    assert list(SCRIPTS) == ["FSDP2", "Tensor parallelism, and both", "Checkpoints", "DDP", "FSDP1 and ZeRO"]
    assert all(len(found) <= 1 for found in scripts().values())


@pytest.mark.parametrize("title", SCRIPTS)
def test_scripts_of_the_page(ranks, title):
    if ranks.device == "cuda":
        pytest.skip("they are written for CPUs")
    results = ranks(run, 4, title)
    for rank, (said, steps, norm) in enumerate(results):
        assert said.startswith(f"{rank} ")
        assert steps == ({6} if title == "Checkpoints" else {10})
        assert norm == results[0][2]
    assert (results[0][2] is None) == (title == "Checkpoints")


def example(folder, *arguments, launcher=()):
    command = [sys.executable, *launcher, ROOT / "examples/fsdp2.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+) +(\S+)$", done.stdout, re.MULTILINE)
    return done.stdout, {int(step): tuple(map(float, numbers)) for step, *numbers in rows}


def test_the_example_resumes_on_another_number_of_processes(tmp_path):
    """Its losses are those of one process, which has trained all the way; torchrun starts that."""
    small = ("--chars", "20000", "--print-every", "1")
    few, more = (2, 3) if not torch.cuda.is_available() else (torch.cuda.device_count(),) * 2
    said, first = example(tmp_path, "--processes", str(few), "--steps", "6", *small)
    assert f"{few} process" in said
    said, then = example(tmp_path, "--processes", str(more), "--resume", "--steps", "10", *small)
    assert f"{more} process" in said
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    _, whole = example(tmp_path, "--folder", "other", "--steps", "10", *small, launcher=torchrun)
    assert (list(first), list(then), list(whole)) == ([*range(1, 7)], [*range(7, 11)], [*range(1, 11)])
    for step, (divided, alone, gap, norm) in (first | then).items():
        assert divided == pytest.approx(alone, abs=2e-4)
        assert gap == pytest.approx(abs(divided - alone), abs=2e-6)
        assert divided == pytest.approx(whole[step][0], abs=2e-4)
        assert norm == pytest.approx(whole[step][3], rel=1e-2)
    assert then[10][0] < first[1][0] - 0.5
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000006", "000010"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "5"], "argument --processes: 5 processes cannot share a batch of 24"),
        (["--processes", "0"], "argument --processes: 0 processes cannot share a batch of 24"),
        (["--resume", "--folder", "absent"], "argument --resume: no checkpoint in 'absent'"),
    ],
)
def test_bad_arguments_of_the_example(arguments, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", ["fsdp2.py", *arguments])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    import fsdp2

    with pytest.raises(SystemExit):
        fsdp2.parse()
    assert message in capsys.readouterr().err
