"""Optimizers and clip functions on DTensors: each rank has its part of what one process has, bit for bit."""

import functools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

import fusedstep
import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers import declared
from tests.helpers.bits import assert_same_bits
from tests.helpers.torch_spec import SHORT, case, make, params_of, reals

pytest.importorskip("torch.distributed.tensor")

from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from tests.helpers import ranks as at
from tests.helpers.sharded import LAYOUTS, PLACES, local, part, place, specified_norm, specified_sum

pytestmark = pytest.mark.xdist_group("distributed")
# Rows that no number of processes divides, fewer rows than processes, several blocks of a norm, nothing, one number.
SHAPES = ((5, 3), (2, 7), (1,), (2100, 2), (3, 2, 2), (0, 2), ())
EVERYWHERE = pytest.mark.parametrize(("layout", "size"), PLACES, ids=[f"{n}-{size}" for n, size in PLACES])
BFLOAT16 = {"dtype": torch.bfloat16, "state_dtype": "bfloat16", "seed": 3}
RIDES = [
    case("AdamW", l1=0.01),
    case("AdamW", mask="nonzero"),
    case("AdamW", cautious="unscaled", cautious_decay=True, weight_decay=0.1),
    case("AdamW", decay_mode="fixed", weight_decay=0.1),
    case("AdamW", ema_decay=0.9, ema_warmup="linear"),
    case("AdamW", clip_value=0.5, maximize=True),
    case("SGD", ema_decay=0.9, momentum=0.9, **BFLOAT16),
    case("Adagrad", initial_accumulator_value=0.1, dtype=torch.float64),
]
FORMATS = [
    case("AdamW", amsgrad=True, dtype=torch.bfloat16),
    case("AdamW", amsgrad=True, **BFLOAT16),
    case("AdamW", state_dtype={"exp_avg_sq": "bfloat16"}),
    case("Adagrad", **BFLOAT16),
    case("RMSprop", momentum=0.9, dtype=torch.float16, state_dtype="bfloat16"),
]


def values(seed, dtype=torch.float32):
    """From 100 on those of gradients: of all magnitudes, so that sums depend on their order."""
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=generator) for shape in SHAPES]
    if seed >= 100:
        found = [x * 2.0 ** torch.randint(-12, 13, x.shape, generator=generator) for x in found]
    return [x.to(dtype) for x in found]


def is_plain(k, mixed):
    return mixed and k % 3 == 1


def put(x, k, layout, mixed=False):
    """As the parameter number k and its gradients are: whole where nothing is divided."""
    if layout is None:
        return x
    return x.to(at.device()) if is_plain(k, mixed) else place(x, LAYOUTS[layout])


def start(name, layout, mixed=False, dtype=torch.float32, masks=None, **options):
    params = [nn.Parameter(put(x, k, layout, mixed)) for k, x in enumerate(values(0, dtype))]
    opt = make(name, params, **options)
    if masks is not None:
        wholes = [torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.6 for shape in SHAPES]
        ways = {"plain": lambda k: wholes[k], "like": lambda k: put(wholes[k], k, layout, mixed)}
        ways["unlike"] = lambda k: put(wholes[k], k, "replicated", mixed)
        where = "cpu" if layout is None else at.device()
        opt.set_mask({p: ways[masks](k).to(where) for k, p in enumerate(params) if k != 1})
    return opt


def set_gradients(params, seed, layout=None, mixed=False, factor=1.0, without=()):
    """float32 for 16-bit parameters too, where torch lets them be: so a factor is rounded as within a step."""
    for k, (p, x) in enumerate(zip(params, values(100 + seed), strict=True)):
        wide = p.element_size() > 2 or hasattr(p, "grad_dtype")
        if not wide and factor != 1.0:
            pytest.skip("this torch has no grad_dtype")
        x = x.to(p.dtype if p.element_size() > 4 or not wide else torch.float32) * factor
        p.grad_dtype = None
        p.grad = None if k in without else put(x, k, layout, mixed)


def parts(opt):
    """Of each parameter: this rank's part of it and of its state."""
    found = []
    for p in params_of(opt):
        arrays = {"param": p, **opt.state.get(p, {})}
        found.append({k: reals(local(v)) if isinstance(v, torch.Tensor) else v for k, v in arrays.items()})
    return found


def assert_like_their_parameters(opt):
    arrays = {s.name for s in declared.RULES[type(opt).__name__].states} | {"mask", "ema"}
    for p in params_of(opt):
        for name, x in opt.state[p].items():
            if isinstance(p, DTensor) and name in arrays:
                assert isinstance(x, DTensor), name
                assert (x.device_mesh, x.placements) == (p.device_mesh, p.placements), name
                assert x.to_local().shape == p.to_local().shape, name
                assert (x.device, x.stride()) == (p.device, p.stride()), name
            elif isinstance(x, torch.Tensor):
                assert not isinstance(x, DTensor), name


def train(rank, size, name, layout, options, steps=3, **grads):
    opt = start(name, layout, **options)
    before = [(local(p).data_ptr(), p) for p in params_of(opt)]
    norms = []
    for seed in range(steps):
        set_gradients(params_of(opt), seed, layout, options.get("mixed", False), **grads)
        opt.step()
        norms.append(None if opt.total_norm is None else (opt.total_norm.item(), opt.clip_coefficient.item()))
    assert_like_their_parameters(opt)
    if at.device().type == "cpu":
        assert all(local(p).data_ptr() == address for address, p in before)  # in place
    return parts(opt), norms


def alone(name, options, steps=3, coefficients=None, **grads):
    """The same in one process. With ``coefficients`` the gradients are multiplied by these, and not clipped."""
    opt = start(name, None, **{k: v for k, v in options.items() if k != "mixed"})
    for seed in range(steps):
        factor = 1.0 if coefficients is None else np.float32(coefficients[seed])
        set_gradients(params_of(opt), seed, factor=float(factor), **grads)
        opt.step()
    return parts(opt)


def assert_parts(results, whole, layout, mixed=False):
    """That every rank has its part of what one process has."""
    for rank, (got, *_) in enumerate(results):
        for k, (own, all_of_it) in enumerate(zip(got, whole, strict=True)):
            assert own.keys() == all_of_it.keys()
            for key, value in all_of_it.items():
                what = f"{key} of parameter {k} of shape {SHAPES[k]} on rank {rank}"
                if isinstance(value, np.ndarray) and value.shape == SHAPES[k] and not is_plain(k, mixed):
                    value = part(value, LAYOUTS[layout], len(results), rank)
                if isinstance(value, np.ndarray):
                    assert_same_bits(own[key], value, what)
                else:
                    assert own[key] == value, what


# ---------------------------------------------------------------------------------------------- steps without clipping


@EVERYWHERE
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_layouts(ranks, layout, size, name):
    options = {"weight_decay": 0.1, **({"momentum": 0.9} if name == "SGD" else {})}
    results = ranks(train, size, name, layout, options, exact=size == 4)
    assert_parts(results, alone(name, options), layout)


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_optimizers(ranks, name, options):
    """All of them, with plain parameters between the DTensors."""
    results = ranks(train, 3, name, "rows", {**options, "mixed": True})
    assert_parts(results, alone(name, options), "rows", mixed=True)


@EVERYWHERE
@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_formats(ranks, layout, size, name, options):
    """Random numbers of stochastic rounding belong to the place of an element in the whole tensor."""
    results = ranks(train, size, name, layout, options, exact=size == 4)
    assert_parts(results, alone(name, options), layout)


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("columns", 2), ("strided", 4)])
@pytest.mark.parametrize(("name", "options"), RIDES)
def test_what_rides_along(ranks, layout, size, name, options):
    results = ranks(train, size, name, layout, options, exact=size == 4)
    assert_parts(results, alone(name, options), layout)


@pytest.mark.parametrize(
    ("layout", "size", "masks"),
    [
        ("rows", 3, "plain"),
        ("rows", 3, "like"),
        ("columns", 2, "plain"),
        ("columns", 2, "unlike"),
        ("strided", 4, "plain"),
        ("strided", 4, "like"),
        ("hybrid", 4, "plain"),
    ],
)
def test_masks(ranks, layout, size, masks):
    options = {"masks": masks, "max_norm": None, "mixed": True}
    results = ranks(train, size, "AdamW", layout, options, exact=size == 4)
    assert_parts(results, alone("AdamW", {"masks": "plain"}), layout, mixed=True)


def refused_masks(rank, size):
    opt = start("AdamW", "rows")
    p = params_of(opt)[0]
    said = []
    for bad in (
        torch.ones(3, 3, dtype=torch.bool, device=at.device()),
        place(torch.ones(5, 3), LAYOUTS["rows"]),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            opt.set_mask({p: bad})
        assert p not in opt.state
        said.append(str(error.value))
    whole = torch.ones(5, 3, dtype=torch.bool, device=at.device())
    turned = torch.distributed.device_mesh.DeviceMesh(at.device().type, list(range(size))[::-1])
    plain = nn.Parameter(torch.ones(5, 3, device=at.device()))
    opt.add_param_group({"params": [plain]})
    for q, bad in (
        (p, distribute_tensor(whole, turned, [Shard(0)], src_data_rank=None)),
        (plain, place(whole, LAYOUTS["rows"])),
    ):
        with pytest.raises(TypeError) as error:
            opt.set_mask({params_of(opt)[3]: torch.ones(2100, 2, dtype=torch.bool, device=at.device()), q: bad})
        assert not opt.state
        said.append(str(error.value))
    return said


def test_refused_masks(ranks):
    for said in ranks(refused_masks, 2):
        assert all("AdamW: mask of params[0]" in text for text in said[:3])
        assert "(3, 3), expected (5, 3)" in said[0]
        assert "torch.float32, expected torch.bool" in said[1]
        assert re.search(r"is on .* of ranks \[1, 0\], expected .* of ranks \[0, 1\]", said[2])
        assert f"AdamW: mask of params[{len(SHAPES)}] is on " in said[3]
        assert "expected a plain tensor" in said[3]


def a_mask_elsewhere(rank, size):
    """Of a parameter on a mesh that the last rank is not in."""
    mesh = torch.distributed.device_mesh.DeviceMesh(at.device().type, list(range(size - 1)))
    param = nn.Parameter(distribute_tensor(torch.ones(5, 3, device=at.device()), mesh, [Shard(0)], src_data_rank=None))
    opt = fst.SGD([param], lr=0.1)
    opt.set_mask({param: torch.arange(15, device=at.device()).reshape(5, 3) % 2 == 0})
    return [reals(local(opt.state[param]["mask"]))]


def test_a_mask_of_a_parameter_on_other_ranks(ranks):
    results = ranks(a_mask_elsewhere, 3, exact=True)
    whole = np.arange(15).reshape(5, 3) % 2 == 0
    for rank in range(2):
        np.testing.assert_array_equal(results[rank][0], part(whole, LAYOUTS["rows"], 2, rank))
    assert results[2][0].size == 0


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("columns", 2), ("hybrid", 4)])
@pytest.mark.parametrize("without", [(0,), (1, 3), tuple(range(len(SHAPES)))], ids=str)
def test_parameters_without_gradients(ranks, layout, size, without):
    results = ranks(train, size, "AdamW", layout, {"ema_decay": 0.9}, exact=size == 4, without=without)
    assert_parts(results, alone("AdamW", {"ema_decay": 0.9}, without=without), layout)


def averages(rank, size, layout):
    opt = start("SGD", layout, ema_decay=0.5, mixed=True)
    for seed in range(2):
        set_gradients(params_of(opt), seed, layout, mixed=True)
        opt.step()
    before = [local(p).clone() for p in params_of(opt)]
    found = opt.ema_parameters()
    with opt.swap_ema():
        assert all(torch.equal(local(p), local(e)) for p, e in zip(params_of(opt), found, strict=True))
        assert all(type(local(p)) is torch.Tensor for p in params_of(opt))
    assert all(torch.equal(local(p), b) for p, b in zip(params_of(opt), before, strict=True))
    assert [isinstance(e, DTensor) for e in found] == [isinstance(p, DTensor) for p in params_of(opt)]
    return [{"ema": reals(local(e))} for e in found], None


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("columns", 2), ("strided", 4)])
def test_averages(ranks, layout, size):
    results = ranks(averages, size, layout, exact=size == 4)
    opt = start("SGD", None, ema_decay=0.5)
    for seed in range(2):
        set_gradients(params_of(opt), seed)
        opt.step()
    assert_parts(results, [{"ema": reals(e)} for e in opt.ema_parameters()], layout, mixed=True)


def statistics(rank, size, layout, mixed):
    opt = start("AdamW", layout, stats=True, clip_value=0.7, mixed=mixed)
    set_gradients(params_of(opt), 0, layout, mixed, without=(2,))
    opt.step()
    first = opt.stats()
    params_of(opt)[0].grad.mul_(math.inf)
    opt.step()
    return first, opt.stats()


def statistics_of_one_rank(rank, size):
    opt = start("SGD", "rows", stats=True, clip_value=0.01)
    set_gradients(params_of(opt), 0, "rows", without=range(len(SHAPES)) if rank else (1, 6))
    opt.step()
    return opt.stats()


def test_statistics_of_the_shards_that_have_been_updated(ranks):
    results = ranks(statistics_of_one_rank, 3)
    assert all(repr(other) == repr(results[0]) for other in results)
    assert "0" in results[0]
    assert "1" not in results[0]
    first = part(reals(values(100)[0]), LAYOUTS["rows"], len(results), 0)
    assert results[0]["0"]["grad_norm"] == pytest.approx(np.linalg.norm(first.astype(np.float64)), rel=1e-13)
    assert results[0]["0"]["clipped"] == (np.abs(first) > 0.01).sum() / 15


@EVERYWHERE
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_statistics_are_of_whole_parameters(ranks, layout, size, mixed):
    results = ranks(statistics, size, layout, mixed, exact=size == 4)
    for got, expected in zip(zip(*results, strict=True), statistics(0, 1, None, False), strict=True):
        assert all(repr(other) == repr(got[0]) for other in got)  # NaN is not equal to itself
        assert got[0].keys() == expected.keys()
        for name, figures in expected.items():
            for figure, value in figures.items():
                if figure.endswith("_norm"):
                    assert got[0][name][figure] == pytest.approx(value, rel=1e-13, nan_ok=True)
                else:
                    assert got[0][name][figure] == pytest.approx(value, rel=0, abs=0, nan_ok=True)


# --------------------------------------------------------------------------------------------------------- the norm


def gradients_of(seed, layout, mixed=False, without=()):
    found = [(k, x) for k, x in enumerate(values(100 + seed)) if k not in without]
    return [(reals(x), None if is_plain(k, mixed) else LAYOUTS[layout]) for k, x in found]


@EVERYWHERE
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("max_norm", [1.0, 1e9])
def test_steps_clip_to_the_norm_of_whole_tensors(ranks, layout, size, mixed, max_norm):
    options = {"max_norm": max_norm, "mixed": mixed}
    results = ranks(train, size, "AdamW", layout, options, exact=size == 4)
    norms = [specified_norm(gradients_of(seed, layout, mixed), len(results)) for seed in range(3)]
    want = [(norm, reference.clip_coefficient(norm, max_norm)) for norm in norms]
    assert [got for _, got in results] == [want] * len(results)
    assert (want[0][1] < 1) == (max_norm == 1.0)
    assert_parts(results, alone("AdamW", {}, coefficients=[c for _, c in want]), layout, mixed)
    assert norms[0] == pytest.approx(reference.total_norm([reals(x) for x in values(100)]), rel=1e-14)


ORDERS = 60


def rough(seed):
    """The 2-norm hides half of what the order of a sum changes: some of many tensors show it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, generator=generator) * 2.0 ** torch.randint(-3, 4, (6, 4), generator=generator)


def norms_of_many(rank, size, layout):
    param = nn.Parameter(place(torch.zeros(6, 4), LAYOUTS[layout]))
    opt = fst.SGD([param], lr=0.0, max_norm=1.0)
    found = []
    for seed in range(ORDERS):
        param.grad = place(rough(seed), LAYOUTS[layout])
        opt.step()
        found.append(opt.total_norm.item())
    return found


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("rows, columns", 4), ("columns, rows", 4)])
def test_the_order_of_sums(ranks, layout, size):
    results = ranks(norms_of_many, size, layout, exact=True)
    want = [specified_norm([(reals(rough(seed)), LAYOUTS[layout])], size) for seed in range(ORDERS)]
    assert results == [want] * size
    shares = [
        [specified_sum(part(reals(rough(seed)), LAYOUTS[layout], size, rank), None, 1) for rank in range(size)]
        for seed in range(ORDERS)
    ]
    assert want != [math.sqrt(functools.reduce(float.__add__, own[::-1])) for own in shares]  # this test would see it
    if size == 4:
        assert want != [math.sqrt((a + b) + (c + d)) for a, b, c, d in shares]


@pytest.mark.parametrize(("name", "options"), [case("AdamW", **BFLOAT16), case("SGD", momentum=0.9, masks="plain")])
@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("strided", 4)])
def test_what_is_clipped_beside_formats_and_masks(ranks, layout, size, name, options):
    results = ranks(train, size, name, layout, {**options, "max_norm": 1.0}, exact=size == 4)
    norms = [got for _, got in results]
    assert norms.count(norms[0]) == len(results)
    assert norms[0][0][1] < 0.1
    assert_parts(results, alone(name, options, coefficients=[c for _, c in norms[0]]), layout)


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("rows, columns", 4), ("hybrid", 4)])
@pytest.mark.parametrize("without", [(0,), (1, 3), tuple(range(len(SHAPES)))], ids=str)
def test_a_norm_of_some_gradients(ranks, layout, size, without):
    options = {"max_norm": 1.0}
    results = ranks(train, size, "AdamW", layout, options, exact=size == 4, without=without)
    norms = [got for _, got in results]
    assert norms.count(norms[0]) == len(results)
    # In the tree over tensors one that is divided and has no gradient counts as zero.
    grads = list(enumerate(gradients_of(0, layout)))
    divided = [any(isinstance(p, Shard) for p in LAYOUTS[layout].of(g.ndim)) for _, (g, _) in grads]
    kept = [(g * (k not in without), own) for k, (g, own) in grads if k not in without or divided[k]]
    assert norms[0][0][0] == specified_norm(kept, len(results))
    assert_parts(results, alone("AdamW", {}, coefficients=[c for _, c in norms[0]], without=without), layout)


def gradients_on_one_rank(rank, size):
    opt = start("SGD", "rows", max_norm=1.0)
    set_gradients(params_of(opt), 0, "rows", without=range(len(SHAPES)) if rank else (len(SHAPES) - 1,))
    before = parts(opt)
    opt.step()
    after = parts(opt)
    same = all(np.array_equal(a["param"], b["param"]) for a, b in zip(before, after, strict=True))
    return opt.total_norm.item(), same


def test_a_rank_without_gradients_takes_part(ranks):
    results = ranks(gradients_on_one_rank, 3)
    assert len({norm for norm, _ in results}) == 1
    own = [part(reals(x), LAYOUTS["rows"], len(results), 0) for x in values(100)[:-1]]  # the last one is replicated
    assert results[0][0] == pytest.approx(reference.total_norm(own), rel=1e-14)
    assert [same for _, same in results] == [False] + [True] * (len(results) - 1)


def clip_functions(rank, size, layout, mixed):
    found = []
    for norm_type in (2.0, 1.0, math.inf, 3.0):
        params = params_of(start("SGD", layout, mixed=mixed))
        set_gradients(params, 0, layout, mixed)
        before = [(g := p.grad, local(g).data_ptr()) for p in params]
        norm = fst.get_total_norm([p.grad for p in params], norm_type)
        clipped = fst.clip_grad_norm_(params, 1.0, norm_type)
        for total in (norm, clipped):
            assert type(total) is torch.Tensor
            assert (total.dtype, total.shape) == (torch.float32, ())
        assert [(p.grad, local(p.grad).data_ptr()) for p in params] == before or at.device().type != "cpu"
        found.append((norm.item(), clipped.item(), [{"grad": reals(local(p.grad))} for p in params]))
    return found


@EVERYWHERE
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_clip_functions(ranks, layout, size, mixed):
    results = ranks(clip_functions, size, layout, mixed, exact=size == 4)
    for k, norm_type in enumerate((2.0, 1.0, math.inf, 3.0)):
        got = [(result[k][2],) for result in results]
        norms = {result[k][:2] for result in results}
        assert len(norms) == 1
        norm, clipped = norms.pop()
        assert norm == clipped
        grads = gradients_of(0, layout, mixed)
        if norm_type == 3.0:
            assert norm == pytest.approx(reference.total_norm([g for g, _ in grads], 3.0), rel=1e-6)
            continue
        specified = specified_norm(grads, len(results), norm_type)
        assert norm == np.float32(specified)
        coefficient = reference.clip_coefficient(specified, 1.0)
        expected = [{"grad": reference.clip(g, clip_coef=coefficient)[0]} for g, _ in grads]
        assert_parts(got, expected, layout, mixed)


def other_clip_functions(rank, size, layout):
    params = params_of(start("SGD", layout, mixed=True))
    set_gradients(params, 0, layout, mixed=True)
    fst.clip_grad_value_(params, 0.3)
    values = [{"grad": reals(local(p.grad))} for p in params]
    set_gradients(params, 0, layout, mixed=True)
    fst.clip_grads_with_norm_(params, 1.0, torch.tensor(8.0, device=at.device()))
    return values, [{"grad": reals(local(p.grad))} for p in params]


@pytest.mark.parametrize(("layout", "size"), [("rows", 3), ("columns", 2), ("strided", 4)])
def test_clip_functions_that_need_no_norm(ranks, layout, size):
    results = ranks(other_clip_functions, size, layout, exact=size == 4)
    grads = [g for g, _ in gradients_of(0, layout)]
    coefficient = reference.clip_coefficient(8.0, 1.0)
    bounded = [{"grad": reference.clip(g, clip_value=0.3)[0]} for g in grads]
    scaled = [{"grad": reference.clip(g, clip_coef=coefficient)[0]} for g in grads]
    assert_parts([result[:1] for result in results], bounded, layout, mixed=True)
    assert_parts([result[1:] for result in results], scaled, layout, mixed=True)


def non_finite(rank, size, layout):
    found = []
    for nonfinite in ("skip", "raise", "propagate"):
        opt = start("AdamW", layout, max_norm=1.0, nonfinite=nonfinite)
        set_gradients(params_of(opt), 0, layout)
        opt.step()
        set_gradients(params_of(opt), 1, layout)
        if rank == size - 1:
            local_grad = params_of(opt)[3].grad.to_local()
            local_grad[-1].fill_(math.nan)
        before = parts(opt)
        try:
            opt.step()
            said = opt.skipped_steps.item()
        except RuntimeError as error:
            said = "non-finite" in str(error)
        after = parts(opt)
        same = all(np.array_equal(a[k], b[k]) for a, b in zip(before, after, strict=True) for k in ("param", "exp_avg"))
        found.append((said, same, nonfinite == "raise" or math.isnan(opt.total_norm.item())))
    return found


def test_a_norm_that_is_not_finite_is_so_on_all_ranks(ranks):
    for result in ranks(non_finite, 3, "rows"):
        assert result == [(1, True, True), (True, True, True), (0, False, True)]


def two_stages(rank, size):
    """Ranks 0 and 1 hold one half of a model, 2 and 3 the other; each half is sharded over its two ranks."""
    stages = at.mesh(2, 2, names=("stage", "shard"))
    sharded, across = stages["shard"], stages["stage"].get_group()
    stage = rank // 2
    params, grads = [], []
    for k, (x, g) in enumerate(zip(values(0), values(100), strict=True)):
        if k % 2 == stage:
            placements = [Shard(0)] if x.ndim else [Replicate()]
            params.append(nn.Parameter(distribute_tensor(x.to(at.device()), sharded, placements, src_data_rank=None)))
            params[-1].grad = distribute_tensor(g.to(at.device()), sharded, placements, src_data_rank=None)
            grads.append(params[-1].grad)
    opt = fst.SGD(params, lr=0.1, max_norm=1.0, norm_group=across)
    total = fst.get_total_norm(grads, norm_group=across).item()
    opt.step()
    clipped = fst.clip_grad_norm_(params, 1.0, norm_group=across).item()
    return opt.total_norm.item(), total, clipped


def test_a_norm_group_goes_on_top(ranks):
    results = ranks(two_stages, 4, exact=True)
    assert len(set(results)) == 1
    norm, total, clipped = results[0]
    assert norm == pytest.approx(reference.total_norm([reals(x) for x in values(100)]), rel=1e-13)
    assert total == clipped == np.float32(norm)


def collectives(rank, size, layout, options):
    from torch.distributed.tensor.debug import CommDebugMode

    opt = start("AdamW", layout, mixed=True, **options)
    counts = []
    for seed in range(2):
        set_gradients(params_of(opt), seed, layout, mixed=True)
        with CommDebugMode() as comm:
            opt.step()
        counts.append(comm.get_total_counts())
    return counts


@pytest.mark.parametrize(
    ("layout", "size", "count"),
    [("rows", 3, 1), ("columns", 2, 1), ("replicated", 2, 0), ("hybrid", 4, 1), ("rows, columns", 4, 2)],
)
def test_collectives_of_a_step(ranks, layout, size, count):
    """One for each dimension of the mesh over which something is sharded, if it clips."""
    assert ranks(collectives, size, layout, {}, exact=True) == [[0, 0]] * size
    assert ranks(collectives, size, layout, {"max_norm": 1.0}, exact=True) == [[count, count]] * size


# --------------------------------------------------------------------------------------------------------------- errors


def need_a_host_that_waits(ranks):
    """On GPUs the others learn of an error in their next call: tests/cuda/test_ranks.py."""
    if ranks.device == "cuda":
        pytest.skip("on a GPU the host does not wait")


def a_bad_rank(rank, size, layout):
    """Each error on rank 1 alone, beside what is said and whether anything changed; then a step that works."""
    opt = start("Adam", layout, max_norm=1.0, grad_attr="main_grad", mixed=True)
    params = params_of(opt)

    def gradients(seed):
        for k, (p, x) in enumerate(zip(params, values(100 + seed), strict=True)):
            p.main_grad = put(x, k, layout, mixed=True)

    gradients(0)
    opt.step()

    def dtype():
        params[0].main_grad = put(values(100)[0].double(), 0, layout)

    def plain():
        params[0].main_grad = values(100)[0].to(at.device())

    def sharded():
        params[1].main_grad = put(values(100)[1], 1, layout)

    def rate():
        opt.param_groups[0]["lr"] = -1.0

    def state():
        opt.state[params[0]]["exp_avg"] = torch.ones(1, device=at.device())

    found = []
    for k, bad in enumerate((dtype, plain, sharded, rate, state)):
        gradients(k)
        kept = opt.param_groups[0]["lr"], opt.state[params[0]]["exp_avg"]
        if rank == 1:
            bad()
        before = [(p._version, local(p).numpy().tobytes(), int(opt.state[p]["step"])) for p in params]
        with pytest.raises((RuntimeError, TypeError, ValueError)) as error:
            opt.step()
        assert [(p._version, local(p).numpy().tobytes(), int(opt.state[p]["step"])) for p in params] == before
        found.append((type(error.value).__name__, str(error.value)))
        opt.param_groups[0]["lr"], opt.state[params[0]]["exp_avg"] = kept
    gradients(1)
    opt.step()
    return found, parts(opt), opt.total_norm.item()


@pytest.mark.parametrize(("layout", "size"), [("rows", 2), ("columns", 3), ("rows, columns", 4)])
def test_an_error_on_one_rank_is_raised_on_all(ranks, layout, size):
    need_a_host_that_waits(ranks)
    results = ranks(a_bad_rank, size, layout, exact=True)
    assert len({norm for *_, norm in results}) == 1
    kinds = ["TypeError", "TypeError", "TypeError", "ValueError", "TypeError"]
    words = [r"Adam: grads\[0\] has dtype float64", r"grads\[0\]", r"grads\[1\]", "lr is -1", "exp_avg"]
    for rank, (found, _, _) in enumerate(results):
        for (kind, text), own, word in zip(found, kinds, words, strict=True):
            if rank == 1:
                assert kind == own, text
                assert re.search(word, text), text
            else:
                assert kind == "RuntimeError", text
                assert re.search(r"Adam: rank 1 .*raised an error; nothing was changed", text), text
    coefficients = [
        reference.clip_coefficient(specified_norm(gradients_of(seed, layout, mixed=True), size), 1.0)
        for seed in range(2)
    ]
    whole = alone("Adam", {}, steps=2, coefficients=coefficients)
    assert_parts([result[1:] for result in results], whole, layout, mixed=True)


def a_bad_call_on_one_rank(rank, size):
    params = params_of(start("SGD", "rows"))
    set_gradients(params, 0, "rows")
    said = []
    for call in (
        lambda: fst.clip_grad_norm_(params, -1.0 if rank == 1 else 1.0),
        lambda: fst.get_total_norm([p.grad for p in params], -2.0 if rank == 1 else 2.0),
    ):
        with pytest.raises((RuntimeError, ValueError)) as error:
            call()
        said.append((type(error.value).__name__, str(error.value)))
    set_gradients(params, 0, "rows")
    return said, fst.get_total_norm([p.grad for p in params]).item()


def test_a_bad_call_of_a_clip_function_on_one_rank(ranks):
    need_a_host_that_waits(ranks)
    results = ranks(a_bad_call_on_one_rank, 3, exact=True)
    assert len({norm for _, norm in results}) == 1
    for rank, (said, _) in enumerate(results):
        for (kind, text), name, word in zip(
            said, ("clip_grad_norm_", "get_total_norm"), ("max_norm", "norm_type"), strict=True
        ):
            assert text.startswith(f"{name}: ")
            if rank == 1:
                assert kind == "ValueError"
                assert word in text
            else:
                assert kind == "RuntimeError"
                assert "rank 1 " in text


def what_is_refused(rank, size):
    mesh = at.mesh(size)
    whole = torch.arange(6.0, device=at.device()).reshape(3, 2)
    partial = DTensor.from_local(whole, mesh, [Partial()], run_check=False)
    said = []
    for bad in (lambda: fst.AdamW([nn.Parameter(partial)]), lambda: fst.SGD([nn.Parameter(partial)], lr=0.1)):
        with pytest.raises(ValueError) as error:
            bad()
        said.append(str(error.value))
    row = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None))
    plain = nn.Parameter(whole.clone())
    other = torch.distributed.device_mesh.DeviceMesh(at.device().type, list(range(size))[::-1])
    row.main_grad, plain.main_grad = whole, distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
    turned = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None))
    turned.main_grad = distribute_tensor(whole, other, [Shard(0)], src_data_rank=None)
    for p in (row, plain, turned):
        opt = fst.AdamW([p], grad_attr="main_grad")
        before = local(p).clone()
        with pytest.raises(TypeError) as error:
            opt.step()
        assert torch.equal(local(p), before)
        assert not opt.state
        said.append(str(error.value))
        p.grad = p.main_grad
        kept = local(p.grad).clone()
        for call in (
            lambda p: fst.clip_grad_norm_([p], 1.0),
            lambda p: fst.clip_grad_value_([p], 0.1),
            lambda p: fst.clip_grads_with_norm_([p], 1.0, torch.tensor(4.0)),
        ):
            with pytest.raises(TypeError) as error:
                call(p)
            assert torch.equal(local(p.grad), kept)
            said.append(str(error.value))
    return said


def test_what_is_refused(ranks):
    for said in ranks(what_is_refused, 2):
        for text in said[:2]:
            assert re.match(r"(AdamW|SGD): params\[0\] .*Partial", text), text
        for text in said[2:]:
            assert re.match(r"(AdamW|clip_grad\w*_): grads\[0\] .* to match (its parameter|params\[0\])$", text), text
        for text in said[-4:]:  # on another mesh
            assert re.search(r"of ranks \[1, 0\], expected .* of ranks \[0, 1\]", text), text


def clip_with_a_norm_in_parts(rank, size):
    params = params_of(start("SGD", "rows"))
    set_gradients(params, 0, "rows")
    before = [local(p.grad).clone() for p in params]
    own = torch.tensor(float(2 * rank), device=at.device())
    fst.clip_grads_with_norm_(params, 1.0, DTensor.from_local(own, at.mesh(size), [Partial()], run_check=False))
    coefficient = np.float32(reference.clip_coefficient(float(size * (size - 1)), 1.0))
    return [np.array_equal(local(p.grad), b.numpy() * coefficient) for p, b in zip(params, before, strict=True)]


def test_a_norm_in_parts(ranks):
    assert all(all(same) for same in ranks(clip_with_a_norm_in_parts, 3, exact=True))


def a_norm_group_of_one_mesh(rank, size):
    """Its ranks have the same sums, so that each would count more than once."""
    world = torch.distributed.group.WORLD
    params = params_of(start("SGD", "rows"))
    set_gradients(params, 0, "rows")
    opt = fst.SGD(params, lr=0.1, max_norm=1.0, norm_group=world)
    before = [local(p).clone() for p in params]
    said = []
    for call in (
        opt.step,
        lambda: fst.clip_grad_norm_(params, 1.0, norm_group=world),
        lambda: fst.get_total_norm([p.grad for p in params], norm_group=world),
    ):
        with pytest.raises(ValueError) as error:
            call()
        said.append(str(error.value))
    assert all(torch.equal(local(p), b) for p, b in zip(params, before, strict=True))
    return said


def test_a_norm_group_of_one_mesh_is_refused(ranks):
    for said in ranks(a_norm_group_of_one_mesh, 2, exact=True):
        for text, label in zip(said, ("SGD", "clip_grad_norm_", "get_total_norm"), strict=True):
            assert text.startswith(
                f"{label}: norm_group has ranks 0 and 1 of one DeviceMesh, expected one of them at most"
            )


def gradients_with_other_placements(rank, size, layout, call):
    """Partial sums, replicated ones and others: they are made like the parameter."""
    params = params_of(start("SGD", layout))
    mesh = params[0].device_mesh
    for k, (p, x) in enumerate(zip(params, values(100), strict=True)):
        x = x.to(at.device())
        if k % 3 == 0:
            own = x.mul(4.0) if rank == 0 else x.mul(-3.0 / (size - 1))  # exact for 4 ranks at most
            p.grad = DTensor.from_local(own, mesh, [Partial()] * mesh.ndim, run_check=False)
        elif k % 3 == 1:
            p.grad = DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)
        else:
            p.grad = distribute_tensor(x, mesh, [Shard(x.ndim - 1)] * mesh.ndim if x.ndim else None, src_data_rank=None)
    totals = []
    if call == "step":
        opt = fst.SGD(params, lr=1.0)
        opt.step()
    elif call == "clipped step":
        opt = fst.SGD(params, lr=1.0, max_norm=1e9)
        opt.step()
        totals.append(opt.total_norm.item())
    elif call == "clip_grad_norm_":
        totals.append(fst.clip_grad_norm_(params, 1e9).item())
    else:
        totals.append(fst.get_total_norm([p.grad for p in params]).item())
    if call != "get_total_norm":
        for p in params:
            assert p.grad.placements == p.placements
    return [{"param": reals(local(p)), "grad": reals(local(p.grad))} for p in params], totals


@pytest.mark.parametrize(("layout", "size"), [("rows", 2), ("columns", 2), ("hybrid", 4), ("rows, columns", 4)])
@pytest.mark.parametrize("call", ["step", "clipped step", "clip_grad_norm_", "get_total_norm"])
def test_gradients_with_other_placements(ranks, layout, size, call):
    results = ranks(gradients_with_other_placements, size, layout, call, exact=True)
    norms = {tuple(totals) for _, totals in results}
    assert len(norms) == 1
    for totals in norms:
        for total in totals:
            assert total == pytest.approx(reference.total_norm([reals(x) for x in values(100)]), rel=1e-6)
    if call == "get_total_norm":
        return
    for rank, (got, _) in enumerate(results):
        for own, p, g in zip(got, values(0), values(100), strict=True):
            for key, whole in (("grad", g), ("param", p - g if "step" in call else p)):
                want = part(reals(whole), LAYOUTS[layout], size, rank)
                np.testing.assert_allclose(own[key], want, rtol=1e-5, atol=1e-6)


def scaled(rank, size, layout, options):
    """What torch.amp.GradScaler does before and in a step, with an overflow on one rank in the first."""
    opt = start("AdamW", layout, **options)
    scaler = torch.amp.GradScaler(at.device().type, init_scale=8.0, growth_interval=1000)
    scaler.scale(torch.ones((), device=at.device()))  # makes the scale
    found = []
    for seed in range(2):
        set_gradients(params_of(opt), seed, layout, factor=8.0 if seed == 0 else 4.0)
        if seed == 0 and rank == size - 1:
            params_of(opt)[3].grad.to_local()[-1].fill_(math.inf)
        before = [p["param"].tobytes() for p in parts(opt)]
        scaler.step(opt)
        scaler.update()
        found.append(([p["param"].tobytes() for p in parts(opt)] == before, scaler.get_scale()))
    return parts(opt), found


@pytest.mark.parametrize("options", [{}, {"max_norm": 1e9}], ids=["unscaled by the scaler", "in the step"])
def test_grad_scaler(ranks, options):
    results = ranks(scaled, 2, "rows", options, exact=True)
    assert [found for _, found in results] == [[(True, 4.0), (False, 4.0)]] * 2
    opt = start("AdamW", None)
    set_gradients(params_of(opt), 1)
    opt.step()
    assert_parts(results, parts(opt), "rows")


def in_groups(rank, size):
    """Groups with and without a limit, one of them added later; tied parameters; an error for a norm."""
    opt = start("AdamW", "rows")
    params = params_of(opt)
    opt = fst.AdamW([{"params": params[:2], "max_norm": 1.0}, {"params": params[2:3]}])
    opt.add_param_group({"params": params[3:], "max_norm": 2.0})
    set_gradients(params, 0, "rows")
    opt.step()
    with pytest.warns(UserWarning, match="listed twice"):
        twice = fst.clip_grad_norm_([*params, params[0]], 1e9).item()
    if rank == size - 1:
        params[3].grad.to_local()[-1].fill_(math.inf)
    before = [local(p.grad).clone() for p in params]
    for call in (
        lambda: fst.get_total_norm([p.grad for p in params], error_if_nonfinite=True),
        lambda: fst.clip_grad_norm_(params, 1.0, error_if_nonfinite=True),
    ):
        with pytest.raises(RuntimeError, match="the total norm is non-finite"):
            call()
    assert all(torch.equal(local(p.grad), g) for p, g in zip(params, before, strict=True))
    return opt.total_norm.item(), opt.clip_coefficient.item(), twice


def test_groups(ranks):
    results = ranks(in_groups, 3)
    assert len(set(results)) == 1
    norm, coefficient, twice = results[0]
    grads = gradients_of(0, "rows")
    assert norm == specified_norm([g for k, g in enumerate(grads) if k != 2], len(results))
    assert coefficient == reference.clip_coefficient(norm, 1.0)
    assert twice == np.float32(specified_norm(grads, len(results)))


def functions(rank, size):
    """Norms of fusedstep.functional are of what one process has: it refuses DTensors where it would need one."""
    param, grad = (place(torch.ones(5, 3), LAYOUTS["rows"]) for _ in range(2))
    before = local(param).clone(), local(grad).clone()
    short = place(torch.zeros(5, 3, dtype=torch.bfloat16), LAYOUTS["rows"])
    said = []
    for call in (
        lambda: fusedstep.functional.sgd([param], [grad], lr=0.1, max_norm=1.0),
        lambda: fusedstep.functional.clip_grad_norm([grad], 1.0),
        lambda: fusedstep.functional.total_norm([local(grad), grad]),
        lambda: fusedstep.functional.sgd([param], [grad], lr=0.1, stats_out=np.zeros((1, 7))),
        lambda: fusedstep.functional.rmsprop([param], [grad], [short], lr=0.1, step=1),
    ):
        with pytest.raises(TypeError) as error:
            call()
        said.append(str(error.value))
    assert torch.equal(local(param), before[0])
    assert torch.equal(local(grad), before[1])
    return said


def test_functions_of_one_process_refuse_to_clip(ranks):
    for said in ranks(functions, 2):
        assert all("DTensor" in text for text in said)
        assert [text.split(" ")[1] for text in said] == ["params[0]", "grads[0]", "arrays[1]", "params[0]", "params[0]"]


def test_every_rule_is_there():
    assert {c.values[0] for c in SHORT} == set(declared.RULES)
