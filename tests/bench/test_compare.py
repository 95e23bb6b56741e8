"""bench/compare.py: what is counted and timed, what failing peers do, what got slower, the page and the pictures."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusedstep.rules import ALL
from tests.helpers.tools import ROOT, need

BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))

pytest.importorskip("scipy")  # of the extra "bench"
pytest.importorskip("rich")

import tables  # noqa: E402
from harness import cases, limits, measure, report, results, run  # noqa: E402
from harness.cases import Case, Shapes, read_shapes, rules, shape_names  # noqa: E402
from harness.peers import Contender, Unavailable, all_peers  # noqa: E402
from harness.peers.torch_ import clipped  # noqa: E402

SMALL = Shapes("small", "made for a test", ((50, 3), (7,), (1000,)))


def case(rule: str = "AdamW", **changes: Any) -> Case:
    return Case(rules()[rule], SMALL).but(**changes)


def test_every_kernel_of_every_declared_optimizer_is_a_rule() -> None:
    assert [r.spec for r in rules().values() if not r.clips_alone] == [spec for spec in ALL for _ in spec.variants()]
    assert {"Lion", "NAdam", "RMSprop centered momentum", "AdamW amsgrad"} <= rules().keys()
    assert {c.rule.label for c in cases.full("cpu", ["avx2"])} == rules().keys()
    assert {c.shapes.name for c in cases.full("cpu", ["avx2"])} >= set(shape_names()) - {"gpt2-xl"}


@pytest.mark.parametrize(
    ("rule", "dtype", "state", "clip", "expected"),
    [  # by hand: param and state read and written, gradient read, twice to clip
        ("SGD", "float32", None, False, {"float32": 12}),
        ("SGD", "float64", None, True, {"float64": 32}),
        ("Lion", "float32", None, False, {"float32": 20}),
        ("AdamW", "float32", None, True, {"float32": 32}),
        ("AdamW", "float32", "bfloat16", False, {"float32": 12, "bfloat16": 8}),
        ("AdamW", "bfloat16", None, False, {"bfloat16": 6, "float32": 16}),
        ("AdamW", "bfloat16", "bfloat16", False, {"bfloat16": 14}),
        ("AdamW amsgrad", "float32", None, False, {"float32": 36}),
        ("clip_grad_norm_", "bfloat16", None, True, {"bfloat16": 6}),  # the gradient read twice and written
    ],
)
def test_bytes_by_format(rule: str, dtype: str, state: str | None, clip: bool, expected: dict[str, int]) -> None:
    one = case(rule, dtype=dtype, state=state, clip=clip)
    data = measure.Data(one)
    arrays = [x for own in data.state(one).values() for x in own.values() if x.dim()]
    assert measure.moved(one, data.params, arrays) == expected


def test_bytes_of_several_formats() -> None:
    data, a = measure.Data(case()), torch.zeros(SMALL.elements, dtype=torch.float64)
    assert measure.moved(case(), data.params, [a, a.view(13, -1)]) == {"float32": 12, "float64": 16}  # each memory once
    assert measure.bytes_by_format([torch.zeros(3), np.zeros(2, np.int8)]) == {"float32": 12, "int8": 2}


def test_shapes(tmp_path: Path) -> None:
    sizes = {name: read_shapes(name).elements for name in (*shape_names(), "300x1000")}
    assert sizes["resnet50"] == 25_557_032  # torchvision's count
    assert sizes["gpt2"] == 124_439_808  # transformers' count, head tied
    assert (sizes["300x1000"], sizes["32M"], sizes["sb3"]) == (300_000, 2**25, 9155)
    assert len(read_shapes("sb3").tensors) == 12
    assert read_shapes("3x7").tensors == ((7,),) * 3
    with pytest.raises(ValueError, match=r"no shape file 'bert', expected one of 32M, gpt2"):
        read_shapes("bert")
    path = tmp_path / "mine.json"
    path.write_text('{"source": "", "tensors": [[2, [0]]]}')
    with pytest.raises(ValueError, match=r"shape file mine\.json is not readable.*expected {\"source\""):
        read_shapes(str(path))


def test_gradients_are_fresh_and_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "POOL", 300)  # smaller than a tensor, which is to be filled to its end
    data = measure.Data(case())
    seen = []
    for _ in range(3):
        seen.append([p.grad.clone() for p in data.params])
        data.refresh()
    for one, other in itertools.pairwise(seen):
        assert all((a != b).float().mean() > 0.9 for a, b in zip(one, other, strict=True))
    flat = torch.cat([g.flatten() for g in seen[0]])
    assert (flat != 0).all()
    assert flat.std() == pytest.approx(measure.GRADIENT, rel=0.2)


def test_turns() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    samples, failed = measure.take_turns(steps, "cpu", lambda name: order.append(name.upper()), budget=0.0, least=30)
    assert order[::2] == [name.upper() for name in order[1::2]]  # fresh gradients for each
    rounds = ["".join(order[i + 1 : i + 6 : 2]) for i in range(0, len(order), 6)]
    assert all(sorted(turn) == list("abc") for turn in rounds)
    assert len(set(rounds)) == 6  # whom a contender follows changes
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys("abc", 30)
    assert not failed

    steps = {"slow": lambda: time.sleep(0.05), "fast": lambda: None}
    samples, _ = measure.take_turns(steps, "cpu", lambda name: None, budget=0.4, least=2)
    assert len(samples["fast"]) > 3 * len(samples["slow"])  # a slow one leaves the time to the others
    assert all(sample.seconds >= 0.05 for sample in samples["slow"])


class Device:
    """In place of torch.cuda: a queue with a clock of its own, which the host's clock moves on."""

    def __init__(self) -> None:
        self.free = 0.0  # when the device has done what is queued

    def queue(self, seconds: float) -> None:
        self.free = max(self.free, time.perf_counter()) + seconds

    def _sleep(self, cycles: int) -> None:
        self.queue(cycles / measure.CYCLES)

    def synchronize(self) -> None:
        while time.perf_counter() < self.free:
            pass

    def Event(self, enable_timing: bool) -> Any:
        device = self

        class Event:
            def record(self) -> None:
                self.at = max(device.free, time.perf_counter())

            def query(self) -> bool:
                return time.perf_counter() >= self.at

            def synchronize(self) -> None:
                device.synchronize()

            def elapsed_time(self, other: Any) -> float:
                return 1e3 * (other.at - self.at)

        return Event()


@pytest.mark.parametrize("waits", [False, True])
def test_a_step_on_a_gpu_is_timed_without_the_host(monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
    device = Device()
    monkeypatch.setattr(torch, "cuda", device)

    def step() -> None:  # 20 ms of the host beside 1 ms of the device
        device.queue(0.001)
        if waits:
            device.synchronize()
        time.sleep(0.02)
        device.queue(0.001)

    sample = measure.sample_cuda(step)
    assert sample.waits == waits
    assert sample.wall >= sample.host >= 0.02
    if waits:
        assert sample.seconds == sample.wall
    else:
        assert sample.seconds == pytest.approx(0.002, rel=0.01)


def test_the_limit_moves_what_it_says() -> None:
    need("c++")
    lib, n = limits.library(), 3 * 16384 + 77
    for count in (1, 2, 3, 4, 5, 6):
        arrays = [torch.full((n,), float(k + 1)) for k in range(count)]
        pointers = (ctypes.c_void_p * count)(*(a.data_ptr() for a in arrays))
        assert lib.stream_arrays(pointers, count, n, 2) == 0
        total = sum(range(1, count + 1))
        assert all((a == total / 8).all() for a in arrays[: max(1, count - 1)])
        assert (arrays[-1] == (count if count > 1 else total / 8)).all()
    assert lib.read_array(torch.ones(n).data_ptr(), n, 2) == n
    assert lib.stream_arrays(pointers, 7, n, 2) == 1
    for rule in rules():
        for dtype in ("float32", "bfloat16"):  # the latter with states of float32
            one = case(rule, clip=True, dtype=dtype)
            data = measure.Data(one)
            arrays = [x for own in data.state(one).values() for x in own.values() if x.dim()]
            moved = sum(measure.moved(one, data.params, arrays).values())
            step, gradient = limits.limit(one, moved)
            passes = 3 if one.rule.clips_alone else 4 + 2 * len(one.rule.states)
            assert gradient.nbytes * passes == pytest.approx(moved * SMALL.elements, rel=0.01)
            step()


@dataclass(frozen=True)
class Broken:
    """A peer that fails in one of the ways that peers fail in."""

    how: str
    name: str = "broken"
    distribution: str | None = None
    tolerance: float = 1e-3

    def prepare(self) -> None:
        if self.how == "absent":
            raise Unavailable("not installed")

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        if self.how == "make":
            raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB\nand more")
        if self.how == "slow" and params[0].numel() == 150:
            time.sleep(5)
        optimizer = torch.optim.AdamW(params, weight_decay=0.0 if self.how == "wrong" else 0.01, lr=1e-3)
        optimizer.state.update({p: {**s, "step": s["step"].clone()} for p, s in state.items()})

        def step() -> None:
            if self.how == "step" and len(params) == len(SMALL.tensors) and params[1].shape == (7,):
                raise ValueError("no such step")
            optimizer.step()

        return Contender(clipped(step, case, params), list)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The peers a runner finds; to be changed by a test."""
    found = {name: all_peers()[name] for name in ("fusedstep", "torch default")}
    monkeypatch.setattr(run, "all_peers", lambda: found)
    run._checked.cache_clear()
    yield found
    run._checked.cache_clear()


def row(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in entry["rows"] if r["peer"] == name)


@pytest.mark.parametrize("rule", ["AdamW", "NAdam", "Lion"])  # a count, a number beside it, nothing
def test_a_case(peers: dict[str, Any], rule: str) -> None:
    need("c++")
    entry = run.Runner(peers, least=3).run(case(rule, clip=True), budget=0.1)
    for name in (*peers, "limit"):
        if (name, rule) == ("torch default", "Lion"):
            assert row(entry, name)["failed"] == "torch.optim has no Lion"
        else:
            assert len(row(entry, name)["seconds"]) >= 3
    ours = row(entry, "fusedstep")
    assert ours["update_error"] == 0.0
    assert set(ours["bytes_by_format"]) == {"float32"}
    assert ours["bytes_per_element"] == pytest.approx(entry["bytes_per_element"], rel=1e-2)
    assert results.median_of(ours, "core_seconds") < results.median_of(ours, "host_seconds")


def test_a_case_of_16_bits(peers: dict[str, Any]) -> None:
    """In turns with the same step in float32; each counts its own bytes."""
    need("c++")
    peers["fusedstep float32"] = all_peers()["fusedstep float32"]
    one = case(dtype="bfloat16", shapes=Shapes("one", "", ((5000,),)))
    entry = run.Runner(peers, least=3).run(one, budget=0.1)
    formats = {r["peer"]: report.by_format({**entry, "rows": [{**r, "peer": "fusedstep"}]}) for r in entry["rows"]}
    assert formats.pop("fusedstep") == "6 bfloat16 + 16 float32"  # the state; torch's has the parameters' dtype
    assert formats == {"torch default": "14 bfloat16", "fusedstep float32": "28 float32", "limit": formats["limit"]}
    assert row(entry, "fusedstep float32")["update_error"] == 0.0
    entry = run.Runner(peers, least=3).run(case("clip_grad_norm_", clip=True), budget=0.1)
    assert [r["peer"] for r in entry["rows"] if r["seconds"]] == ["fusedstep", "torch default", "limit"]
    assert {c.dtype for c in cases.sixteen("cpu")} == {"bfloat16", "float16"}
    labels = [results.label(c.describe()) for c in cases.sixteen("cpu")]
    assert len(set(labels)) == len(labels)
    assert "AdamW, 32M, bfloat16 with float32 state" in labels
    assert len(tables.named([{"case": c.describe()} for c in cases.sixteen("cpu")])) == len(labels)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("make", "RuntimeError: CUDA out of memory. Tried to allocate 3 GiB"),
        ("step", "ValueError: no such step"),
        ("wrong", "answer differs from the specification: update off by"),
    ],
)
def test_a_peer_that_fails_is_a_row_that_says_why(peers: dict[str, Any], how: str, why: str) -> None:
    peers["broken"] = Broken(how)
    entry = run.Runner(peers, least=2).run(case(), budget=0.05)
    assert row(entry, "broken")["failed"].removeprefix("fails: ").startswith(why)
    assert "seconds" not in row(entry, "broken")
    assert all(row(entry, name)["seconds"] for name in ("fusedstep", "torch default"))


def test_peers_that_are_absent_or_take_too_long(peers: dict[str, Any]) -> None:
    peers["broken"] = Broken("slow")
    peers["absent"] = Broken("absent", "absent")
    runner = run.Runner(peers, least=2, setup=1.0)
    assert runner.missing == {"absent": "not installed"}
    assert row(runner.run(case(), budget=0.05), "broken")["failed"] == "not ready after 1 s"
    again = row(runner.run(case(), budget=0.05), "broken")["failed"]
    assert again == "not ready after 1 s with 3 tensors in another case"
    assert "seconds" in row(runner.run(case(shapes=Shapes("one", "", ((9,),))), budget=0.05), "broken")


def test_too_little_memory(peers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "free_bytes", lambda device: 2**29)
    entry = run.Runner(peers).run(case(), budget=0.0)
    assert all(r["failed"].startswith("out of memory: needs 1.0 GiB, 0.5 GiB are free") for r in entry["rows"])


def result(ours: float = 1.0, fused: float = 1.5, limit: float = 0.9, **fields: Any) -> dict[str, Any]:
    rows = [
        {"peer": name, "seconds": [0.99 * t, t, 1.01 * t], "bytes_per_element": 28.0}
        for name, t in (("fusedstep", ours), ("torch fused", fused), ("limit", limit))
    ]
    entry = {"case": case().describe(), "tensors": 1, "elements": 9, "bytes_per_element": 28, "rows": rows, **fields}
    return {
        "schema": 1, "command": "x", "machine": {"processor": "a", "cores": 2}, "missing": {}, "cases": [entry],
        "versions": {"fusedstep": "0"},
    }  # fmt: skip


def test_slower_against_everything_is_worse() -> None:
    worse, notes, common = results.against(result(), result(1.3))
    assert worse == ["AdamW, small, float32 (cpu): torch fused 1.50 -> 1.15, of the limit 0.90 -> 0.69"]
    assert (notes, common) == (["1 cases compared, 0 of the older result have no time now"], 1)
    failed = result()
    failed["cases"][0]["rows"][0] = {"peer": "fusedstep", "failed": "ValueError"}
    assert results.against(result(), failed)[0][0].endswith("fusedstep has no time any more")


def test_what_is_not_worse() -> None:
    assert results.against(result(), result(3.0, 4.5, 2.7))[0] == []  # a slower machine
    worse, notes, _ = results.against(result(), result(1.0, 1.2))
    assert worse == []
    assert "became faster than before: torch fused 1.50 -> 1.20" in notes[0]
    noisy = result(1.3)
    noisy["cases"][0]["rows"][0]["seconds"] = [1.0, 1.1, 1.3, 1.5, 1.6]
    assert results.against(result(), noisy)[0] == []
    assert results.against(result(), result(1.05))[0] == []
    other = {**result(9.0, sweep="size"), "machine": {"processor": "b"}}
    worse, notes, common = results.against(result(), other)
    assert (worse, common) == ([], 0)
    assert notes == ["another machine: a, now b", "0 cases compared, 1 of the older result have no time now"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_sharded_parameters(tmp_path: Path) -> None:
    """On two ranks, of which one has less of each tensor, and nothing of the smallest."""
    shapes, path = tmp_path / "mine.json", tmp_path / "out.json"
    shapes.write_text('{"source": "", "tensors": [[1, [1]], [2, [7, 3]]]}')
    script = [sys.executable, str(BENCH / "distributed.py"), "--quick", "--budget", "0.01", "--json", str(path)]
    done = subprocess.run([*script, "--shapes", str(shapes)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = results.load(path)
    assert [results.label(e["case"], "ranks") for e in found["cases"]] == [
        "AdamW, mine, float32 (2 ranks)",
        "AdamW, mine, float32 + clip (2 ranks)",
    ]
    for clip, entry in enumerate(found["cases"]):
        rows = {r["peer"]: r for r in entry["rows"]}
        assert rows.keys() >= {"fusedstep", "fusedstep plain", "torch fused"}
        assert all(len(r["seconds"]) == 3 and r["collectives"] == clip for n, r in rows.items() if n != "limit")
        assert [rows[name]["update_error"] for name in ("fusedstep", "fusedstep plain")] == [0.0, 0.0]
        assert 0 < rows["torch fused"]["update_error"] < 1e-3
        assert entry["elements"] == 43


@pytest.mark.parametrize(("time", "spread", "faster"), [(0.96, 0.001, True), (0.98, 0.001, False), (0.9, 0.2, False)])
def test_faster_is_beyond_the_noise(time: float, spread: float, faster: bool) -> None:
    theirs = {"peer": "x", "seconds": [time * f for f in (1 - 2 * spread, 1 - spread, 1, 1 + spread, 1 + 2 * spread)]}
    entry = {"case": {"device": "cpu"}, "rows": [{"peer": "fusedstep", "seconds": [1.0] * 5}, theirs]}
    assert results.is_faster(entry, "x") == faster
    theirs["seconds"] = [time, time]  # too few to say so
    assert not results.is_faster(entry, "x")


@pytest.mark.parametrize("text", ["{", '{"schema": 7}', json.dumps({**result(), "cases": "x"})])
def test_broken_results(text: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json: not a result of bench/compare\.py: "):
        results.load(tmp_path / "broken.json")


def test_the_page_says_what_the_results_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(result(1.0, 0.8)))
    text = tables.page(tmp_path, (tables.Section("Title", "a.json", "A note."),))
    assert "| AdamW | 28 | 1.00 s | 2% | 0.00 | 90% | **0.80** |\n" in text
    assert "\na, 2 cores; fusedstep 0; `x`; samples in [results/a.json](results/a.json).\n" in text
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0, capsys.readouterr()  # of the files that are there
    wrong = tmp_path / "README.md"
    wrong.write_text(tables.with_figures((ROOT / "README.md").read_text(), "| 9.99 |\n"))
    (tmp_path / "RESULTS.md").write_text((BENCH / "RESULTS.md").read_text())
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGE", tmp_path / "RESULTS.md")
    assert tables.main() == 1
    assert capsys.readouterr().err == "out of step: README.md; python bench/tables.py writes it\n"
    with pytest.raises(ValueError, match=r"README\.md: expected <!-- results: begin -->"):
        tables.with_figures("no markers", "")


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot = importlib.import_module("plot")
    path = tmp_path / "a.json"
    monkeypatch.setattr(sys, "argv", ["plot.py", str(path)])
    path.write_text(json.dumps({**result(), "cases": []}))
    assert plot.main() == 2
    assert "no times for the picture 'speedup'" in capsys.readouterr().err
    path.write_text(json.dumps(result()))
    assert plot.main() == 0
    assert {p.name for p in tmp_path.glob("*.png")} == {"a-speedup.png", "a-limit.png"}
    for name, marks in {"speedup": {"torch fused": 1.5}, "limit": {"fusedstep": 0.9, "torch fused": 0.6}}.items():
        (axes,) = plot.picture(result(), name).axes
        drawn = {dots.get_label(): dots.get_offsets()[0, 0] for dots in axes.collections}
        assert drawn == pytest.approx(marks)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rules", "AdaMW"], "argument --rules: invalid choice: 'AdaMW'"),
        (["--peers", "appex"], "argument --peers: invalid choice: 'appex'"),
        (["--shapes", "bert"], "no shape file 'bert'"),
        (["--json", "shapes/gpt2.json"], "not a result of bench/compare.py"),
        (["--against", "absent.json"], "absent.json: No such file"),
        (["--set", "16bit", "--rules", "AdamW"], "argument --set: its cases are listed, so --quick, --rules"),
    ],
)
def test_bad_input_is_named(
    args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", *args])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("compare").parse()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def call(*args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "compare.py", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_run_and_its_file(tmp_path: Path) -> None:
    shapes, out = tmp_path / "mine.json", tmp_path / "out.json"
    shapes.write_text('{"source": "a test", "tensors": [[3, [20, 5]], [1, [7]]]}')
    args = ["--rules", "SGD", "--shapes", shapes, "--peers", "torch default", "--clip", "off"]
    done = call(*args, "--budget", "1", "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1 cases, 2 contenders and the limit: takes about 0:00:0")
    assert "SGD, mine, float32" in done.stdout
    content = json.loads(out.read_text())
    (entry,) = content["cases"]
    assert (entry["tensors"], entry["elements"]) == (4, 307)
    assert [r["peer"] for r in entry["rows"]] == ["fusedstep", "torch default", "limit"]
    assert content["versions"]["torch"] == torch.__version__

    for name, seconds in (("out.json", 1.0), ("before.json", 0.1)):  # it was once ten times as fast
        for r, factor in zip(entry["rows"], (seconds, 1.0, 1.0), strict=True):
            r["seconds"] = [factor] * 3
        (tmp_path / name).write_text(json.dumps(content))
    worse = call("--load", out, "--against", tmp_path / "before.json")
    assert worse.returncode == 1
    assert "slower than before" in worse.stdout
    assert call("--load", tmp_path / "before.json", "--against", out).returncode == 0
    entry["sweep"] = "size"
    (tmp_path / "before.json").write_text(json.dumps(content))
    nothing = call("--load", out, "--against", tmp_path / "before.json")
    assert nothing.returncode == 3
    assert "nothing to compare" in nothing.stdout
