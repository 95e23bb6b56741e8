"""What the CUDA kernels and the code around them do, run on the CPU by the host build (``FUSEDSTEP_CUDA=HOST``).

Equality of every rule, option, size and layout with the specification is in ``tests/core``, whose ``backend`` includes
CUDA in that build. Here: launches, tables, streams, devices, graphs, failures.
"""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fusedstep.torch as fst
from fusedstep import _core, functional, reference
from fusedstep.torch import _base, _rides, _run
from tests.helpers import declared
from tests.helpers.bits import Array, assert_same_bits
from tests.helpers.declared import KERNELS
from tests.helpers.devices import HOST, arrays_on_cuda, pretending, torch_pretending
from tests.helpers.kernels import check_case, hyper_of, random_arrays, rule_id
from tests.helpers.torch_spec import SHORT, assert_is, expect, make, make_params, set_grads, snapshot, specified_norm

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not HOST, reason="needs the build with FUSEDSTEP_CUDA=HOST")]
ADAMW = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
SPECIFIED = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}


def adamw_arrays(sizes: list[int], seed: int = 0) -> list[list[Array]]:
    rng = np.random.default_rng(seed)
    make = [rng.standard_normal] * 3 + [rng.random]
    return [[f(n).astype(np.float32) for n in sizes] for f in make]


def adamw_expected(lists: list[list[Array]], step: int, max_norm: float | None = None) -> list[tuple[Array, ...]]:
    coefficient = 1.0 if max_norm is None else reference.clip_coefficient(reference.total_norm(lists[1]), max_norm)
    return [reference.adamw(*a, step=step, clip_coef=coefficient, **SPECIFIED) for a in zip(*lists, strict=True)]


def copies(lists: list[list[Array]]) -> list[list[Array]]:
    return [[a.copy() for a in arrays] for arrays in lists]


def assert_unchanged(lists: list[list[Array]], before: list[list[Array]]) -> None:
    for a, b in zip(chain(*lists), chain(*before), strict=True):
        assert_same_bits(a, b)


def assert_equal(lists: list[list[Array]], expected: list[tuple[Array, ...]]) -> None:
    for i, want in enumerate(expected):
        for got, w in zip((lists[0][i], lists[2][i], lists[3][i]), want, strict=True):
            assert_same_bits(got, w, f"tensor {i}")


# ----------------------------------------------------------------------------------------------- launches and tables


@pytest.mark.parametrize("count", [1, 300, 1000])
def test_launches_per_step(count: int) -> None:
    """One, and with clipping three, whatever the number of tensors: a table that comes back is kept on the device."""
    lists = adamw_arrays([5] * count)
    norm = np.zeros(1)
    with pretending() as host:
        for _ in range(3):
            before = host.launches()
            functional.adamw(*lists, step=1, **ADAMW)
            plain = host.launches() - before
            functional.adamw(*lists, step=1, max_norm=1.0, norm_out=norm, **ADAMW)
            clipped = host.launches() - before - plain
    assert (plain, clipped) == (1, 3)


@pytest.mark.parametrize("count", [700, 5000])
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_more_tensors_than_arguments_hold(count: int, max_norm: float | None) -> None:
    sizes = [int(n) for n in np.random.default_rng(1).integers(0, 20, count)]
    lists = adamw_arrays(sizes)
    with pretending() as host:
        for step in (1, 2, 3):  # by arguments and copies, then with the table kept
            want = adamw_expected(copies(lists), step, max_norm)
            norm = reference.total_norm(lists[1])
            got = functional.adamw(*lists, step=step, max_norm=max_norm, **ADAMW)
            host.synchronize()
            assert got == (None if max_norm is None else norm)
            assert_equal(lists, want)


def test_a_step_per_tensor_and_a_norm_per_tensor() -> None:
    lists = adamw_arrays([3, 70_000, 5, 0, 17])
    steps = [1, 2, 2, 9, 1]
    each = [reference.total_norm([g]) for g in lists[1]]
    want = [
        reference.adamw(*a, step=t, clip_coef=reference.clip_coefficient(n, 0.7), **SPECIFIED)
        for a, t, n in zip(zip(*lists, strict=True), steps, each, strict=True)
    ]
    with pretending() as host:
        assert functional.adamw(*lists, step=steps, max_norm=0.7, per_tensor=True, **ADAMW) == each
        host.synchronize()
        assert_equal(lists, want)


@pytest.mark.parametrize("kind", [1.0, 2.0, math.inf])
def test_trees_larger_than_a_warp_folds(kind: float) -> None:
    """Above 1,024 chunks of a tensor, and 1,024 tensors, the whole block folds."""
    rng = np.random.default_rng(3)
    large = [rng.standard_normal(n).astype(np.float32) for n in (1100 * 16384 + 5, 1024 * 16384)]
    small = [rng.standard_normal(3).astype(np.float32) for _ in range(1100)]
    arrays = [small[0], large[0], *small[1:], large[1]]
    with pretending():
        assert functional.total_norm(arrays, kind) == reference.total_norm(arrays, kind)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stream", range(4))
def test_one_stream_misaligned(dtype: type, stream: int) -> None:
    """Three streams lie on 16 bytes, one does not: the chunk goes element by element."""
    rng = np.random.default_rng(stream)
    values = [rng.random(20_001).astype(dtype) for _ in range(4)]
    want = reference.adamw(*values, step=2, **SPECIFIED)
    arrays = []
    for k, v in enumerate(values):
        buffer = np.empty(v.size + 9, dtype)
        skip = (-buffer.ctypes.data % 16) // v.itemsize + (k == stream)
        arrays.append(buffer[skip : skip + v.size])
        arrays[-1][:] = v
    with pretending() as host:
        functional.adamw(*arrays, step=2, **ADAMW)
        host.synchronize()
        for got, w in zip((arrays[0], arrays[2], arrays[3]), want, strict=True):
            assert_same_bits(got, w)


@pytest.mark.parametrize("rule", KERNELS, ids=rule_id)
def test_fiber_orders(rule: dict[str, Any]) -> None:
    """The order in which threads and blocks run changes nothing."""
    lists = random_arrays(np.random.default_rng(0), [33, 40_000, 7], [np.float32] * (2 + len(rule["state"])))
    for order in range(5):
        with arrays_on_cuda():
            _core.cuda_host.seed(order)
            check_case(rule, hyper_of(rule, "middle"), {"max_norm": 0.1}, 3, lists, 0)


# ------------------------------------------------------------------------------------------------ devices and streams


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_several_devices(max_norm: float | None, order: int) -> None:
    """One norm over all of them, the same bits on each, and no copy that runs too early."""
    lists = adamw_arrays([100, 40_000, 3, 17, 20_000, 64])
    want = adamw_expected(lists, 3, max_norm)
    norm = reference.total_norm(lists[1])
    with pretending() as host:
        host.seed(order)
        for arrays in lists:
            for i, a in enumerate(arrays):
                host.place(a.ctypes.data, a.nbytes, (0, 2, 1, 0, 1, 2)[i])
        assert functional.adamw(*lists, step=3, max_norm=max_norm, **ADAMW) == (norm if max_norm else None)
        host.synchronize()
        assert_equal(lists, want)


@pytest.mark.parametrize("order", range(8))
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("overflow", [0.0, 1.0])
def test_numbers_on_another_device(overflow: float, max_norm: float | None, order: int) -> None:
    """The scale and found_inf of a GradScaler live on one device, and end when the step has been queued."""
    with torch_pretending(True) as host:
        host.seed(order)
        opt = make("AdamW", make_params(), max_norm=max_norm, capturable=True)
        params = opt.param_groups[0]["params"]
        set_grads(params, 0)
        opt.step()
        host.synchronize()
        set_grads(params, 1, 4.0)
        for k, p in enumerate(params):
            for t in (p, p.grad, *opt.state[p].values()):
                host.place(t.data_ptr(), max(t.numel(), 1) * 4, (0, 2)[k % 2])
        opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(overflow)
        for number in (opt.grad_scale, opt.found_inf):
            host.place(number.data_ptr(), 4, 1)
        want, before = expect(opt, grad_scale=4.0), [p.detach().clone() for p in params]
        opt.step()
        for number in (opt.grad_scale, opt.found_inf):
            host.overwrite(number.data_ptr(), 4, 1, 0)
        host.synchronize()
        if overflow:
            assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
        else:
            assert_is(want, opt)


@pytest.mark.parametrize("name", ["grad_scale", "found_inf"])
def test_numbers_on_a_device_that_no_parameter_is_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host does not wait for them, so a step of parameters on the CPU cannot heed them."""
    opt = make("AdamW", make_params())
    params = opt.param_groups[0]["params"]
    set_grads(params, 0)
    opt.step()
    before = snapshot(opt, params)
    with pretending(True) as host:
        for p in params:
            for t in (p, p.grad, *opt.state[p].values()):
                host.place(t.data_ptr(), max(t.numel(), 1) * 4, -1)
        number = torch.tensor(1.0)
        setattr(opt, name, number)
        for module in (_base, _rides, _run):
            monkeypatch.setattr(module, "on_gpu", lambda x: x is number)
        with pytest.raises(ValueError, match=rf"{name} is on device cuda:0, expected cpu as the parameters are: pass"):
            opt.step()
    assert snapshot(opt, params) == before


def test_the_norm_goes_where_it_is_wanted() -> None:
    """Also to a device that has no gradient in this step."""
    lists, out = adamw_arrays([5, 3]), np.full(1, np.nan)
    with pretending() as host:
        for a in chain(*lists):
            host.place(a.ctypes.data, a.nbytes, 1)
        host.place(out.ctypes.data, 8, 2)
        want = adamw_expected(lists, 1, 0.5)
        norm = reference.total_norm(lists[1])
        functional.adamw(*lists, step=1, max_norm=0.5, norm_out=out, **ADAMW)
        host.synchronize()
        assert out[0] == norm
        assert_equal(lists, want)


def test_tables_make_room() -> None:
    """More of them than are kept, each used again."""
    with pretending() as host:
        many = [adamw_arrays([2] * 700, seed=k) for k in range(70)]
        for lists in many:
            for step in (1, 2):
                functional.adamw(*lists, step=step, **ADAMW)
        for lists in many[::3]:
            host.synchronize()
            want = adamw_expected(copies(lists), 3)
            functional.adamw(*lists, step=3, **ADAMW)
            host.synchronize()
            assert_equal(lists, want)


@pytest.mark.parametrize("order", range(10))
def test_a_kept_table_serves_other_streams(order: int) -> None:
    """A stream that did not fill the table waits for the one that did."""
    arrays = adamw_arrays([3] * 1500, seed=order)[1]
    outs = [np.zeros(1) for _ in range(4)]
    with pretending() as host:
        host.seed(order)
        functional.total_norm(arrays, norm_out=outs[0], stream=1)
        host.synchronize()
        for out, stream in zip(outs[1:], (1, 2, 3), strict=True):  # the first of these fills it, and none has run yet
            functional.total_norm(arrays, norm_out=out, stream=stream)
        host.synchronize()
        assert {float(out[0]) for out in outs} == {reference.total_norm(arrays)}


def test_dlpack_producers_are_told_the_stream() -> None:
    class Producer:
        def __init__(self, array: Array) -> None:
            self.array, self.streams = array, []

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: Any = None, **options: Any) -> Any:
            self.streams.append(stream)
            return self.array.__dlpack__(**options)

    p, g = Producer(np.ones(5)), Producer(np.ones(5))
    with pretending() as host:
        functional.sgd(p, g, lr=0.5)
        functional.sgd(p, g, lr=0.25, stream=77)
        host.synchronize()
    assert (p.array == 0.25).all()
    assert p.streams == g.streams == [1, 77]


# ------------------------------------------------------------------------------------------------------ torch classes


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("scalars", [False, True], ids=["host-numbers", "device-numbers"])
def test_torch_classes(name: str, options: dict[str, Any], max_norm: float | None, scalars: bool) -> None:
    capturable = {"capturable": True} if scalars and name in ("Adam", "AdamW", "RMSprop") else {}
    with torch_pretending(scalars) as host:
        opt = make(name, make_params(), max_norm=max_norm, **options, **capturable)
        for seed in range(3):
            set_grads([p for g in opt.param_groups for p in g["params"]], seed)
            want = expect(opt)
            norm = specified_norm(opt)
            opt.step()
            host.synchronize()
            assert_is(want, opt)
            assert opt.total_norm is None if max_norm is None else float(opt.total_norm) == norm


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_loss_scaling_stays_on_the_device(name: str, options: dict[str, Any], max_norm: float | None) -> None:
    """Scale and found_inf are read by the kernels; a skipped step leaves parameters, state and step counts."""
    opt = make(name, make_params(), max_norm=max_norm, **options)
    opt.grad_scale = torch.tensor(8.0)
    params = opt.param_groups[0]["params"]
    with torch_pretending(True) as host:
        for seed, overflow in enumerate([0.0, 1.0, 0.0, 1.0, 0.0]):
            opt.found_inf = torch.tensor(overflow)
            set_grads(params, seed, 8.0)
            want = expect(opt, grad_scale=8.0)
            before = {p: [p.detach().clone(), {k: v.clone() for k, v in opt.state[p].items()}] for p in params}
            opt.step()
            host.synchronize()
            if not overflow:
                assert_is(want, opt)
                continue
            for p, (value, state) in before.items():
                assert torch.equal(p, value)
                assert all(torch.equal(opt.state[p][k], v) for k, v in state.items())


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}])
def test_a_first_step_that_overflows_leaves_no_momentum(options: dict[str, Any]) -> None:
    opt = make("SGD", make_params(), **options)
    opt.grad_scale = torch.tensor(2.0)
    with torch_pretending(True) as host:
        for seed, overflow in enumerate([1.0, 0.0, 0.0]):
            opt.found_inf = torch.tensor(overflow)
            set_grads(opt.param_groups[0]["params"], seed, 2.0)
            want = expect(opt, grad_scale=2.0)
            opt.step()
            host.synchronize()
            if overflow:
                assert not opt.state
            else:
                assert_is(want, opt)


def test_step_counts_move_to_the_device_when_they_have_to() -> None:
    """A checkpoint of a plain optimizer has them on the host."""
    with torch_pretending(False) as host:
        opt = make("AdamW", make_params())
        set_grads(opt.param_groups[0]["params"], 0)
        opt.step()
        steps = [s["step"] for s in opt.state.values()]
        host.pretend(True, True)
        for s in steps:
            host.place(s.data_ptr(), 4, -1)
        moved = [torch.zeros(()) for _ in steps]
        opt.found_inf = torch.tensor(0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fusedstep.torch._base.on_device", lambda s, p: moved.pop().copy_(s))
            opt.step()
            host.synchronize()
        assert [float(s["step"]) for s in opt.state.values()] == [2.0] * len(steps)
        assert [float(s) for s in steps] == [1.0] * len(steps)


def test_clipping_functions() -> None:
    with torch_pretending(True) as host:
        for function in (
            lambda ps: fst.clip_grad_norm_(ps, 0.5),
            lambda ps: fst.clip_grads_with_norm_(ps, 0.5, fst.get_total_norm([p.grad for p in ps])),
        ):
            params = make_params()
            set_grads(params, 0)
            grads = [p.grad.numpy().copy() for p in params]
            norm = float(np.float32(reference.total_norm(grads)))  # as torch's functions return it
            if (got := function(params)) is not None:
                assert float(got) == norm
                norm = reference.total_norm(grads)
            host.synchronize()
            coefficient = reference.clip_coefficient(norm, 0.5)
            for p, g in zip(params, grads, strict=True):
                assert_same_bits(p.grad.numpy(), reference.clip(g, clip_coef=coefficient)[0])
        fst.clip_grad_value_(params, 0.01)
        host.synchronize()
        assert max(float(p.grad.abs().max()) for p in params if p.numel()) <= np.float32(0.01)


def test_a_rate_on_a_device_that_the_parameters_are_not_on() -> None:
    """Not a step with another rate."""
    with torch_pretending(scalars=True) as host:
        opt = make("SGD", params := make_params(shapes=[(5,)]), lr=torch.tensor(0.1))
        set_grads(params, 0)
        for t in (params[0], params[0].grad):
            host.place(t.data_ptr(), t.nbytes, -1)  # the CPU
        before = params[0].detach().clone()
        with pytest.raises(ValueError, match=r"lr is on device cuda:0, expected cpu to match params\[0\]"):
            opt.step()
        assert torch.equal(params[0], before)


# -------------------------------------------------------------------------------------------------------------- graphs


def can_be_captured(name: str) -> bool:
    rule = declared.RULES[name]
    return "capturable" in rule.options or not rule.has_step


@pytest.mark.pairwise("name", "max_norm", "scaled", "count")
@pytest.mark.parametrize(("name", "options"), [c for c in SHORT if can_be_captured(c.values[0])])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("count", [3, 900])
def test_replays_equal_eager_steps(name, options, max_norm, scaled, count) -> None:
    """Also with the learning rate, the scale and found_inf changed between replays."""
    if name in ("Adam", "AdamW", "RMSprop"):
        options = {**options, "capturable": True}
    with torch_pretending(True) as host:
        optimizers = []
        for _ in range(2):
            params = [nn.Parameter(torch.linspace(-1, 1, 5 + k % 3)) for k in range(count)]
            opt = make(name, params, lr=torch.tensor(0.05), max_norm=max_norm, **options)
            for p in params:
                p.grad = torch.zeros_like(p)
            if scaled:
                opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(0.0)
            opt.step()  # makes the state
            host.synchronize()
            optimizers.append((opt, params))
        (eager, eager_params), (captured, captured_params) = optimizers
        norm_before = captured.total_norm
        host.begin_capture(0, 0)
        captured.step()
        graph = host.end_capture(0, 0)
        host.synchronize()
        assert captured.total_norm == norm_before, "a capture runs nothing"
        for step in range(4):
            for opt, params in optimizers:
                generator = torch.Generator().manual_seed(step)
                for p in params:
                    p.grad.copy_(torch.randn(p.shape, generator=generator))
                opt.param_groups[0]["lr"].fill_(0.1 / (step + 1))
                if scaled:
                    opt.grad_scale.fill_(2.0**step)
                    opt.found_inf.fill_(float(step == 2))
            eager.step()
            host.replay(graph, 0, 0)
            host.synchronize()
            for a, b in zip(eager_params, captured_params, strict=True):
                assert_same_bits(b.detach().numpy(), a.detach().numpy())
                for key, value in eager.state[a].items():
                    assert_same_bits(captured.state[b][key].numpy(), value.numpy(), key)
            assert eager.total_norm == captured.total_norm


def test_captures_that_cannot_be_right() -> None:
    with torch_pretending(True) as host:
        params = make_params()
        set_grads(params, 0)
        fresh = make("AdamW", params, capturable=True)
        host.begin_capture(0, 0)
        try:
            with pytest.raises(RuntimeError, match=r"AdamW: params\[0\] cannot be part of a CUDA graph: its state"):
                fresh.step()
            assert not fresh.state
            with pytest.raises(RuntimeError, match=r"adamw: params\[0\] cannot .* its step is counted on the host"):
                functional.adamw(*adamw_arrays([5]), step=1, **ADAMW)
            with pytest.raises(RuntimeError, match=r"sgd: params\[0\] cannot .* the norm is wanted on the host"):
                functional.sgd(np.ones(3), np.ones(3), lr=0.1, max_norm=1.0)
            with pytest.raises(RuntimeError, match=r"total_norm: cannot be part of a CUDA graph: the norm is wanted"):
                functional.total_norm(np.ones(3))
            one, other = np.ones(3), np.ones(3)
            others = [placed(host, 1, 3, np.float64) for _ in range(2)]
            with pytest.raises(RuntimeError, match=r"sgd: params\[1\] cannot .* it is on another device"):
                functional.sgd([one, others[0]], [other, others[1]], lr=0.1)
        finally:
            host.end_capture(0, 0)
        host.pretend(True, False)
        opt = make("AdamW", params)
        opt.step()
        host.begin_capture(0, 0)
        try:
            with pytest.raises(RuntimeError, match=r"expected a torch optimizer with capturable=True"):
                opt.step()
        finally:
            host.end_capture(0, 0)
        assert {float(s["step"]) for s in opt.state.values()} == {1.0}


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(("sizes", "max_norm"), [([5] * 1000, None), ([5, 40_000, 3], 0.5)], ids=["tables", "sums"])
def test_out_of_memory_changes_nothing(sizes: list[int], max_norm: float | None) -> None:
    lists = adamw_arrays(sizes)
    before = copies(lists)
    with pretending() as host:
        host.fail("cudaMallocFromPoolAsync", 1)
        with pytest.raises(RuntimeError, match=r"cudaMallocFromPoolAsync failed on cuda:0: .*out of memory"):
            functional.adamw(*lists, step=1, max_norm=max_norm, **ADAMW)
        host.synchronize()
        assert_unchanged(lists, before)


def test_a_device_that_cannot_run_a_kernel() -> None:
    """Found out before anything is launched, at a kernel's first use: so in a process of its own."""
    code = """
import numpy as np
from fusedstep import _core, functional
_core.cuda_host.pretend(True)
p = np.ones(5)
for name in ("finish", "norm", "step"):
    _core.cuda_host.fail("cudaOccupancyMaxActiveBlocksPerMultiprocessor", 1)
    try:
        functional.sgd(p, np.ones(5), lr=0.1, max_norm=1.0)
    except RuntimeError as error:
        assert "cudaOccupancyMaxActiveBlocksPerMultiprocessor failed on cuda:0" in str(error), error
    else:
        raise AssertionError(name)
_core.cuda_host.synchronize()
assert (p == 1).all() and _core.cuda_host.launches() == 0
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_table_out_of_memory_changes_nothing() -> None:
    lists = adamw_arrays([5] * 1200)
    with pretending() as host:
        functional.adamw(*lists, step=1, **ADAMW)
        host.synchronize()
        before = copies(lists)
        host.fail("cudaMalloc", 1)
        with pytest.raises(RuntimeError, match="cudaMalloc failed"):
            functional.adamw(*lists, step=2, **ADAMW)
        host.synchronize()
        assert_unchanged(lists, before)
        want = adamw_expected(lists, 2)
        functional.adamw(*lists, step=2, **ADAMW)
        host.synchronize()
        assert_equal(lists, want)


def test_error_if_nonfinite_changes_nothing() -> None:
    with torch_pretending(True) as host:
        opt = make("AdamW", make_params(), max_norm=1.0, error_if_nonfinite=True, capturable=True)
        params = opt.param_groups[0]["params"]
        set_grads(params, 0)
        opt.step()
        host.synchronize()
        want = [p.detach().clone() for p in params]
        params[0].grad[0, 0] = math.inf
        with pytest.raises(RuntimeError, match="total norm is non-finite"):
            opt.step()
        host.synchronize()
        assert all(torch.equal(p, w) for p, w in zip(params, want, strict=True))
        assert {float(s["step"]) for s in opt.state.values()} == {1.0}
        params[0].grad[0, 0] = 1.0
        expected = expect(opt)
        opt.step()
        host.synchronize()
        assert_is(expected, opt)


def test_an_overflow_of_loss_scaling_is_no_error() -> None:
    """error_if_nonfinite is about other norms that are not finite: as on the CPU, the step is skipped."""
    with torch_pretending(True) as host:
        opt = make("AdamW", make_params(), max_norm=1.0, error_if_nonfinite=True, capturable=True)
        params = opt.param_groups[0]["params"]
        opt.grad_scale, opt.found_inf = torch.tensor(2.0), torch.tensor(0.0)
        set_grads(params, 0)
        opt.step()
        host.synchronize()
        want = [p.detach().clone() for p in params]
        params[0].grad[0, 0] = math.inf
        opt.found_inf.fill_(1.0)
        opt.step()
        host.synchronize()
        assert all(torch.equal(p, w) for p, w in zip(params, want, strict=True))
        assert {float(s["step"]) for s in opt.state.values()} == {1.0}


def placed(host: Any, device: int, n: int = 4, dtype: type = np.float32) -> Array:
    a = np.ones(n, dtype)
    host.place(a.ctypes.data, a.nbytes, device)
    return a


def test_arrays_in_the_wrong_place() -> None:
    with pretending() as host:
        zero, one, cpu = (placed(host, d) for d in (0, 1, -1))
        with pytest.raises(
            ValueError, match=r"sgd: grads\[0\] is on device cuda:1, expected cuda:0 to match params\[0\]"
        ):
            functional.sgd(zero, one, lr=0.1)
        with pytest.raises(ValueError, match=r"sgd: grads\[0\] is on device cpu, expected cuda:0 to match params\[0\]"):
            functional.sgd(zero, cpu, lr=0.1)
        with pytest.raises(ValueError, match=r"adagrad: sums\[0\] is on device cpu, expected cuda:0"):
            functional.adagrad(zero, placed(host, 0), cpu, step=1, lr=0.1)
        with pytest.raises(ValueError, match=r"sgd: params\[1\] is on device cpu, expected cuda:0 as params\[0\]"):
            functional.sgd([zero, cpu], [placed(host, 0), placed(host, -1)], lr=0.1)
        with pytest.raises(
            ValueError, match=r"total_norm: arrays\[1\] is on device cuda:0, expected cpu as arrays\[0\]"
        ):
            functional.total_norm([cpu, zero])
        for a in (zero, one, cpu):
            assert (a == 1).all()


def test_what_has_no_meaning_on_a_device() -> None:
    with pretending() as host:
        p, g = placed(host, 0), placed(host, 0)
        with pytest.raises(ValueError, match=r"sgd: norm_type is 3.0.*, expected 1, 2 or inf for arrays on CUDA"):
            functional.sgd(p, g, lr=0.1, max_norm=1.0, norm_type=3.0)
        z = placed(host, 0, dtype=np.complex64)
        with pytest.raises(TypeError, match=r"total_norm: arrays\[0\] has dtype complex64, expected real"):
            functional.total_norm(z, 1.0)
        for out in (np.zeros(2), np.zeros(1, np.float32), placed(host, -1, 1, np.float64)):
            with pytest.raises(
                ValueError, match=r"sgd: norm_out\[0\] .* expected 1 contiguous float64 on the CUDA device"
            ):
                functional.sgd(p, g, lr=0.1, max_norm=1.0, norm_out=out)
        with pytest.raises(ValueError, match="norm_out without max_norm"):
            functional.sgd(p, g, lr=0.1, norm_out=np.zeros(1))
        for stream in ("0", -1, 2**64):
            with pytest.raises((TypeError, ValueError), match="expected the address of a CUDA stream"):
                functional.sgd(p, g, lr=0.1, stream=stream)
        assert (p == 1).all()
    with torch_pretending(True) as host:
        opt = make("SGD", make_params(), lr=torch.tensor(0.1))
        set_grads(opt.param_groups[0]["params"], 0)
        host.place(opt.param_groups[0]["lr"].data_ptr(), 4, 1)
        with pytest.raises(ValueError, match=r"SGD: lr is on device cuda:1, expected cuda:0 to match params\[0\]"):
            opt.step()


def test_complex_norms_of_order_two() -> None:
    z = (np.random.default_rng(0).standard_normal((500, 2)) @ [1, 1j]).astype(np.complex64)
    with pretending():
        assert functional.total_norm(z) == reference.total_norm([z.view(np.float32)])
