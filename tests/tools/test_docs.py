"""The documents: what is generated is up to date, links lead somewhere, the README's code runs and is short."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fusedstep.torch
from fusedstep.torch import _decay, _release
from tests.helpers.tools import ROOT, need_package

DOCUMENTS = sorted(p for folder in ("", "docs/**/", "bench/", "tests/") for p in ROOT.glob(f"{folder}*.md"))


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = document.parent / name if name else document
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("document", ["README.md", "docs/formats.md", "docs/release.md", "docs/ride-alongs.md"])
def test_code_runs(document: str, tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert len(snippets) >= 2
    for snippet in snippets:
        done = subprocess.run(
            [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_what_is_generated_is_up_to_date() -> None:
    need_package("ruff")
    done = subprocess.run(
        [sys.executable, ROOT / "tools/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------- groups with and without decay


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 4)
        self.linear = torch.nn.Linear(4, 10)
        self.norm = torch.nn.LayerNorm(4)
        self.position = torch.nn.Parameter(torch.zeros(3, 4))
        self.tied = torch.nn.Linear(4, 10, bias=False)
        self.tied.weight = self.embedding.weight
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({}, {"linear.bias", "norm.weight", "norm.bias"}),
        ({"decay_vectors": True}, set()),
        ({"decay_embeddings": False}, {"linear.bias", "norm.weight", "norm.bias", "embedding.weight"}),
        ({"decay_vectors": True, "no_decay": ["pos*", "*.bias"]}, {"position", "linear.bias", "norm.bias"}),
    ],
)
def test_param_groups(options: dict, without: set[str]) -> None:
    model = Model()
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    groups = fusedstep.torch.param_groups(model, weight_decay=0.1, **options)
    found = {g["weight_decay"]: [names[id(p)] for p in g["params"]] for g in groups}
    assert set(found.get(0.0, [])) == without
    assert sorted(n for g in found.values() for n in g) == sorted(names.values())  # each once, none that is frozen
    assert found[0.1] == [n for n in names.values() if n not in without]
    opt = fusedstep.torch.get("adamw")(groups, lr=1e-3)
    assert [g["weight_decay"] for g in opt.param_groups] == list(found)


def test_param_groups_asks_the_model() -> None:
    class Own(Model):
        def no_weight_decay(self) -> set[str]:
            return {"position"}

    groups = fusedstep.torch.param_groups(Own(), 0.1)
    assert [len(g["params"]) for g in groups] == [2, 4]
    with pytest.raises(ValueError, match="param_groups: weight_decay is -1"):
        fusedstep.torch.param_groups(Own(), -1)
    with pytest.raises(TypeError, match="param_groups: no_decay is 'position', expected a list of names"):
        fusedstep.torch.param_groups(Own(), 0.1, no_decay="position")


@pytest.mark.parametrize("name", ["tied.weight", "embedding.weight", "tied.*"])
def test_param_groups_knows_every_name_of_a_tied_parameter(name: str) -> None:
    model = Model()
    groups = fusedstep.torch.param_groups(model, 0.1, no_decay=[name], decay_vectors=True)
    assert [id(p) for p in groups[1]["params"]] == [id(model.embedding.weight)]


def test_param_groups_names_what_it_cannot_use() -> None:
    for patterns in (["positron"], ["pos*", "*.gain"], ["pos*", "Position"]):
        wrong = patterns[-1].replace("*", r"\*")
        with pytest.raises(ValueError, match=rf"param_groups: no_decay has '{wrong}', expected names or patterns"):
            fusedstep.torch.param_groups(Model(), 0.1, no_decay=patterns)
    fusedstep.torch.param_groups(Model(), 0.1, no_decay=["frozen.*"])  # a parameter, though not a trained one
    with pytest.raises(TypeError, match=r"param_groups: no_decay\[1\] is 3, expected a name or a pattern"):
        fusedstep.torch.param_groups(Model(), 0.1, no_decay=["pos*", 3])
    for model in (Model().parameters(), list(Model().parameters()), None):
        with pytest.raises(TypeError, match=rf"param_groups: model is a {type(model).__name__}, expected a torch.nn.M"):
            fusedstep.torch.param_groups(model, 0.1)

    class Own(Model):
        def no_weight_decay(self) -> set[str]:
            return {"position", "head.dist_token"}  # as timm's models list what other variants of them have

    assert [len(g["params"]) for g in fusedstep.torch.param_groups(Own(), 0.1)] == [2, 4]


@pytest.mark.parametrize(("module", "least"), [(_decay, 4), (_release, 5)])
def test_examples_in_docstrings(module: Any, least: int) -> None:
    done = doctest.testmod(module, extraglobs={"fusedstep": fusedstep, "torch": torch})
    assert done.attempted >= least
    assert done.failed == 0
