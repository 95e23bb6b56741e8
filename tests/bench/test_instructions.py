"""bench/instructions.py: what it calls a regression, and that faults planted in the sources are one."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.tools import ROOT, need

sys.path.insert(0, str(ROOT / "bench"))

import instructions

ADAM, NORM = "avx2 adam-m-v float32 loop", "scalar norm 2 float64 loop"
BASELINE = {ADAM: 1000, "scalar adam-m-v float32 loop": 4000, NORM: 500}
CHANGELOG = """# Changelog

## 2.0 (unreleased)

### Changed

- Something else. bench/instructions.py sees it in sgd.
- Adam, which now does what it did not,
  takes 30% more instructions.

## 1.0

- norm: more instructions.
"""


def judged(counts: dict[str, int], changelog: str = "", baseline: dict[str, int] | None = BASELINE) -> tuple[int, str]:
    status, lines = instructions.verdict(instructions.compare(baseline, counts, changelog))
    return status, "\n".join(lines)


def test_what_passes() -> None:
    for factor in (0.9, 1.0, 1.1):
        assert judged({case: round(n * factor) for case, n in BASELINE.items()}) == (0, "")
    status, text = judged({**BASELINE, ADAM: 899})
    assert (status, "shrunk: " + ADAM in text, "--update" in text) == (0, True, True)


def test_growth() -> None:
    status, text = judged({**BASELINE, ADAM: 1101, NORM: 700})
    assert status == 1
    assert f"grown: {ADAM}, +10.1% to 1,101\ngrown: {NORM}, +40.0% to 700\n" in text
    assert "CHANGELOG.md" in text


def test_growth_that_the_changelog_explains() -> None:
    status, text = judged({**BASELINE, ADAM: 1300}, CHANGELOG)
    assert (status, "explained: " + ADAM in text) == (0, True)
    # One rule's entry is no other's, an older section's none, and the words have to stand in one entry.
    assert judged({**BASELINE, NORM: 700}, CHANGELOG)[0] == 1
    assert instructions.explained_rules(CHANGELOG, {"adam", "adamw", "norm", "sgd"}) == {"adam"}
    assert instructions.explained_rules("", {"adam"}) == set()


def test_new_and_gone() -> None:
    counts = {**BASELINE, "scalar lion-m float32 loop": 900}
    del counts[NORM]
    status, text = judged(counts)
    assert (status, text.splitlines()[:2]) == (1, ["new: scalar lion-m float32 loop", f"gone: {NORM}"])


def test_what_is_not_compared_has_not_passed() -> None:
    assert judged(BASELINE, baseline=None) == (3, "Nothing to compare with: no baseline for this compiler.")
    scalar = {case: n for case, n in BASELINE.items() if case.startswith("scalar")}
    assert judged(scalar) == (3, "This machine lacks an instruction set of the baseline.")
    assert judged({**scalar, NORM: 700})[0] == 1


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
