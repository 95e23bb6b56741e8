"""The benchmark's peers: each computes what the specification says, or says why it is not compared."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from harness import cases  # noqa: E402
from harness.cases import Case, rules  # noqa: E402
from harness.check import allowed, check, update_error  # noqa: E402
from harness.peers import Contender, Unavailable, all_peers  # noqa: E402

RULES = rules()
PEERS = all_peers()
PLAIN = {name: peer for name, peer in PEERS.items() if getattr(peer, "takes", "plain") == "plain"}  # not fusedstep
OTHERS = [name for name, peer in PLAIN.items() if "cpu" in peer.devices and not getattr(peer, "compiled", False)]
each_rule = pytest.mark.parametrize("label", RULES)
# What packages warn of when they are imported, and how they compute, is not this suite's concern.
foreign = pytest.mark.filterwarnings("ignore")


def case(label: str, **options: Any) -> Case:
    return Case(RULES[label], None, **options)  # type: ignore[arg-type]  # the check brings its shapes


def prepared(name: str) -> Any:
    if not getattr(PEERS[name], "is_built", lambda: True)():
        pytest.skip("not built: bench/compare.py builds it")
    try:
        PEERS[name].prepare()
    except Unavailable as error:
        pytest.skip(str(error))
    return PEERS[name]


LOW = [("bfloat16", None), ("bfloat16", "bfloat16"), ("float16", None), ("float32", "bfloat16")]


@pytest.mark.parametrize("clip", [False, True], ids=["plain", "clip"])
@pytest.mark.parametrize(("dtype", "state"), [("float32", None), ("float64", None), *LOW])
@each_rule
def test_fusedstep_has_the_bits_of_the_specification(label, dtype, state, clip):
    rule = RULES[label]
    try:
        rule.spec.formats(rule.cls, {**rule.options, "state_dtype": state})
    except ValueError as error:
        pytest.skip(str(error))
    one = case(label, dtype=dtype, state=state, clip=clip or rule.clips_alone)
    assert update_error(PEERS["fusedstep"], one) == allowed(PEERS["fusedstep"], one) == 0


@foreign
@each_rule
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_peer_is_within_its_tolerance_or_says_why_not(name, dtype, label):
    peer = prepared(name)
    for clip in {RULES[label].clips_alone, True}:
        one = case(label, clip=clip, dtype=dtype)
        if (name, RULES[label].cls, dtype) == ("torch fused", "SGD", "bfloat16"):
            continue
        try:
            found = update_error(peer, one)
        except Unavailable:
            continue  # says why in its row
        assert found <= allowed(peer, one)


@pytest.mark.skipif(torch.__version__ >= "2.14", reason="pytorch/pytorch#191763 is fixed")
@pytest.mark.parametrize("label", ["SGD", "SGD momentum"])
def test_torchs_fused_sgd_of_16_bits_is_found_to_update_nothing(label):
    with pytest.raises(Unavailable, match=r"answer differs from the specification: update off by (100|99)\.\d%"):
        check(PEERS["torch fused"], case(label, dtype="bfloat16"))


def test_what_runs_everywhere_is_available():
    for label, rule in RULES.items():
        one = case(label, clip=rule.clips_alone)
        if not rule.clips_alone:
            check(PEERS["numpy"], one)
        if rule.clips_alone or rule.spec.torch_class:
            check(PEERS["torch default"], one)
    for label in ("SGD", "SGD momentum", "Adagrad", "Adam", "AdamW"):
        check(PEERS["torch fused"], case(label))


@dataclass(frozen=True)
class Planted:
    """torch's optimizer with an option changed behind the case's back."""

    options: tuple[tuple[str, Any], ...]
    name: str = "planted"
    distribution: str | None = None
    tolerance: float = 1e-3

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        contender = torch.optim.__dict__[case.rule.cls](params, **{**case.rule.chosen, **dict(self.options)})
        contender.state.update(state)
        return Contender(contender.step, list)


@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("AdamW", {"weight_decay": 0.0}),
        ("AdamW", {"lr": 1.01e-3}),
        ("RMSprop centered", {"centered": False}),
        ("SGD momentum", {"dampening": 0.1}),
    ],
    ids=str,
)
def test_a_planted_difference_is_found(label, options):
    with pytest.raises(Unavailable, match="answer differs from the specification"):
        check(Planted(tuple(options.items())), case(label))


def test_one_wrong_bit_is_found_where_bits_have_to_be_equal():
    assert 0 < check(Planted(()), case("AdamW")) < 1e-4
    exact = Planted((), tolerance=0.0)
    assert update_error(exact, case("AdamW")) > 0
    with pytest.raises(Unavailable, match="other bits"):
        check(exact, case("AdamW"))


def test_a_peer_that_clips_nothing_is_found():
    with pytest.raises(Unavailable, match="answer differs"):
        check(Planted(()), case("SGD momentum", clip=True))


RIDES = [name for name, peer in PEERS.items() if getattr(peer, "takes", "") == "rides" and not peer.is_part]


@pytest.mark.parametrize("ride", cases.RIDES)
def test_what_rides_along_is_compared(ride):
    one = case("AdamW", ride=ride)
    assert update_error(PEERS["fusedstep"], one) == 0
    for name in RIDES:
        if "softshrink" not in name or ride == "L1":
            assert 0 <= update_error(PEERS[name], one) <= allowed(PEERS[name], one)
    if ride not in ("EMA", "stats"):  # which change no parameter
        with pytest.raises(Unavailable, match="answer differs"):
            check(Planted(()), one)


@foreign
def test_a_missing_package_is_told(monkeypatch):
    for name in ("apex", "bitsandbytes", "flashoptim", "optimi", "pytorch_optimizer", "timm", "torchao"):
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [])
    names = ("apex", "bitsandbytes 32-bit", "flashoptim", "optimi", "pytorch_optimizer", "timm", "torchao 8-bit")
    for name in names:
        with pytest.raises(Unavailable, match="not installed"):
            PEERS[name].prepare()


def test_what_a_peer_cannot_do_is_told_before_it_runs():
    for name, options, reason in (
        ("numpy", {"dtype": "bfloat16"}, "NumPy has no bfloat16"),
        ("apex", {}, "runs on a GPU only"),
        ("bitsandbytes 8-bit", {"dtype": "float64"}, "no float64 parameters"),
        ("DeepSpeed CPUAdam", {"device": "cuda"}, "runs on the CPU only"),
    ):
        with pytest.raises(Unavailable, match=reason):
            PEERS[name].make(case("AdamW", **options), [], {})
    for label, name, reason in (
        ("SGD", "bitsandbytes 32-bit", "rejects SGD without momentum"),
        ("RMSprop centered", "bitsandbytes 32-bit", "rejects centered RMSprop"),
        ("Adam amsgrad", "DeepSpeed CPUAdam", "ignores AMSGrad"),
        ("Lion", "torch default", "torch.optim has no Lion"),
        ("Adagrad", "optimi", "has no Adagrad"),
    ):
        with pytest.raises(Unavailable, match=reason):
            PEERS[name].make(case(label), [], {})
