"""tools/gpu_correctness.py and gpu_speed.py, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.tools import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import gpu_correctness
import gpu_run
import gpu_speed
from gpu_run import Case, python, run_all


@pytest.mark.parametrize("script", ["gpu_correctness", "gpu_speed"])
def test_cases_are_listed(script: str) -> None:
    command = [sys.executable, ROOT / f"tools/{script}.py"]
    done = subprocess.run([*command, "--list"], capture_output=True, text=True, check=False)
    cases = {"gpu_correctness": gpu_correctness, "gpu_speed": gpu_speed}[script].CASES
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [case.name for case in cases]
    for option, status in ((["--help"], 0), (["--cases", "nothing"], 2)):
        assert subprocess.run([*command, *option], capture_output=True, check=False).returncode == status


def test_what_passed_is_saved_and_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    note = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"
    cases = [
        Case("good", "", python("-c", f"{note}; print('{{out}}')")),
        Case("bad", "", python("-c", "raise SystemExit('a reason')")),
        Case("slow", "", python("-c", "import time; time.sleep(30)"), limit=0.5),
        Case("absent", "", python("-c", ""), program="no-such-program"),
        Case("no module", "", python("-c", ""), module="no_such_module"),
    ]
    for _ in range(2):
        assert run_all(cases, out, 60.0, again=False) == 1
    assert (tmp_path / "runs").read_text() == "x"
    assert (out / "good.log").read_text() == f"{out}\n"
    said = capsys.readouterr().out
    for line in (
        "good: passed before",
        "bad: status 1\na reason",
        "slow: status 124",
        "to be run again: --cases bad slow",
    ):
        assert line in said
    saved = json.loads((out / "cases.json").read_text())
    assert {name: case.get("code", case.get("lacks")) for name, case in saved.items()} == {
        "good": 0, "bad": 1, "slow": 124, "absent": "no-such-program", "no module": "no_such_module",
    }  # fmt: skip
    assert run_all(cases[:1], out, 60.0, again=True) == 0
    assert run_all(cases[:1], out, 0.0, again=True) == 1  # no time: not run, and said so
    assert (tmp_path / "runs").read_text() == "xx"


def test_each_speed_case_is_a_run_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("rich")
    monkeypatch.syspath_prepend(ROOT / "bench")
    import compare

    monkeypatch.setattr(compare, "gpu", lambda: True)
    for case in gpu_speed.CASES:
        arguments = [part.replace("{out}", "results") for part in case.command[1:]]
        monkeypatch.setattr(sys, "argv", arguments)
        args = compare.parse()
        assert args.budget + compare.STARTING < case.limit
        cases = compare.chosen(args)
        assert cases
        if case.name.startswith("threads"):  # AdamW of 32M takes 0.25 s a step on one thread
            assert 0.5 * args.budget / len(cases) > 5 * 0.25
    # With the import of torch all fit into one call.
    budgets = [float(c.command[c.command.index("--budget") + 1]) for c in gpu_speed.CASES]
    assert sum(budgets) + 12 * len(budgets) < gpu_run.BUDGET


def test_scaling_within_the_step_on_the_cpu() -> None:
    gpu_correctness.grad_scaler("cpu")


@pytest.mark.parametrize("name", [name for name in gpu_correctness.FUNCTIONS if name != "cupy"])
def test_without_a_gpu_a_case_fails(name: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, ROOT / "tools/gpu_correctness.py", "--function", name]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
