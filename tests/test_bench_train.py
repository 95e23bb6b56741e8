"""bench/train.py: each model trains, results have their schema and are added to, bad input is named."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tools import ROOT

sys.path.insert(0, str(ROOT / "bench"))
from machine import processor

pytest.importorskip("matplotlib")  # of the extra "bench"
pytest.importorskip("rich")

MODELS = ("transformer", "convnet", "embedding")
OTHERS = {
    "schema": 1,
    "command": "python bench/compare.py",
    "date": "2000-01-01",
    "machine": {"processor": processor()},
    "versions": {"fusedstep": "0"},
    "missing": {"jax": "not installed"},
    "limits": {"cpu": {"bytes_per_second": 1.5e10}},
    "cases": [],
}


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench/train.py", "--size", "tiny", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def refusal(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script says of its arguments; in this process, which has torch already."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("train").parse()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def entry(model: str, optimizer: str, device: str = "cpu") -> dict[str, Any]:
    row = {"peer": "fusedstep", "update_seconds": [1e-3], "step_seconds": [2e-3]}
    described = {"model": model, "optimizer": optimizer, "device": device}
    return {**described, "parameters": 1, "tensors": 1, "rows": [row]}


def test_all_models_train(tmp_path: Path) -> None:
    run = train(tmp_path, "--model", "all", "--steps", "60", "--json", "new.json")
    assert run.returncode == 0, run.stdout + run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"new.json", *(f"train-{model}.png" for model in MODELS)}
    result = json.loads((tmp_path / "new.json").read_text())
    assert list(result) == [*OTHERS, "training"]
    assert result["schema"] == 1
    assert result["command"] == "python bench/train.py --size tiny --model all --steps 60 --json new.json"
    assert set(result["machine"]) == {"processor", "cores", "memory_gib", "cache_mib", "system", "gpu"}
    assert result["versions"].keys() >= {"python", "compiler", "fusedstep", "numpy", "torch", "scikit-learn"}
    assert [trained["model"] for trained in result["training"]] == list(MODELS)
    untrained = {"transformer": 4.9, "convnet": 2.3, "embedding": 3.0}  # ln of what there is to choose from
    for trained in result["training"]:
        assert (trained["optimizer"], trained["device"], trained["steps"]) == ("AdamW", "cpu", 60)
        assert trained["threads"] >= 1
        assert trained["parameters"] > 10_000 > trained["tensors"] > 1
        ours, theirs = trained["rows"]
        assert (ours["peer"], theirs["peer"]) == ("fusedstep", "torch fused + clip_grad_norm_")
        for row in (ours, theirs):
            assert len(row["update_seconds"]) == len(row["step_seconds"]) == 60
            pairs = zip(row["update_seconds"], row["step_seconds"], strict=True)
            assert all(0 < update < step == float(f"{step:.4g}") for update, step in pairs)
        losses = trained["final_loss"]
        assert losses.keys() == {"fusedstep", "torch"}
        assert max(losses.values()) < untrained[trained["model"]] - 0.3
        assert losses["fusedstep"] == pytest.approx(losses["torch"], abs=0.1)


def test_adds_to_a_result(tmp_path: Path) -> None:
    """What is there stays, but for the same model, optimizer and device."""
    kept = [entry("convnet", "SGD"), entry("convnet", "RMSprop", "cuda"), entry("embedding", "RMSprop")]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**OTHERS, "training": [kept[0], entry("convnet", "RMSprop"), *kept[1:]]}))
    arguments = ("--model", "convnet", "--optimizer", "rmsprop", "--steps", "3", "--json", "result.json")
    assert train(tmp_path, *arguments).returncode == 0
    result = json.loads(path.read_text())
    *before, new = result.pop("training")
    assert before == kept
    assert new["steps"] == 3
    assert new["rows"][1]["peer"] == "torch foreach + clip_grad_norm_"  # the fastest it has
    assert result == OTHERS
    assert (tmp_path / "train.png").exists()


@pytest.mark.parametrize("peer", ["foreach", "default"])
def test_peer(tmp_path: Path, peer: str) -> None:
    """Into a benchmark's result that has no training yet."""
    (tmp_path / "result.json").write_text(json.dumps(OTHERS))
    run = train(
        tmp_path, "--model", "embedding", "--steps", "3", "--chars", "50000", "--peer", peer, "--json", "result.json"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (trained,) = json.loads((tmp_path / "result.json").read_text())["training"]
    assert trained["rows"][1]["peer"] == f"torch {peer} + clip_grad_norm_"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mlp"], "invalid choice: 'mlp'"),
        (["--model", "convnet", "--chars", "5000"], "argument --chars: convnet reads no text"),
        (["--peer", "fused", "--optimizer", "rmsprop"], "torch has no fused RMSprop on cpu"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--json", "absent/result.json"], "argument --json: no folder 'absent'"),
        (["--json", "list.json"], "argument --json: list.json: not a result"),
        (["--json", "text.json"], "argument --json: text.json: not JSON"),
        (["--json", "newer.json"], "argument --json: newer.json: schema 2, expected 1"),
        (["--json", "another.json"], "argument --json: another.json was measured on another, this is "),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {"list.json": "[1]", "text.json": "loss,1.9", "newer.json": json.dumps({**OTHERS, "schema": 2})}
    contents["another.json"] = json.dumps({**OTHERS, "machine": {"processor": "another"}})
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    assert message in refusal(arguments, monkeypatch, capsys)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == contents


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"argument --device: torch {torch.__version__} finds no CUDA device" in refusal(
        ["--device", "cuda"], monkeypatch, capsys
    )
