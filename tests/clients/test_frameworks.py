"""The examples of docs/frameworks.md, run as they are and with torch.optim put back, and compared."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import BOTH, assert_same, need, training, warns
from tests.helpers.tools import ROOT

PAGE = ROOT / "docs" / "frameworks.md"


class Example(NamedTuple):
    section: str
    line: int
    code: str

    def with_torch(self) -> str:
        """With what stood there before, on the lines where it stood, and without our import."""
        lines: list[str] = []
        replaced: str | None = None
        for line in self.code.splitlines():
            indent, marker, old = re.fullmatch(r"( *)(?:# (before|no longer): )?(.*)", line).groups()
            if replaced is not None:
                lines.append(replaced)
                replaced = None
            elif marker == "before":
                lines.append("")
                replaced = indent + old
            elif marker == "no longer":
                lines.append(indent + old)
            else:
                lines.append("" if line == "import fusedstep.torch" else line)
        code = "\n".join(lines)
        assert "fusedstep" not in code, f"{self.section}: a line with fusedstep, and none that says what was before"
        return code

    def run(self, code: str) -> dict[str, Any]:
        """What the script leaves. Tracebacks show its lines in the page."""
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile("\n" * self.line + code, str(PAGE), "exec"), names)
        return names


def examples() -> dict[str, Example]:
    section, found = "", {}
    text = PAGE.read_text().splitlines()
    for number, line in enumerate(text):
        if line.startswith("## "):
            section = line[3:]
        elif line == "```python":
            assert section not in found, f"two examples in {section}"
            code = "\n".join(text[number + 1 : text.index("```", number)])
            found[section] = Example(section, number + 1, code)
    return found


EXAMPLES = examples()


def trainer_training(trainer):
    return training(trainer.model, trainer.optimizer, [x["loss"] for x in trainer.state.log_history if "loss" in x])


# Which libraries an example needs, and how to look into what it calls `first` and `resumed`.
CLIENTS = {
    "transformers": (["transformers", "accelerate"], trainer_training),
    "accelerate": (["accelerate"], lambda start: training(start[1], start[2])),
    "peft": (["transformers", "peft"], lambda start: training(*start)),
    "Lightning": (["lightning"], lambda net: training(net, net.optimizers(), net.losses)),
    "Lightning Fabric": (["lightning"], lambda start: training(**start)),
    "timm": (["timm"], lambda start: training(start[0], start[1])),
    "skorch": (["skorch"], lambda net: training(net.module_, net.optimizer_, net.history[:, "train_loss"])),
    "stable-baselines3": (["stable_baselines3"], lambda ppo: training(ppo.policy, ppo.policy.optimizer)),
}


@pytest.fixture
def clips(monkeypatch):
    """Calls of torch's clip_grad_norm_: whether the norm was above the limit."""
    calls, original = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, max_norm, *args, **options):
        norm = original(parameters, max_norm, *args, **options)
        calls.append(norm.item() > max_norm)
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    if module := sys.modules.get("skorch.callbacks.regularization"):
        monkeypatch.setattr(module, "clip_grad_norm_", clip)
    return calls


def test_every_section_is_tested():
    assert list(EXAMPLES) == list(CLIENTS)
    assert PAGE.read_text().count("```") == 2 * len(EXAMPLES)


@pytest.mark.parametrize("client", [pytest.param(client, marks=warns(client)) for client in CLIENTS])
def test_example(client, tmp_path, monkeypatch, request):
    libraries, look = CLIENTS[client]
    for library in libraries:
        need(library)
    clips = request.getfixturevalue("clips")  # not before skorch is there
    example, runs = EXAMPLES[client], []
    for library, code in zip(BOTH, (example.with_torch(), example.code), strict=True):
        (tmp_path / library.__name__).mkdir()
        monkeypatch.chdir(tmp_path / library.__name__)
        clips.clear()
        names = example.run(code)
        first, resumed = look(names["first"]), look(names["resumed"])
        for opt in (first.optimizer, resumed.optimizer):
            assert isinstance(opt, fusedstep.torch.FusedOptimizer) == (library is fusedstep.torch)
        opt = first.optimizer
        if library is fusedstep.torch and opt.param_groups[0]["max_norm"] is not None:
            assert not clips
            assert opt.clipped_steps > 0
        else:
            assert any(clips)
        if client != "stable-baselines3":  # what it saves has not the state of the environment
            assert_same(resumed, first._replace(losses=first.losses[-len(resumed.losses) :]))
        runs.append((first, resumed, names.get("losses")))
    (theirs, theirs_resumed, their_losses), (ours, ours_resumed, our_losses) = runs
    assert_same(ours, theirs)
    assert_same(ours_resumed, theirs_resumed)
    torch.testing.assert_close(our_losses, their_losses, rtol=1e-4, atol=1e-6)
