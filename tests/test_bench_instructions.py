"""bench/instructions.py: what it calls a regression, and that faults planted in the sources are one."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.tools import ROOT, need

spec = importlib.util.spec_from_file_location("instructions", ROOT / "bench/instructions.py")
assert spec is not None
assert spec.loader is not None
instructions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(instructions)

BASELINE = {"avx2 adam-m-v float32 loop": 1000, "scalar adam-m-v float32 loop": 4000, "scalar norm 2 float64 loop": 500}
CHANGELOG = """# Changelog

## 2.0 (unreleased)

### Changed

- Something else. bench/instructions.py sees it in sgd.
- Adam, which now does what it did not,
  takes 30% more instructions.

## 1.0

- norm: more instructions.
"""


def kinds(counts: dict[str, int], changelog: str = "", baseline: dict[str, int] | None = BASELINE) -> dict[str, str]:
    return {c.case: c.kind for c in instructions.compare(baseline, counts, changelog) if c.kind != "same"}


def judged(counts: dict[str, int], changelog: str = "", baseline: dict[str, int] | None = BASELINE) -> tuple[int, str]:
    status, lines = instructions.verdict(instructions.compare(baseline, counts, changelog))
    return status, "\n".join(lines)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_within_the_limit(factor: float) -> None:
    counts = {case: round(n * factor) for case, n in BASELINE.items()}
    assert kinds(counts) == {}
    assert judged(counts) == (0, "")


def test_growth() -> None:
    counts = {**BASELINE, "avx2 adam-m-v float32 loop": 1101, "scalar norm 2 float64 loop": 700}
    assert kinds(counts) == {"avx2 adam-m-v float32 loop": "grown", "scalar norm 2 float64 loop": "grown"}
    status, text = judged(counts)
    assert status == 1
    assert "10.1%: avx2 adam-m-v float32 loop" in text
    assert "40.0%: scalar norm 2 float64 loop" in text
    assert "CHANGELOG.md" in text
    assert "adam, norm" in text


def test_growth_that_the_changelog_explains() -> None:
    counts = {**BASELINE, "avx2 adam-m-v float32 loop": 1300}
    assert kinds(counts, CHANGELOG) == {"avx2 adam-m-v float32 loop": "explained"}
    assert judged(counts, CHANGELOG)[0] == 0
    # One rule's entry is no other's, an older section's none, and the words have to stand in one entry.
    assert kinds({**BASELINE, "scalar norm 2 float64 loop": 700}, CHANGELOG) == {"scalar norm 2 float64 loop": "grown"}
    assert instructions.explained_rules(CHANGELOG, {"adam", "adamw", "norm", "sgd"}) == {"adam"}
    assert instructions.explained_rules("", {"adam"}) == set()


def test_shrinkage_passes_with_advice() -> None:
    counts = {**BASELINE, "avx2 adam-m-v float32 loop": 899}
    assert kinds(counts) == {"avx2 adam-m-v float32 loop": "shrunk"}
    status, text = judged(counts)
    assert status == 0
    assert "--update" in text


def test_new_and_gone() -> None:
    counts = {**BASELINE, "scalar lion-m float32 loop": 900}
    del counts["scalar norm 2 float64 loop"]
    assert kinds(counts) == {"scalar lion-m float32 loop": "new", "scalar norm 2 float64 loop": "gone"}
    status, text = judged(counts)
    assert status == 1
    assert "not in the baseline: scalar lion-m float32 loop" in text
    assert "only in the baseline: scalar norm 2 float64 loop" in text
    assert "--update" in text


def test_what_is_not_compared_has_not_passed() -> None:
    assert judged(BASELINE, baseline=None)[0] == 3
    assert "no baseline" in judged(BASELINE, baseline=None)[1]
    scalar = {case: n for case, n in BASELINE.items() if case.startswith("scalar")}
    assert kinds(scalar) == {"avx2 adam-m-v float32 loop": "no target"}
    status, text = judged(scalar)
    assert status == 3
    assert "avx2" in text
    assert judged({**scalar, "scalar norm 2 float64 loop": 700})[0] == 1


@pytest.mark.parametrize("absent", ["valgrind", "cmake"])
def test_missing_tool(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == absent else program)
    with pytest.raises(SystemExit) as error:
        instructions.build(tmp_path)
    assert error.value.code == 2
    assert f"needs {absent}" in capsys.readouterr().err


# What, where, the text, what stands there instead, the cases that must have grown.
FAULTS = {
    "the loop updates twice": (
        "csrc/kernels/step.h",
        "    update_one<Rule>(u, V::load(g + i), param, state, states);\n",
        "    update_one<Rule>(u, V::load(g + i), param, state, states);\n" * 2,
        " adam-.* loop$",
    ),
    "an allocation for each tensor": (
        "csrc/cpu/step.cpp",
        "kernel(w.uniform, streams, c.end - c.begin);",
        "kernel(w.uniform, std::vector<void*>(streams, streams + w.streams).data(), c.end - c.begin);",
        " (sgd|adam|clip).* tensors$",
    ),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, dict[str, int]]:
    """A copy of the sources, its build, and what that counts."""
    need("valgrind", "cmake", "c++")
    tree, build = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("build")
    for folder in ("csrc", "bench", "tests/replay"):
        shutil.copytree(ROOT / folder, tree / folder)
    shutil.copy(ROOT / "CMakeLists.txt", tree)
    return tree, build, *instructions.count(instructions.build(build, tree))


def test_counts_are_the_same_in_another_place(copied: tuple[Path, Path, str, dict[str, int]], tmp_path: Path) -> None:
    assert instructions.count(instructions.build(tmp_path)) == copied[2:]


@pytest.mark.parametrize("fault", FAULTS)
def test_planted(copied: tuple[Path, Path, str, dict[str, int]], fault: str) -> None:
    tree, build, _, baseline = copied
    source, text, instead, cases = FAULTS[fault]
    whole = (tree / source).read_text()
    assert whole.count(text) == 1
    (tree / source).write_text(whole.replace(text, instead))
    try:
        _, counts = instructions.count(instructions.build(build, tree))
    finally:
        (tree / source).write_text(whole)
    changes = instructions.compare(baseline, counts, "")
    expected = {case for case in baseline if re.search(cases, case)}
    assert expected
    assert expected <= {c.case for c in changes if c.kind == "grown"}
    assert instructions.verdict(changes)[0] == 1
