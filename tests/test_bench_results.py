"""What bench/ makes of its results, on one written here: statistics, pictures, the tables of documents."""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import tables
from harness import results
from tests.helpers.tools import missing

CASE: dict[str, Any] = {"rule": "AdamW", "shapes": "32M", "dtype": "float32", "clip": False, "device": "cpu"}
CASE |= {"threads": 2, "target": "avx512", "cache": "warm"}


def row(peer: str, milliseconds: float, **more: Any) -> dict[str, Any]:
    """Samples whose median is the time given, and whose quartiles are 1% away."""
    return {"peer": peer, "seconds": [1e-3 * milliseconds * f for f in (0.98, 0.99, 1.0, 1.01, 1.02)], **more}


def entry(sweep: str | None = None, tensors: int = 1, elements: int = 2**25, **case: Any) -> dict[str, Any]:
    time = 20 * elements / 2**25 / case.get("threads", 2) * 2
    memory = {"state_bytes_per_element": 8.0, "peak_bytes": elements}
    rows = [
        row("fusedstep", time, bytes_per_element=28.0, host_seconds=[1e-5, 3e-5, 2e-5], update_error=0.0, **memory),
        row("torch fused", 1.5 * time, **memory),
        row("torch default", 90.0 * time, **memory),
        row("someone else", 0.8 * time),
        {"peer": "apex", "failed": "not for CPUs"},
        row("limit", 0.75 * time),
    ]
    counts = {"tensors": tensors, "elements": elements, "bytes_per_element": 28, "flops_per_element": 13}
    return {"case": {**CASE, **case}, "sweep": sweep, **counts, "rows": rows}


RESULT: dict[str, Any] = {
    "schema": 1,
    "command": "python bench/compare.py --quick",
    "date": "2026-11-26",
    "machine": {"processor": "A processor", "cores": 2, "memory_gib": 8.0, "system": "Linux x86_64", "gpu": None},
    "versions": {"fusedstep": "0.2.0", "python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0+cpu"},
    "missing": {},
    "limits": {"cpu": {"bytes_per_second": 4e10, "flops_per_second": 1e11}},
    "cases": [
        *(entry(rule=rule, clip=clip) for rule in ("AdamW", "SGD") for clip in (False, True)),
        *(entry("tensors", tensors=n, shapes=f"{n} tensors") for n in (1, 10, 100)),
        *(entry("size", elements=n, shapes=str(n)) for n in (1000, 10**5, 10**7)),
        *(entry("threads", threads=n) for n in (1, 2)),
    ],
    "training": [
        {"model": "transformer", "optimizer": "AdamW", "parameters": 800_000, "tensors": 52, "device": "cpu"}
        | {
            "threads": 2,
            "rows": [
                {"peer": "fusedstep", "update_seconds": [0.001], "step_seconds": [0.04]},
                {"peer": "torch fused + clip_grad_norm_", "update_seconds": [0.002], "step_seconds": [0.041]},
            ],
        }
    ],
}
NAMES = ("speedup", "roofline", "tensors", "size", "threads", "memory", "training")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "machine-0.2.json"
    path.write_text(json.dumps(RESULT))
    return path


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    if find_spec("matplotlib") is None:
        missing("not installed: matplotlib")
    return importlib.import_module("plot")


def call(main: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
    return main()


def test_statistics() -> None:
    """By hand: of 1 2 3 4 5 the quartiles are 2 and 4; 10.1 is beyond 4 + 3 * 2, 10 is not."""
    samples = {"peer": "x", "seconds": [5.0, 1.0, 4.0, 2.0, 3.0]}
    assert results.median_of(samples) == 3
    assert results.quartiles(samples) == (2, 4)
    assert results.noise(samples) == 2 / 3
    assert results.quartiles({"seconds": [7.0]}) == (7, 7)
    assert results.outliers({"seconds": [1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 10.1]}) == [10.1]  # quartiles 2 and 4
    assert results.outliers({"seconds": [1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 10.0]}) == []


def test_ratio_and_limit() -> None:
    one = entry()
    assert results.ratio(one, "torch fused") == pytest.approx(1.5)
    assert results.ratio(one, "fusedstep") == 1
    assert results.ratio(one, "apex") is None
    assert results.ratio(one, "nobody") is None
    assert results.limit_share(one, one["rows"][1]) == pytest.approx(0.5)
    assert results.limit_share(one, one["rows"][4]) is None
    assert results.limit_share({**one, "rows": one["rows"][:-1]}, one["rows"][0]) is None
    lost = {**one, "rows": [{"peer": "fusedstep", "failed": "no reason"}, *one["rows"][1:]]}
    assert results.ratio(lost, "torch fused") is None
    assert not results.faster(lost, "someone else")


@pytest.mark.parametrize(("time", "spread", "faster"), [(0.96, 0.001, True), (0.98, 0.001, False), (0.9, 0.2, False)])
def test_faster_is_beyond_the_noise(time: float, spread: float, faster: bool) -> None:
    theirs = {"peer": "x", "seconds": [time * f for f in (1 - 2 * spread, 1 - spread, 1, 1 + spread, 1 + 2 * spread)]}
    entry = {"case": {"device": "cpu"}, "rows": [{"peer": "fusedstep", "seconds": [1.0]}, theirs]}
    assert bool(results.faster(entry, "x")) == faster


def test_label() -> None:
    assert results.label(CASE) == "AdamW, 32M, float32"
    assert results.label({**CASE, "clip": True}) == "AdamW, 32M, float32 + clip"
    assert results.label(CASE, "threads", "cache") == "AdamW, 32M, float32 (2 threads, warm cache)"
    assert results.label({**CASE, "threads": 1}, "device", "threads") == "AdamW, 32M, float32 (cpu, 1 thread)"
    assert results.label({**CASE, "threads": None, "target": None}, "threads", "target") == "AdamW, 32M, float32"


def test_numbers() -> None:
    values = (0.9468, 1.234, 9.996, 12.34, 123.4, 1234.0, 0.0)
    assert [results.significant(v) for v in values] == ["0.95", "1.23", "10.0", "12.3", "123", "1230", "0.00"]
    times = (1.5, 0.99996, 0.0123, 4.56e-6, 7.8e-9)
    assert [results.duration(t) for t in times] == ["1.50 s", "1.00 s", "12.3 ms", "4.56 µs", "7.80 ns"]


def without(*keys: Any) -> str:
    result = copy.deepcopy(RESULT)
    inner = result
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return json.dumps(result)


def changed(value: Any, *keys: Any) -> str:
    result = copy.deepcopy(RESULT)
    inner = result
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(result)


BROKEN = {
    "no file": (None, "No such file"),
    "no JSON": ("{", "not JSON"),
    "no object": ("[]", "no 'schema'"),
    "other schema": (changed(7, "schema"), "schema 7, expected 1"),
    "no cases": (without("cases"), "no 'cases'"),
    "cases are text": (changed("x", "cases"), "not a result"),
    "no rule": (without("cases", 2, "case", "rule"), r"cases\[2\] has no rule"),
    "unknown sweep": (changed("x", "cases", 0, "sweep"), "sweep 'x', expected"),
    "no peer": (without("cases", 0, "rows", 0, "peer"), "no 'peer'"),
    "no samples": (changed([], "cases", 1, "rows", 1, "seconds"), r"cases\[1\], torch fused: seconds has no samples"),
    "negative": (changed([1, -1], "cases", 0, "rows", 0, "seconds"), r"fusedstep.seconds\[1\] is -1, expected"),
    "NaN": (changed([float("nan")], "cases", 0, "rows", 0, "seconds"), "is nan, expected"),
    "no elements": (changed(0, "cases", 0, "elements"), r"cases\[0\].elements is 0"),
    "no step": (without("training", 0, "rows", 0, "step_seconds"), "no 'step_seconds'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_results(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        results.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["no file", "no JSON", "other schema"])
def test_no_picture_of_broken_results(
    name: str, plot: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = file.with_name("broken.json")
    if (text := BROKEN[name][0]) is not None:
        broken.write_text(text)
    assert call(plot.main, monkeypatch, file, broken) == 2
    assert re.fullmatch(r"plot.py: error: .*broken.json: .*\n", capsys.readouterr().err)
    assert not list(file.parent.glob("*.png"))


def test_pictures(plot: ModuleType, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "pictures"
    assert call(plot.main, monkeypatch, file, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {f"machine-0.2-{n}.{e}" for n in NAMES for e in ("png", "svg")}
    imread = importlib.import_module("matplotlib.image").imread
    for name in NAMES:
        pixels = imread(out / f"machine-0.2-{name}.png")
        assert pixels.shape[1] == 1800
        assert 400 < pixels.shape[0] < 3000
        assert pixels[0, 0].min() == 1  # a light background
        assert pixels.std() > 0.05  # with something on it
        assert "<dc:date>" not in (out / f"machine-0.2-{name}.svg").read_text()
    again = tmp_path / "again"
    assert call(plot.main, monkeypatch, file, "--out", again, "--only", "speedup", "size") == 0
    assert len(list(again.iterdir())) == 4
    for path in again.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_speedup_says_what_was_measured(plot: ModuleType) -> None:
    (figure,) = plot.speedup(RESULT).values()
    text = importlib.import_module("matplotlib.text").Text
    shown = "\n".join(found.get_text() for found in figure.findobj(text)).replace("\u00a0", " ")
    for expected in (
        "A processor",
        "fusedstep 0.2.0",
        "AdamW, 32M, float32 + clip",
        "fusedstep 20.0 ms",
        "someone else",
    ):
        assert expected in shown
    for expected in ("1.50", "90.0", "0.80", "75% of the limit; apex: none"):
        assert expected in shown


def test_pictures_of_two_devices(plot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = entry(device="cuda", threads=2)
    gpu["case"] |= {"threads": None, "target": None}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**RESULT, "cases": [*RESULT["cases"], gpu]}))
    assert call(plot.main, monkeypatch, path, "--only", "speedup", "memory") == 0
    expected = {f"a-{name}-{device}" for name in ("speedup", "memory") for device in ("cpu", "cuda")}
    assert {p.stem for p in tmp_path.glob("*.png")} == expected
    out = tmp_path / "b"
    assert call(plot.main, monkeypatch, path, "--only", "speedup", "--where", "device:cuda", "--out", out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a-speedup.png", "a-speedup.svg"]


def test_many_cases_are_several_pictures(plot: ModuleType) -> None:
    cases = [entry(rule=f"rule {n}", shapes=shapes) for shapes in ("a", "b/c") for n in range(20)]
    assert set(plot.speedup({**RESULT, "cases": cases})) == {"-a", "-b-c"}


def test_colours_belong_to_names(plot: ModuleType) -> None:
    styles = importlib.import_module("harness.drawing").STYLES
    colours, markers = zip(*styles.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(styles)
    assert plot.style("torch fused + clip_grad_norm_") == plot.style("torch fused")
    assert plot.style("someone else") == plot.style("someone else")
    assert plot.style("fusedstep") != plot.style("someone else")


def test_nothing_to_draw(
    plot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = entry()
    failed["rows"][0] = {"peer": "fusedstep", "failed": "no reason"}
    path = tmp_path / "empty.json"
    for cases in ([], [failed]):
        path.write_text(json.dumps({**RESULT, "cases": cases, "training": []}))
        assert call(plot.main, monkeypatch, path) == 0
        assert capsys.readouterr().out.count("skipped") == len(NAMES)
        assert call(plot.main, monkeypatch, path, "--only", "roofline") == 2
        assert "holds nothing for the picture 'roofline'" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["empty.json"]


MARKERS = """# Title

<!-- table: machine-0.2.json kind=speedup rows=rule,clip peers="torch fused|apex|someone else" -->
anything
<!-- end -->
```
<!-- table: left alone in fenced code -->
```
<!-- table: machine-0.2.json kind=bandwidth where=rule:SGD,clip:true -->
<!-- end -->
<!-- table: machine-0.2.json kind=memory where="rule:SGD|Adam,clip:false" peers="torch fused|someone else" -->
<!-- end -->
<!-- table: machine-0.2.json kind=training -->
<!-- end -->
<!-- table: machine-0.2.json kind=losses where=sweep:null,rule:SGD -->
<!-- end -->
<!-- table: machine-0.2.json kind=losses peers="torch fused" -->
<!-- end -->
the end
"""
LINES = """| case | fusedstep | of limit | torch fused | apex | someone else |
| AdamW | 20.0 ms | 75% | 1.50 | - | 0.80 |
| AdamW + clip | 20.0 ms | 75% | 1.50 | - | 0.80 |
| SGD, 32M, float32 + clip | 20.0 ms | 47.0 | 75% | 20.0 µs |
| SGD, 32M, float32 | 8.00 + 1.00 | - |
| transformer, AdamW, 800,000 parameters, cpu | torch fused + clip_grad_norm_ | 2.00 ms | 41.0 ms | 4.9% |
| SGD, 32M, float32 + clip | someone else | step | 0.80 |
None.
""".splitlines()


def test_tables(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    document, other = file.with_name("a.md"), file.with_name("b.md")
    document.write_text(MARKERS)
    other.write_text("no table\r\n", newline="")
    arguments = (document, other, "--results", file.parent)
    assert call(tables.main, monkeypatch, "--check", *arguments) == 1
    assert document.read_text() == MARKERS
    assert call(tables.main, monkeypatch, *arguments) == 0
    text = document.read_text()
    for line in LINES:
        assert line in text.split("\n")
    assert "anything" not in text
    assert [line for line in text.split("\n") if "<!--" in line] == [x for x in MARKERS.split("\n") if "<!--" in x]
    assert text.count("A processor, 2 cores; fusedstep 0.2.0, torch 2.13.0+cpu, Python 3.11.7, NumPy 2.4.6; ") == 6
    assert text.count("`python bench/compare.py --quick`; samples in `machine-0.2.json`.") == 6
    assert other.read_bytes() == b"no table\r\n"
    assert call(tables.main, monkeypatch, "--check", *arguments) == 0

    capsys.readouterr()
    line = "| AdamW + clip | 20.0 ms | 75% | 1.50 |"
    document.write_text(text.replace(line, line.replace("1.50", "1.60")))
    assert call(tables.main, monkeypatch, "--check", *arguments) == 1
    said = capsys.readouterr()
    assert "-| AdamW + clip | 20.0 ms | 75% | 1.60 |" in said.out
    assert "+| AdamW + clip | 20.0 ms | 75% | 1.50 |" in said.out
    assert said.err == f"out of step: {document}\n"
    assert call(tables.main, monkeypatch, *arguments) == 0
    assert document.read_text() == text


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("x.json kind=speedup -->\n<!-- end -->", ":2: .*x.json: No such file"),
        ("F kind=what -->\n<!-- end -->", ":2: unknown kind 'what', expected one of speedup"),
        ("F kind=speedup colour=red -->\n<!-- end -->", ":2: unknown colour, expected kind="),
        ("F kind=speedup rows=size -->\n<!-- end -->", ":2: unknown size in rows="),
        ("F kind=speedup where=size:3 -->\n<!-- end -->", ":2: 'size:3' is no filter"),
        ("F kind=speedup where=rule:LBFGS -->\n<!-- end -->", ":2: no case passes where="),
        ("F kind=speedup rows=rule -->\n<!-- end -->", ":2: two cases are 'AdamW'; they differ in clip"),
        ('F kind=speedup peers="torch fused|me" -->\n<!-- end -->', ":2: no peer 'me' in these cases"),
        ('F kind=training peers="me" -->\n<!-- end -->', ":2: no peer 'me' in training"),
        ('F kind=speedup peers="me -->\n<!-- end -->', ":2: No closing quotation"),
        ("F kind=speedup\n<!-- end -->", ":2: the marker has to end in -->"),
        ("F kind=losses -->\n", ":2: no <!-- end -->"),
        ("F kind=losses -->\n<!-- table: F kind=losses -->", ":3: the table of line 2 has no"),
        ("F kind=losses -->\n<!-- end -->\n<!-- end -->", ":4: <!-- end --> without a table"),
    ],
)
def test_broken_markers(
    marker: str, message: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = file.with_name("a.md")
    text = "first\n<!-- table: " + marker.replace("F ", "machine-0.2.json ")
    document.write_text(text)
    for check in ([], ["--check"]):
        assert call(tables.main, monkeypatch, *check, document, "--results", file.parent) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"tables.py: error: {document}:")
        assert re.search(message, error)
    assert document.read_text() == text
