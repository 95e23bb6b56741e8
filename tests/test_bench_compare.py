"""bench/compare.py: what is counted, what is timed, what happens to peers that fail, and what the command line says."""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fusedstep.rules import ALL
from tests.helpers.tools import need, need_package

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

from harness import against, grid, limits, measure, run  # noqa: E402
from harness.cases import Case, Shapes, flops_per_element, read_shapes, rules, shape_names  # noqa: E402
from harness.peers import Contender, Unavailable, all_peers  # noqa: E402
from harness.peers.torch_ import clipped  # noqa: E402

SMALL = Shapes("small", "made for a test", ((50, 3), (7,), (1000,)))


def case(rule: str = "AdamW", **changes: Any) -> Case:
    return Case(rules()[rule], SMALL).but(**changes)


# ----------------------------------------------------------------------------------------------------- what is counted


def test_every_kernel_of_every_class_is_a_rule() -> None:
    assert {r.cls for r in rules().values()} == {rule.__name__ for rule in ALL if rule.torch_class and not rule.numbers}
    assert [name for name in rules() if name.startswith("RMSprop")] == [
        "RMSprop",
        "RMSprop momentum",
        "RMSprop centered",
        "RMSprop centered momentum",
    ]
    assert rules()["SGD momentum"].states == ("momentum_buffer",)
    assert rules()["AdamW amsgrad"].options == {"amsgrad": True}


@pytest.mark.parametrize(
    ("rule", "dtype", "clip", "bytes_", "flops"),
    [  # by hand: param read and written, gradient read; unscale, then the formula of reference.py
        ("SGD", "float32", False, 12, 1 + 1 + 2),
        ("SGD", "float64", True, 32, 1 + 1 + 2 + 2),
        ("SGD momentum", "float32", False, 20, 1 + 1 + 3 + 2),
        ("Adagrad", "float32", False, 20, 1 + 1 + 2 + 5),
        ("RMSprop momentum", "float32", False, 28, 1 + 1 + 4 + 2 + 3 + 2),
        ("AdamW", "float32", True, 32, 1 + 1 + 3 + 4 + 5 + 2),
        ("AdamW", "bfloat16", False, 14, 1 + 1 + 3 + 4 + 5),
        ("AdamW amsgrad", "float32", False, 36, 1 + 1 + 3 + 4 + 5),
    ],
)
def test_bytes_and_operations(rule: str, dtype: str, clip: bool, bytes_: int, flops: int) -> None:
    c = case(rule, dtype=dtype, clip=clip)
    assert (c.bytes_per_element, flops_per_element(c)) == (bytes_, flops)


def test_shape_files() -> None:
    sizes = {name: read_shapes(name).elements for name in shape_names()}
    assert sizes["resnet50"] == 25_557_032  # torchvision's count
    assert sizes["gpt2"] == 124_439_808  # transformers' count, head tied
    assert sizes["300x1000"] == 300_000
    assert sizes["32M"] == 2**25
    assert len(read_shapes("lora").tensors) == 32 * 7 * 2
    assert all(read_shapes(name).source for name in shape_names())


@pytest.mark.parametrize(
    "text", ["", "[]", '{"source": "x"}', '{"source": "x", "tensors": [[2, [0]]]}', '{"source": "x", "tensors": []}']
)
def test_a_bad_shape_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"shape file mine\.json is not readable.*\"tensors\""):
        read_shapes(str(path))


def test_an_unknown_shape_set_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no shape file 'bert', expected one of 300x1000, 32M, gpt2"):
        read_shapes("bert")


def test_the_grids() -> None:
    full = grid.full("cpu", ["avx2", "scalar"])
    assert {c.rule.label for c in full} == rules().keys()
    assert {c.shapes.name for c in full} == set(shape_names()) - {"gpt2-xl"}
    assert {(c.cache, c.dtype, c.target) for c in full} >= {("cold", "float32", None), ("warm", "float64", None)}
    assert "scalar" in {c.target for c in full}
    assert [len(c.shapes.tensors) for c in grid.sweep("tensors", "cpu")] == [1, 10, 100, 1000, 10_000]
    assert grid.sweep("size", "cpu")[-1].shapes.elements == 10**9
    assert grid.thread_counts()[0] == 1
    assert grid.sweep("threads", "cuda") == []


# ------------------------------------------------------------------------------------------------------- what is timed


def test_gradients_are_fresh_and_never_zero() -> None:
    data = measure.Data(case())
    seen = []
    for _ in range(3):
        seen.append([p.grad.clone() for p in data.params])
        data.refresh()
    for one, other in itertools.pairwise(seen):
        assert all((a != b).float().mean() > 0.9 for a, b in zip(one, other, strict=True))
    flat = torch.cat([g.flatten() for g in seen[0]])
    assert (flat != 0).all()
    assert flat.std() == pytest.approx(measure.GRADIENT, rel=0.1)


def test_a_tensor_larger_than_the_pool_is_filled_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "POOL", 300)
    data = measure.Data(case())
    for p in data.params:
        assert (p != 0).all()
        assert p.numel() < 10 or p.std() > 0.5


def test_turns() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    samples, failed = measure.take_turns(steps, case(), lambda name: order.append(name.upper()), budget=0.0, least=30)
    assert order[::2] == [name.upper() for name in order[1::2]]  # fresh gradients for each
    rounds = ["".join(order[i + 1 : i + 6 : 2]) for i in range(0, len(order), 6)]
    assert all(sorted(turn) == list("abc") for turn in rounds)
    assert len(set(rounds)) == 6  # whom a contender follows changes
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys("abc", 30)
    assert not failed

    steps = {"slow": lambda: time.sleep(0.05), "fast": lambda: None}
    samples, _ = measure.take_turns(steps, case(), lambda name: None, budget=0.4, least=2)
    assert len(samples["fast"]) > 3 * len(samples["slow"])  # a slow one leaves the time to the others
    assert all(sample.seconds >= 0.05 for sample in samples["slow"])


def test_one_that_fails_in_its_turn_stops_alone() -> None:
    def fail() -> None:
        raise MemoryError("no more")

    samples, failed = measure.take_turns({"a": fail, "b": int}, case(), lambda name: None, budget=0.0, least=4)
    assert [str(error) for error in failed.values()] == ["no more"]
    assert {name: len(taken) for name, taken in samples.items()} == {"b": 4}


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


def test_a_step_on_a_gpu_is_timed_without_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "cuda", device)

    def step() -> None:  # 20 ms of the host to queue 1 ms of the device
        time.sleep(0.02)
        device.queue(0.001)

    sample = measure.sample_cuda(step)
    assert sample.seconds == pytest.approx(0.001, rel=0.01)
    assert 0.02 <= sample.host < 0.04
    assert sample.wall >= sample.host + 0.0009
    assert not sample.waits


def test_a_step_that_waits_for_the_gpu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "cuda", device)

    def step() -> None:
        device.queue(0.001)
        device.synchronize()
        time.sleep(0.01)

    sample = measure.sample_cuda(step)
    assert sample.waits
    assert 0.011 <= sample.seconds == sample.wall < 0.03


def test_scrubbing_replaces_what_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "cache_mib", lambda: 4.0)
    scrub = measure.Scrubber("cpu")
    assert scrub._buffer.nbytes == 2 * 4 * 2**20
    scrub()
    assert (scrub._buffer == 2).all()


def test_limited() -> None:
    with pytest.raises(measure.TooLong, match="not ready after 0 s"), measure.limited(0.05):
        time.sleep(1)
    with measure.limited(0.05):
        pass
    time.sleep(0.1)  # nothing is left running


def test_memory_is_counted_once() -> None:
    a = torch.zeros(100)
    assert measure.nbytes([a, a.view(10, 10), torch.zeros((), dtype=torch.float64)]) == 400 + 8
    assert measure.nbytes([a.numpy()]) == 400


def test_peak_of_a_step_with_a_temporary() -> None:
    a = torch.ones(2**23)
    peaks = [measure.peak_bytes(step, "cpu") for step in (lambda: a.add_(1), lambda: a.add_(a * 2))]
    if None in peaks:
        pytest.skip("the system does not tell the peak of a process")
    assert peaks[0] < 2**23 < 0.9 * 4 * 2**23 < peaks[1] < 1.3 * 4 * 2**23


def test_the_limit_moves_what_it_says() -> None:
    need("c++")
    lib, n = limits.library(), 3 * 16384 + 77
    for count in (2, 3, 4, 5):
        arrays = [torch.full((n,), float(k + 1)) for k in range(count)]
        pointers = (ctypes.c_void_p * count)(*(a.data_ptr() for a in arrays))
        assert lib.stream_arrays(pointers, count, n, 2) == 0
        total = sum(range(1, count + 1))
        assert all((a == total / 8).all() for a in arrays[:-1])
        assert (arrays[-1] == count).all()
    assert lib.read_array(torch.ones(n).data_ptr(), n, 2) == n
    assert lib.stream_arrays(pointers, 6, n, 2) == 1


def test_every_rule_has_a_limit() -> None:
    need("c++")
    for rule in rules():
        for clip in (False, True):
            step, gradient = limits.limit(case(rule, clip=clip))
            assert gradient.nbytes == SMALL.elements * 4
            step()
    roofs = limits.roofs("cpu")
    assert roofs.keys() == {"bytes_per_second", "flops_per_second"}
    assert all(1e8 < value < 1e14 for value in roofs.values())


# ------------------------------------------------------------------------------------------------------------- a case


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
    found = {name: all_peers()[name] for name in ("fusedstep", "torch default", "torch fused")}
    monkeypatch.setattr(run, "all_peers", lambda: found)
    monkeypatch.setattr(run, "_checked", {})
    run._prepared.cache_clear()
    yield found
    run._prepared.cache_clear()


def row(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in entry["rows"] if r["peer"] == name)


def test_a_case(peers: dict[str, Any]) -> None:
    need("c++")
    entry = run.Runner(peers, least=3).run(case(clip=True), budget=0.1)
    assert entry["case"]["clip"] is True
    assert (entry["tensors"], entry["elements"]) == (3, SMALL.elements)
    for name in (*peers, "limit"):
        found = row(entry, name)
        assert "failed" not in found, found
        assert len(found["seconds"]) >= 3
    ours = row(entry, "fusedstep")
    assert ours["update_error"] == 0.0
    assert ours["state_bytes_per_element"] == pytest.approx(8 + 3 * 4 / SMALL.elements, rel=1e-3)
    assert ours["host_seconds"]
    assert 0 < row(entry, "torch fused")["update_error"] < 1e-3


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
    assert all(row(entry, name)["seconds"] for name in ("fusedstep", "torch fused"))


def test_an_absent_peer_is_said_once(peers: dict[str, Any]) -> None:
    peers["broken"] = Broken("absent")
    runner = run.Runner(peers, least=2)
    assert runner.missing == {"broken": "not installed"}
    assert "broken" not in [r["peer"] for r in runner.run(case(), budget=0.0)["rows"]]


def test_a_peer_that_takes_too_long_is_not_tried_again(peers: dict[str, Any]) -> None:
    @dataclass(frozen=True)
    class Slow(Broken):
        def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
            if params[0].numel() == 150:
                time.sleep(5)
            return super().make(case, params, state)

    peers["broken"] = Slow("")
    runner = run.Runner(peers, least=2, setup=1.0)
    assert row(runner.run(case(), budget=0.05), "broken")["failed"] == "not ready after 1 s"
    start = time.perf_counter()
    again = row(runner.run(case(), budget=0.05), "broken")["failed"]
    assert again == "not ready after 1 s with 3 tensors in another case"
    assert "seconds" in row(runner.run(case(shapes=Shapes("one", "", ((9,),))), budget=0.05), "broken")
    assert time.perf_counter() - start < 20


def test_too_little_memory(peers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "free_bytes", lambda device: 2**29)
    entry = run.Runner(peers).run(case(), budget=0.0)
    assert all(r["failed"].startswith("out of memory: needs 1.0 GiB, 0.5 GiB are free") for r in entry["rows"])


# --------------------------------------------------------------------------------------------- against an older result


def result(ours: float, fused: float, limit: float, processor: str = "a", **fields: Any) -> dict[str, Any]:
    rows = [
        {"peer": name, "seconds": [0.99 * t, t, 1.01 * t], "bytes_per_element": 28.0, "state_bytes_per_element": 8.0}
        for name, t in (("fusedstep", ours), ("torch fused", fused), ("limit", limit))
    ]
    numbers = {"tensors": 1, "elements": 9, "bytes_per_element": 28, "flops_per_element": 14}
    entry = {"case": case().describe(), "sweep": None, **numbers, "rows": rows, **fields}
    machine = {"processor": processor, "cores": 2, "memory_gib": 1, "cache_mib": 1, "system": "Linux", "gpu": None}
    return {
        "schema": 1, "command": "x", "date": "2026-01-01", "machine": machine, "versions": {"fusedstep": "0"},
        "missing": {}, "limits": {}, "cases": [entry], "training": [],
    }  # fmt: skip


def test_slower_against_everything_is_worse() -> None:
    worse, notes, common = against.compare(result(1.0, 1.5, 0.9), result(1.3, 1.5, 0.9))
    assert worse == ["AdamW, small, float32 (cpu, warm cache): torch fused 1.50 -> 1.15, of the limit 0.90 -> 0.69"]
    assert (notes, common) == (["1 cases compared, 0 of the older result have no time now"], 1)


def test_a_slower_machine_is_not_worse() -> None:
    assert against.compare(result(1.0, 1.5, 0.9), result(3.0, 4.5, 2.7))[0] == []


def test_a_faster_peer_is_a_note() -> None:
    worse, notes, _ = against.compare(result(1.0, 1.5, 0.9), result(1.0, 1.2, 0.9))
    assert worse == []
    assert "became faster than before: torch fused 1.50 -> 1.20" in notes[0]


def test_within_the_noise_is_not_worse() -> None:
    new = result(1.3, 1.5, 0.9)
    new["cases"][0]["rows"][0]["seconds"] = [1.0, 1.1, 1.3, 1.5, 1.6]
    assert against.compare(result(1.0, 1.5, 0.9), new)[0] == []
    assert against.compare(result(1.0, 1.5, 0.9), result(1.05, 1.5, 0.9))[0] == []


def test_other_cases_and_machines_are_said() -> None:
    worse, notes, common = against.compare(result(1.0, 1.5, 0.9), result(9.0, 1.5, 0.9, "b", sweep="size"))
    assert (worse, common) == ([], 0)
    assert notes == ["another machine: a, now b", "0 cases compared, 1 of the older result have no time now"]


def test_a_step_that_fails_now_is_worse() -> None:
    new = result(1.0, 1.5, 0.9)
    new["cases"][0]["rows"][0] = {"peer": "fusedstep", "failed": "ValueError"}
    assert against.compare(result(1.0, 1.5, 0.9), new)[0][0].endswith("fusedstep has no time any more")


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def rich() -> None:
    need_package("rich")


def call(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "compare.py", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **kwargs)


@pytest.mark.usefixtures("rich")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rules", "AdaMW"], "unknown rule 'AdaMW', expected one of: Adagrad, Adam, Adam amsgrad"),
        (["--peers", "appex"], "unknown peer 'appex', expected one of: fusedstep, "),
        (["--dtypes", "float8"], "unknown dtype 'float8', expected one of: float32, float64"),
        (["--targets", "sse9"], "unknown target 'sse9', expected one of: "),
        (["--shapes", "bert"], "no shape file 'bert'"),
        (["--threads", "0"], "0 is not between 1 and"),
        (["--json", "nowhere/x.json"], "no folder 'nowhere'"),
        (["--json", "shapes/gpt2.json"], "not a result of bench/compare.py"),
        (["--budget", "0"], "0.0 is not between 0 and"),
        (["--sweeps", "size", "--dtypes", "float64"], "argument --dtypes: has no meaning for sweeps alone"),
        (["--against", "absent.json"], "absent.json: No such file"),
        (["--against", "shapes/gpt2.json"], "not a result of bench/compare.py"),
    ],
)
def test_bad_input_is_named(args: list[str], message: str) -> None:
    done = call(*args)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("rich")
def test_a_run_and_its_file(tmp_path: Path) -> None:
    shapes, out = tmp_path / "mine.json", tmp_path / "out.json"
    shapes.write_text('{"source": "a test", "tensors": [[3, [20, 5]], [7]]}')
    args = ["--rules", "SGD", "--shapes", shapes, "--peers", "torch default", "--clip", "off"]
    done = call(*args, "--budget", "1", "--json", out)
    assert done.returncode == 0, done.stderr
    assert "SGD, mine, float32" in done.stdout
    content = json.loads(out.read_text())
    (entry,) = content["cases"]
    assert (entry["tensors"], entry["elements"]) == (4, 307)
    assert [r["peer"] for r in entry["rows"]] == ["fusedstep", "torch default", "limit"]
    assert content["versions"]["torch"] == torch.__version__

    for name, seconds in (("out.json", 1.0), ("before.json", 0.1)):  # it was once ten times as fast
        for r, factor in zip(entry["rows"], (seconds, 1.0, 1.0), strict=True):
            r["seconds"] = [factor]
        (tmp_path / name).write_text(json.dumps(content))
    faster = tmp_path / "before.json"
    worse = call("--load", out, "--against", faster)
    assert worse.returncode == 1
    assert "slower than before" in worse.stdout
    assert call("--load", faster, "--against", out).returncode == 0
    entry["sweep"] = "size"
    faster.write_text(json.dumps(content))
    nothing = call("--load", out, "--against", faster)
    assert nothing.returncode == 3
    assert "nothing to compare" in nothing.stdout


@pytest.mark.usefixtures("rich")
def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare

    shapes, out, original = tmp_path / "mine.json", tmp_path / "out.json", run.Runner.run
    shapes.write_text('{"source": "a test", "tensors": [[7]]}')

    def interrupted(self: run.Runner, case: Case, *args: Any) -> dict[str, Any]:
        if case.clip:
            raise KeyboardInterrupt
        return original(self, case, *args)

    monkeypatch.setattr(run.Runner, "run", interrupted)
    argv = ["compare.py", "--rules", "SGD", "Adagrad", "--shapes", str(shapes), "--peers", "torch default"]
    monkeypatch.setattr(sys, "argv", [*argv, "--devices", "cpu", "--budget", "60", "--json", str(out)])
    with warnings.catch_warnings():
        assert compare.main() == 130
    assert "interrupted: showing what was measured" in capsys.readouterr().out
    assert [e["case"]["rule"] for e in json.loads(out.read_text())["cases"]] == ["SGD"]

    whole = out.read_text()  # a second one that is cut off leaves it as it was
    monkeypatch.setattr(sys, "argv", [*argv, "--devices", "cpu", "--budget", "60", "--json", str(out)])
    with warnings.catch_warnings():
        assert compare.main() == 130
    assert out.read_text() == whole
    assert json.loads(out.with_name("out.json.part").read_text())["cases"]
