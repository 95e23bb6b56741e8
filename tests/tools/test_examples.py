"""The scripts of examples/: each model trains as torch's does, NumPy has the reference's bits, bad input is named."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fusedstep.rules import ALL
from tests.helpers.tools import ROOT

pytest.importorskip("matplotlib")  # of the extra "examples"
pytest.importorskip("rich")

UNTRAINED = {
    "transformer": 4.9,
    "convnet": 2.3,
    "embedding": 3.0,
}  # loss of each model: ln of what there is to choose from


def run(script: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, ROOT / "examples" / script, *arguments]
    environment = {**os.environ, "COLUMNS": "130"}  # else tables wrap
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refusal(
    script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the script says of its arguments; in this process, which has torch already."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(script).parse()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_all_models_train(tmp_path: Path) -> None:
    said = run("train.py", tmp_path, "--size", "tiny", "--model", "all", "--steps", "60")
    assert {path.name for path in tmp_path.iterdir()} == {f"train-{model}.png" for model in UNTRAINED}
    losses = [tuple(map(float, found)) for found in re.findall(r"training loss, last 20 *│ +(\S+) │ +(\S+) │", said)]
    for untrained, both in zip(UNTRAINED.values(), losses, strict=True):
        assert max(both) < untrained - 0.3
        assert both[0] == pytest.approx(both[1], abs=0.1)


def test_a_model_of_16_bits_trains(tmp_path: Path) -> None:
    """Beside torch's and beside float32. That torch's own state is shorter makes no difference in so few steps."""
    arguments = ("--size", "tiny", "--model", "all", "--steps", "60", "--dtype", "bfloat16")
    said = run("train.py", tmp_path, *arguments, "--state-dtype", "bfloat16")
    found = re.findall(r"training loss, last 20 *│ +(\S+) │ +(\S+) │ +(\S+) │", said)
    for untrained, losses in zip(UNTRAINED.values(), found, strict=True):
        ours, torchs, float32 = map(float, losses)
        assert max(ours, float32) < untrained - 0.3
        assert ours == pytest.approx(torchs, abs=0.05)
        assert ours == pytest.approx(float32, abs=0.15)


def test_the_table_of_what_16_bits_lose(tmp_path: Path) -> None:
    said = run("displacement.py", tmp_path)
    assert len(said.splitlines()) == 6
    page = (ROOT / "docs/formats.md").read_text()
    found, written = (re.findall(r"^\| (1e-.*) \|$", text, re.MULTILINE) for text in (said, page))
    for line, expected in zip(found, written, strict=True):  # the random numbers may differ in their last bit
        numbers = [[float(x) for x in re.findall(r"[\d.]+(?:e-\d+)?", text)] for text in (line, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.01)
    assert [line.split(" | ")[1] for line in found] == ["1.000 / 0.00"] * 4


@pytest.mark.parametrize("peer", ["foreach", "default"])
def test_peer_and_options(tmp_path: Path, peer: str) -> None:
    arguments = ("--size", "tiny", "--model", "convnet", "--steps", "3", "--optimizer", "rmsprop", "--peer", peer)
    assert "RMSprop" in run("train.py", tmp_path, *arguments, "--options", "lr=0.001", "alpha=0.9", "centered=true")
    assert (tmp_path / "train.png").exists()


def test_every_optimizer_trains_beside_the_one_that_it_replaces(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_optimizer")
    arguments = ("--optimizer", "all", "--size", "tiny", "--model", "convnet", "--steps", "60", "--threads", "1")
    said = run("train.py", tmp_path, *arguments)
    rows = re.findall(r"^│ (\w+) .*│ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+) │$", said, re.MULTILINE)
    assert [name for name, *_ in rows] == [rule.__name__ for rule in ALL]
    for _, *numbers in rows:
        untrained, ours, other, gap = map(float, numbers)
        assert max(ours, other) < untrained - 0.3
        assert gap < 0.05  # rounding in other places, amplified by training


@pytest.mark.parametrize("rule", [rule.name() for rule in ALL])
def test_numpy_trains_with_the_bits_of_the_specification(tmp_path: Path, rule: str) -> None:
    said = run("train_numpy.py", tmp_path, "--optimizer", rule, "--steps", "30", "--hidden", "50")
    assert "identical bits: yes (fusedstep and reference, compared 2 times)" in said


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train", ["--model", "mlp"], "invalid choice: 'mlp'"),
        ("train", ["--model", "convnet", "--chars", "5000"], "argument --chars: convnet reads no text"),
        ("train", ["--peer", "fused", "--optimizer", "rmsprop"], "torch has no fused RMSprop on cpu"),
        ("train", ["--optimizer", "all", "--peer", "foreach"], "argument --optimizer: all trains one model"),
        ("train", ["--device", "tpu"], "invalid choice: 'tpu'"),
        ("train", ["--dtype", "float64"], "argument --dtype: invalid choice: 'float64'"),
        ("train", ["--state-dtype", "float16"], "argument --state-dtype: invalid choice: 'float16'"),
        (
            "train",
            ["--optimizer", "rmsprop", "--options", "centered=true", "--state-dtype", "bfloat16"],
            "argument --state-dtype: RMSprop: state_dtype of square_avg is 'bfloat16', expected 'float32' with",
        ),
        ("train", ["--plot", "absent/train.png"], "argument --plot: no folder 'absent'"),
        ("train", ["--plot", "train.doc"], "'train.doc' ends in none of: "),
        ("train_numpy", ["--options", "rate=1"], "argument --options: AdamW has no option 'rate', expected of lr,"),
        ("train_numpy", ["--options", "lr=fast"], "argument --options: could not convert"),
        ("train_numpy", ["--options", "lr=-1"], "argument --options: AdamW: lr is -1.0"),
        ("train_numpy", ["--options", "amsgrad=1"], "argument --options: amsgrad is '1', expected true or false"),
        ("train_numpy", ["--options", "betas=0.9"], "argument --options: AdamW: betas"),
    ],
)
def test_bad_input(
    script: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refusal(script, arguments, monkeypatch, capsys).replace("\n", " ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"argument --device: torch {torch.__version__} finds no CUDA device" in refusal(
        "train", ["--device", "cuda"], monkeypatch, capsys
    )
