"""Includes of csrc/ point downwards, as docs/design says, and no two files or folders include each other.

Imports of tests/: no test imports another one.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.helpers.tools import ROOT

CSRC = ROOT / "csrc"
# The floors, the ground first. What is on one floor does not know each other, but for files of one folder.
FLOORS = (("base.h",), ("rules", "vec", "formats"), ("kernels",), ("call",), ("cpu", "cuda"), ("bindings",))
# A target's lanes are named by the build (FS_LANES); the emulated runtime of CUDA is not ours to order.
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def room(path: Path) -> str:
    return path.relative_to(CSRC).parts[0]


def floor(path: Path) -> int:
    return next(k for k, rooms in enumerate(FLOORS) if room(path) in rooms)


def sources() -> list[Path]:
    found = [p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu")]
    assert len(found) > 40
    return sorted(found)


def included(path: Path) -> list[Path]:
    return [(path.parent / name).resolve() for name in INCLUDE.findall(path.read_text())]


def wrong(path: Path, other: Path) -> str | None:
    if not other.is_file():
        return "does not exist"
    if room(path) == room(other):
        return None
    if floor(other) == floor(path):
        return "is a sibling"
    return "is above it" if floor(other) > floor(path) else None


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names on a way that comes back to where it began; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := walk(other, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_every_room_has_a_floor():
    assert {room(p) for p in sources()} == {name for rooms in FLOORS for name in rooms}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_point_downwards(path):
    assert {str(o.relative_to(CSRC)): why for o in included(path) if (why := wrong(path, o))} == {}


def test_no_circle():
    files = {str(p.relative_to(CSRC)): {str(o.relative_to(CSRC)) for o in included(p)} for p in sources()}
    assert circle(files) == []
    rooms: dict[str, set[str]] = {}
    for path in sources():
        rooms.setdefault(room(path), set()).update(room(o) for o in included(path) if room(o) != room(path))
    assert circle(rooms) == []


def test_the_test_can_fail():
    assert wrong(CSRC / "rules/sgd.h", CSRC / "kernels/step.h") == "is above it"
    assert wrong(CSRC / "rules/sgd.h", CSRC / "vec/scalar.h") == "is a sibling"
    assert wrong(CSRC / "kernels/step.h", CSRC / "base.h") is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def imported(text: str) -> set[str]:
    """The last words of all modules and names that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[-1]}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.name.split(".")[-1] for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_test_is_imported(path):
    assert not [name for name in imported(path.read_text()) if name.startswith("test_")]


def test_an_imported_test_is_seen():
    assert imported("from tests.core.test_norm import SIZES as s") == {"test_norm", "SIZES"}
    assert imported("def f():\n    import tests.core.test_norm") == {"test_norm"}
