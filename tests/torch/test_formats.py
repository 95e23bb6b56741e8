"""``fusedstep.torch`` with 16-bit parameters, gradients and state: what state is made, saved and loaded."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from fusedstep import reference
from tests.helpers.bits import assert_same_bits
from tests.helpers.declared import RULES
from tests.helpers.torch_spec import (
    CASES,
    SHORT,
    assert_is,
    expect,
    make,
    make_params,
    params_of,
    reals,
    set_grads,
    snapshot,
    step_as_specified,
    train,
)

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
SMALL = pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=["bf16", "f16", "f32"])
SHAPES = [(3, 5), (), (0, 2), (300, 7)]


def allowed(name, options, state_dtype="bfloat16"):
    """bfloat16 for all arrays that may be, of a variant."""
    rule = RULES[name]
    full = {**rule.defaults, **options}
    return {s.name: state_dtype for s in rule.state_of(full) if s.rounding(full) != "exact"}


def draws(opt):
    return "seed" in opt.param_groups[0]


def of_state(opt, param=0):
    """Its arrays' dtypes, by name."""
    state = opt.state[params_of(opt)[param]]
    return {k: str(v.dtype).removeprefix("torch.") for k, v in state.items() if getattr(v, "ndim", 0)}


def bits_of(opt):
    """Parameters and state, in a form that equals where every bit does."""
    states = [opt.state[p] for p in params_of(opt) if p in opt.state]
    seen = [{k: v for k, v in s.items() if not isinstance(v, torch.Tensor)} for s in states]
    tensors = [*params_of(opt), *(v for s in states for v in s.values() if isinstance(v, torch.Tensor))]
    return seen, [(t.dtype, tuple(t.shape), reals(t).tobytes()) for t in tensors]


def twin(opt, module=fst, **options):
    """An optimizer over copies of the parameters of another, that loads its checkpoint."""
    other = make(type(opt).__name__, [nn.Parameter(p.detach().clone()) for p in params_of(opt)], module, **options)
    other.load_state_dict(through_file(opt.state_dict()))
    return other


def through_file(value, weights_only=True):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


# ---------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.pairwise("options", "dtype", "stored", "max_norm")
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("stored", [None, "bfloat16"])
@pytest.mark.parametrize("max_norm", [None, 0.5])
@SMALL
def test_steps_equal_the_specification(name, options, dtype, stored, max_norm):
    state_dtype = stored and allowed(name, options)
    opt = make(name, make_params(dtype, SHAPES), state_dtype=state_dtype, seed=7, max_norm=max_norm, **options)
    for seed in range(3):
        set_grads(params_of(opt), seed)
        step_as_specified(opt)
        for p in params_of(opt):
            for key, value in opt.state.get(p, {}).items():
                if key in allowed(name, options):
                    assert value.dtype == (BF16 if stored else F32)
    if draws(opt):
        assert [opt.state[p]["tensor_id"] for p in params_of(opt)] == [0, 1, 2, 3]
        assert {opt.state[p]["step"].dtype for p in params_of(opt)} == {F64}


@pytest.mark.parametrize(("name", "options"), SHORT)
def test_default_checkpoints_have_torchs_keys(name, options):
    """The same as of float32 parameters, but that torch's arrays would be bfloat16."""
    dicts = []
    for dtype in (BF16, F32):
        opt = make(name, make_params(dtype), **options)
        train(opt, 0, 1)
        dicts.append(opt.state_dict())
    small, plain = dicts
    assert small["param_groups"] == plain["param_groups"]
    assert [(k, list(s)) for k, s in small["state"].items()] == [(k, list(s)) for k, s in plain["state"].items()]
    for k, state in small["state"].items():
        assert [v.dtype for v in state.values()] == [v.dtype for v in plain["state"][k].values()]


def test_state_starts_as_a_parameter_is_laid_out():
    p = nn.Parameter(torch.ones(2, 3, 4, 5, dtype=BF16).to(memory_format=torch.channels_last))
    opt = make("AdamW", [p], state_dtype={"exp_avg": "bfloat16"})
    train(opt, 0, 1)
    assert {v.stride() for k, v in opt.state[p].items() if k != "step"} == {p.stride()}
    assert of_state(opt) == {"exp_avg": "bfloat16", "exp_avg_sq": "float32"}


def test_adagrads_state_is_there_from_the_start():
    for state_dtype, dtype in ((None, F32), ("bfloat16", BF16)):
        p = nn.Parameter(torch.ones(3, dtype=F16))
        opt = fst.Adagrad([p], initial_accumulator_value=0.5, state_dtype=state_dtype)
        assert opt.state[p]["sum"].dtype == dtype
        assert opt.state[p]["sum"].tolist() == [0.5] * 3


def test_seeds_and_steps_and_ids_change_the_rounding():
    """Each of them moves some bits of the second moment, and nothing else differs."""
    seen = []
    for seed, ids in ((0, [0]), (1, [0]), (0, [1]), (2**64, [0])):
        p = make_params(BF16, [(5000,)])
        opt = make("Adam", [{"params": p, "tensor_ids": ids}], state_dtype="bfloat16", seed=seed)
        set_grads(p, 0)
        step_as_specified(opt)
        seen.append({k: reals(v).tobytes() for k, v in opt.state[p[0]].items() if k.startswith("exp")})
    assert len({s["exp_avg"] for s in seen}) == 1
    assert len({s["exp_avg_sq"] for s in seen}) == 3
    assert seen[0] == seen[3], "a seed is taken modulo 2**64"


def test_second_moments_decay_in_bfloat16():
    """Gradients become 100 times smaller: rounded to nearest, the mean of squares would never follow."""
    p = make_params(BF16, [(2000,)])
    opt = make("Adam", p, lr=0.0, betas=(0.9, 0.999), state_dtype="bfloat16")
    for k in range(1500):
        p[0].grad = torch.full((2000,), 1.0 if k < 500 else 0.01, dtype=BF16)
        opt.step()
    mean = opt.state[p[0]]["exp_avg_sq"].double().mean().item()
    exact = (1 - 0.999**500) * 0.999**1000 + (1 - 0.999**1000) * 1e-4
    assert abs(mean / exact - 1) < 0.05


# ------------------------------------------------------------------------------------------------------------- options


BAD_OPTIONS = {
    "float16": (
        {"state_dtype": "float16"},
        ValueError,
        "state_dtype is 'float16', expected 'float32' or 'bfloat16'.*6e-8",
    ),
    "torch.float16": ({"state_dtype": F16}, ValueError, "state_dtype is torch.float16, expected"),
    "unknown": ({"state_dtype": "int8"}, ValueError, "state_dtype is 'int8', expected"),
    "float64": ({"state_dtype": F64}, ValueError, "state_dtype is torch.float64, expected"),
    "a number": ({"state_dtype": 16}, TypeError, "state_dtype is 16, expected"),
    "a list": ({"state_dtype": ["bfloat16"]}, TypeError, r"state_dtype is \['bfloat16'\], expected"),
    "an unknown name": (
        {"state_dtype": {"exp": "bfloat16"}},
        ValueError,
        "state_dtype names 'exp'.* exp_avg, exp_avg_sq",
    ),
    "in a dict": ({"state_dtype": {"exp_avg": "int8"}}, ValueError, r"state_dtype\['exp_avg'\] is 'int8', expected"),
    "seed": ({"seed": 0.5}, TypeError, "seed is 0.5, expected an integer"),
    "grad_attr": ({"grad_attr": "a b"}, ValueError, "grad_attr is 'a b', expected the name of an attribute"),
    "no grad_attr": ({"grad_attr": None}, TypeError, "grad_attr is None, expected the name of an attribute"),
    "ids": ({"tensor_ids": [1, -1]}, ValueError, r"tensor_ids\[1\] is -1, expected"),
    "ids of others": (
        {"tensor_ids": [7, 0]},
        ValueError,
        r"tensor_ids\[1\] is 0, which a parameter of another group has",
    ),
    "ids twice": ({"tensor_ids": [5, 5]}, ValueError, r"tensor_ids\[1\] is 5, which tensor_ids\[0\] is too"),
    "too few ids": ({"tensor_ids": [5]}, ValueError, r"tensor_ids has 1 numbers, expected a list of 2"),
    "an id for two": ({"tensor_ids": 5}, ValueError, "tensor_ids is 5, expected a list of 2 to match params"),
    "no number": ({"tensor_ids": 5.5}, TypeError, "tensor_ids is 5.5, expected an integer"),
    "fractional ids": ({"tensor_ids": [5, 6.5]}, TypeError, r"tensor_ids\[1\] is 6.5, expected"),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_bad_options_change_nothing(what):
    options, error, message = BAD_OPTIONS[what]
    opt = make("AdamW", params := make_params(BF16), state_dtype="bfloat16")
    train(opt, 0, 1)
    before, keys = snapshot(opt, params), copy.copy(opt.param_groups)
    with pytest.raises(error, match=f"AdamW: {message}"):
        opt.add_param_group({"params": make_params(BF16, [(3,), (4,)]), **options})
    assert snapshot(opt, params) == before
    assert opt.param_groups == keys
    if "tensor_ids" not in options:
        with pytest.raises(error, match=f"AdamW: {message}"):
            make("AdamW", make_params(BF16), **options)
        if "seed" not in options:
            for name, value in options.items():
                opt.param_groups[0][name] = value
            with pytest.raises(error, match=f"AdamW: {message}"):
                opt.step()
            assert snapshot(opt, params) == before


@pytest.mark.parametrize("dtype", [F64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("state_dtype", ["bfloat16", "float32", {"exp_avg": BF16}], ids=str)
def test_other_parameters_have_no_choice(dtype, state_dtype):
    opt = make("Adam", make_params(BF16, [(2,), (3,)]), state_dtype=state_dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"Adam: params\[3\] has dtype {name}, expected float32, bfloat16 or float16"):
        opt.add_param_group({"params": [*make_params(BF16, [(2,)]), *make_params(dtype, [(2,)])]})
    assert len(opt.param_groups) == 1
    opt.add_param_group({"params": make_params(dtype, [(2,)]), "state_dtype": None})
    train(opt, 0, 1)
    assert opt.state[params_of(opt)[2]]["exp_avg"].dtype == dtype


def test_what_has_to_stay_exact():
    """A centered variance is the difference of two nearly equal numbers."""
    params = make_params(BF16)
    for state_dtype in ("bfloat16", {"square_avg": "bfloat16"}, {"grad_avg": "bfloat16"}):
        with pytest.raises(
            ValueError, match=r"RMSprop: state_dtype of .*_avg is 'bfloat16', expected 'float32' with cent"
        ):
            fst.RMSprop(params, centered=True, state_dtype=state_dtype)
    opt = fst.RMSprop(params, centered=True, momentum=0.9, state_dtype={"momentum_buffer": "bfloat16"})
    train(opt, 0, 1)
    assert of_state(opt) == {"square_avg": "float32", "grad_avg": "float32", "momentum_buffer": "bfloat16"}
    fst.RMSprop(params, state_dtype="bfloat16")


def test_groups_of_their_own():
    """One model, three ways to store its state."""
    params = make_params(BF16, [(30,), (40,), (50,)])
    groups = [{"params": [p]} for p in params]
    groups[1] |= {"state_dtype": None}
    groups[2] |= {"state_dtype": {"exp_avg_sq": BF16}, "seed": 5}
    opt = make("AdamW", groups, state_dtype="bfloat16", seed=3)
    assert [g.get("seed") for g in opt.param_groups] == [3, None, 5]
    assert [g["state_dtype"] for g in opt.param_groups] == ["bfloat16", None, {"exp_avg_sq": "bfloat16"}]
    for seed in range(2):
        set_grads(params, seed)
        step_as_specified(opt)
    both = {"exp_avg": "bfloat16", "exp_avg_sq": "bfloat16"}
    assert [of_state(opt, k) for k in range(3)] == [both, dict.fromkeys(both, "float32"), both | {"exp_avg": "float32"}]
    assert [opt.state[p].get("tensor_id") for p in params] == [0, None, 2]


@pytest.mark.parametrize(("before", "after"), [(None, "bfloat16"), ("bfloat16", None)])
def test_state_dtype_is_changed_by_loading_ones_own_checkpoint(before, after):
    opt = make("AdamW", params := make_params(BF16), state_dtype=before, seed=3)
    train(opt, 0, 2)
    opt.param_groups[0]["state_dtype"] = after
    seen = snapshot(opt, params)
    with pytest.raises(
        ValueError, match=rf"AdamW: state_dtype is {after!r}, which the state of this group was not made"
    ):
        opt.step()
    assert snapshot(opt, params) == seen
    if after:
        with pytest.warns(UserWarning, match="rounded from float32 to bfloat16"):
            opt.load_state_dict(opt.state_dict())
    else:
        opt.load_state_dict(opt.state_dict())
    assert set(of_state(opt).values()) == {after or "float32"}
    assert opt.param_groups[0].get("seed") == (3 if after else None)
    set_grads(params, 2)
    step_as_specified(opt) if after else step_as_specified_but_for_the_dtype_of_the_count(opt)


def test_a_dict_of_dtypes_is_parsed_once(monkeypatch):
    opt = make("AdamW", make_params(BF16), state_dtype={"exp_avg": "bfloat16"})
    made, original = [], opt._rule.group
    monkeypatch.setattr(opt._rule, "group", lambda *args, **more: made.append(1) or original(*args, **more))
    train(opt, 0, 3)
    assert len(made) == 1
    opt.param_groups[0]["state_dtype"]["exp_avg"] = "int8"
    with pytest.raises(ValueError, match="int8"):
        train(opt, 3, 1)


@pytest.mark.parametrize("given", [BF16, {"exp_avg": BF16}], ids=["dtype", "dict"])
def test_a_dtype_that_is_set_later_is_parsed_once_more(monkeypatch, given):
    opt = make(
        "AdamW", make_params(BF16), state_dtype={"exp_avg": "bfloat16"} if isinstance(given, dict) else "bfloat16"
    )
    train(opt, 0, 1)
    opt.param_groups[0]["state_dtype"] = given
    train(opt, 1, 1)
    made, original = [], opt._rule.group
    monkeypatch.setattr(opt._rule, "group", lambda *args, **more: made.append(1) or original(*args, **more))
    train(opt, 2, 3)
    assert len(made) <= 1


# ----------------------------------------------------------------------------------------------------------- tensor ids


def ids(opt):
    return [opt.state[p]["tensor_id"] for p in params_of(opt)]


def drawing(params, **options):
    return make("Adam", params, state_dtype="bfloat16", **options)


def test_ids_are_of_all_that_were_added():
    opt = drawing(make_params(BF16, [(2,), (3,)]))
    opt.add_param_group({"params": make_params(BF16, [(4,)]), "state_dtype": None})
    opt.add_param_group({"params": make_params(BF16, [(5,), (6,)]), "tensor_ids": [20, 10]})
    opt.add_param_group({"params": make_params(BF16, [(7,)])})
    for each in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), through_file(opt, weights_only=False)):
        train(each, 0, 1)
        assert [each.state[p].get("tensor_id") for p in params_of(each)] == [0, 1, None, 20, 10, 21]
        each.add_param_group({"params": make_params(BF16, [(8,)])})
        train(each, 1, 1)
        assert each.state[params_of(each)[-1]]["tensor_id"] == 22
        assert not any("tensor_ids" in group for group in map(dict, each.param_groups))
        assert each.param_groups[2]["tensor_ids"] == (20, 10)


def test_ids_of_parameters_that_were_changed_by_hand():
    """A replaced one has the number of its place, an added one a number that nothing has."""
    opt = drawing(make_params(BF16, [(2,), (3,)]))
    group = opt.param_groups[0]
    group["params"][0] = make_params(BF16, [(2,)], seed=1)[0]
    train(opt, 0, 1)
    assert ids(opt) == [0, 1]
    del group["params"][0]
    group["params"] += make_params(BF16, [(4,), (5,)])
    train(opt, 1, 1)
    assert ids(opt) == [1, 2, 3]
    assert len({*ids(opt)}) == 3


@pytest.mark.parametrize("how", ["another group", "torch's load_state_dict"])
def test_short_state_that_came_in_behind_its_back(how):
    """It would be rounded by random numbers of no parameter, or nobody asked for it."""
    params = make_params(BF16, [(2,), (3,)])
    if how == "another group":
        opt = drawing([{"params": params[:1]}, {"params": params[1:], "state_dtype": None}])
        train(opt, 0, 1)
        opt.param_groups[1]["params"].insert(0, opt.param_groups[0]["params"].pop())
    else:
        opt = make("Adam", params)
        train(opt, 0, 1)
        torch.optim.Optimizer.load_state_dict(opt, opt.state_dict())
    set_grads(params_of(opt), 1)
    before = bits_of(opt)
    with pytest.raises(
        TypeError, match=r"Adam: exp_avg_sq\[0\] has dtype bfloat16, expected float32 as state_dtype says"
    ):
        opt.step()
    assert bits_of(opt) == before
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert of_state(opt) == {"exp_avg": "float32", "exp_avg_sq": "float32"}
    assert bits_of(opt) != before


@pytest.mark.parametrize("value", [-1, 2**60, 0.5, "1"])
def test_an_id_that_is_none_changes_nothing(value):
    opt = drawing(make_params(BF16, [(2,), (3,)]))
    train(opt, 0, 1)
    opt.state[params_of(opt)[1]]["tensor_id"] = value
    set_grads(params_of(opt), 1)
    before = bits_of(opt)
    with pytest.raises(
        TypeError, match=r"Adam: tensor_id of params\[1\] is .*, expected an integer from 0 to 2\*\*60 - 1"
    ):
        opt.step()
    assert bits_of(opt) == before


def test_groups_of_another_optimizer():
    """Their numbers do not come along: two optimizers may be made one."""
    first, second = (drawing(make_params(BF16, [(2,), (3,)])) for _ in range(2))
    opt = drawing([*first.param_groups, *second.param_groups])
    train(opt, 0, 1)
    assert ids(opt) == [0, 1, 2, 3]


def test_plain_groups_in_place_of_ours():
    opt = drawing(make_params(BF16), seed=5)
    opt.param_groups = [dict(group) for group in opt.param_groups]
    other = drawing(make_params(BF16), seed=5)
    for each in (opt, other):
        train(each, 0, 2)
    assert bits_of(opt) == bits_of(other)


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("stored", [None, "bfloat16"])
@SMALL
@pytest.mark.parametrize("copied", ["load", "deepcopy", "pickle", "save"])
def test_round_trips_keep_every_bit(name, options, stored, dtype, copied):
    options = {**options, "state_dtype": stored and allowed(name, options), "seed": 11}
    opt = make(name, make_params(dtype), **options)
    train(opt, 0, 3)
    ways = {
        "load": lambda opt: twin(opt, **{**options, "seed": 99}),  # the checkpoint's seed counts
        "deepcopy": copy.deepcopy,
        "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
        "save": lambda opt: through_file(opt, weights_only=False),
    }
    other = ways[copied](opt)
    assert bits_of(other) == bits_of(opt)
    for each in (opt, other):
        train(each, 3, 2)
        each.add_param_group({"params": make_params(dtype, [(9,)], seed=5)})
        if draws(each) and copied == "load":
            each.param_groups[1]["seed"] = 11  # a group that is new has the constructor's
        train(each, 5, 1)
    assert bits_of(other) == bits_of(opt)


def test_step_counts_and_ids_survive():
    """A count above 2**24, which float32 cannot hold, and numbers that are no places."""
    opt = drawing([{"params": make_params(BF16, [(3,), (4,)]), "tensor_ids": [2**40, 8]}])
    train(opt, 0, 1)
    for p in params_of(opt):
        opt.state[p]["step"].fill_(2**24 + 1)
    other = twin(opt, state_dtype="bfloat16")
    train(other, 0, 1)
    assert ids(other) == [2**40, 8]
    assert {other.state[p]["step"].item() for p in params_of(other)} == {2**24 + 2}


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("dtype", [BF16, F16], ids=["bf16", "f16"])
@pytest.mark.parametrize("stored", [None, "bfloat16"])
@pytest.mark.parametrize("how", [{}, {"fused": True, "foreach": None}, {"foreach": True}], ids=str)
@pytest.mark.filterwarnings("ignore:.*is rounded from float16 to bfloat16")
def test_checkpoints_of_torch_and_for_torch(name, options, dtype, stored, how):
    """In the middle of a training, in both directions: every step counts on from where the other has stopped."""
    if "fused" in how and "fused" not in RULES[name].options:
        pytest.skip(f"torch's {name} has no fused")
    state_dtype = stored and allowed(name, options)
    theirs = make(name, make_params(dtype), torch.optim, **options, **how)
    train(theirs, 0, 3)
    ours = twin(theirs, state_dtype=state_dtype, seed=3, **options)
    for p, q in zip(params_of(theirs), params_of(ours), strict=True):
        for key, value in theirs.state[p].items():
            if key not in {"step", *(n.name for n in RULES[name].numbers)}:
                expected = BF16 if state_dtype and key in state_dtype else F32
                assert ours.state[q][key].dtype == expected
                # torch's fused SGD is wrong with 16-bit parameters: now and then its buffer has a NaN.
                assert_same_bits(reals(ours.state[q][key]), reals(value.to(expected)))
    if draws(ours):
        assert ids(ours) == [0, 1, 2, 3]
        assert ours.param_groups[0]["seed"] == 3
        assert {ours.state[p]["step"].dtype for p in params_of(ours)} == {F64}
    set_grads(params_of(ours), 3)
    step_as_specified(ours)
    back = twin(ours, torch.optim, **options, **how)
    train(back, 4, 1)
    if RULES[name].has_step:
        assert {float(back.state[p]["step"]) for p in params_of(back)} == {5.0}
    for p, q in zip(params_of(ours), params_of(back), strict=True):
        for key in ours.state.get(p, {}).keys() - {"step", "tensor_id"}:
            assert back.state[q][key].dtype == dtype


LOADED = {  # saved as, kept as: whether bits are lost
    ("bfloat16", "float32"): False,
    ("float16", "float32"): False,
    ("float32", "float32"): False,
    ("bfloat16", "bfloat16"): False,
    ("float32", "bfloat16"): True,
    ("float16", "bfloat16"): True,
    ("float64", "float32"): True,
}


@pytest.mark.parametrize(("saved", "kept"), LOADED)
def test_the_constructors_formats_win(saved, kept):
    source = make("Adam", make_params(BF16, [(50,), (60,)]))
    train(source, 0, 2)
    checkpoint = source.state_dict()
    for state in checkpoint["state"].values():
        state["exp_avg"] = state["exp_avg"].to(getattr(torch, saved))
    target = make("Adam", make_params(BF16, [(50,), (60,)]), state_dtype={"exp_avg": kept})
    if LOADED[saved, kept]:
        message = rf"Adam: state\[0\].exp_avg of the state_dict is rounded from {saved} to {kept} and 1 more arrays"
        before = snapshot(target, params_of(target))
        with pytest.raises(UserWarning, match=message):
            target.load_state_dict(checkpoint)
        assert snapshot(target, params_of(target)) == before, "where a warning is an error, nothing is loaded"
        with pytest.warns(UserWarning, match=message) as caught:
            target.load_state_dict(checkpoint)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    else:
        target.load_state_dict(checkpoint)
    for k, p in enumerate(params_of(target)):
        got, given = target.state[p]["exp_avg"], checkpoint["state"][k]["exp_avg"]
        assert got.dtype == getattr(torch, kept)
        assert torch.equal(got, given.to(got.dtype))
    train(target, 2, 1)


def float8(t):
    return t.to(torch.float8_e4m3fn)


BAD_STATES = {
    "int8": (
        lambda s: s.update(exp_avg=s["exp_avg"].to(torch.int8)),
        r"exp_avg of the state_dict has dtype int8, expected",
    ),
    "float8": (
        lambda s: s.update(exp_avg_sq=float8(s["exp_avg_sq"])),
        r"exp_avg_sq of .* float8_e4m3fn, expected bfloat16",
    ),
    "int16": (lambda s: s.update(exp_avg=s["exp_avg"].short()), r"exp_avg of the state_dict has dtype int16, expected"),
    "bool": (lambda s: s.update(exp_avg=s["exp_avg"].bool()), r"exp_avg of the state_dict has dtype bool, expected"),
    "complex": (
        lambda s: s.update(exp_avg=s["exp_avg"] * 1j),
        r"exp_avg of the state_dict has dtype complex64, expected",
    ),
    "tensor_id": (lambda s: s.update(tensor_id=-3), r"tensor_id of the state_dict is -3, expected"),
    "fractional tensor_id": (lambda s: s.update(tensor_id=0.5), r"tensor_id of the state_dict is 0.5, expected"),
}


@pytest.mark.parametrize("what", BAD_STATES)
def test_an_unknown_format_changes_nothing(what):
    spoil, message = BAD_STATES[what]
    opt = drawing(params := make_params(BF16, [(4,), (5,)]))
    train(opt, 0, 2)
    checkpoint = copy.deepcopy(opt.state_dict())
    checkpoint["param_groups"][0]["lr"] = 7.0
    spoil(checkpoint["state"][1])
    before = snapshot(opt, params)
    with pytest.raises((TypeError, ValueError), match=rf"Adam: state\[1\]\W.*{message}"):
        opt.load_state_dict(checkpoint)
    assert snapshot(opt, params) == before
    assert opt.param_groups[0]["lr"] == 0.05


def test_a_bad_seed_or_a_variant_that_must_be_exact_changes_nothing():
    opt = fst.RMSprop(make_params(BF16), lr=0.05, state_dtype="bfloat16")
    train(opt, 0, 1)
    for key, value, error in (("seed", "x", TypeError), ("centered", True, ValueError)):
        checkpoint = copy.deepcopy(opt.state_dict())
        checkpoint["param_groups"][0] |= {key: value, "lr": 7.0}
        with pytest.raises(error, match="RMSprop: "):
            opt.load_state_dict(checkpoint)
        assert opt.param_groups[0]["lr"] == 0.05


@SMALL
def test_a_number_that_torch_has_cast(dtype):
    """torch's load_state_dict casts NAdam's mu_product to the dtype of the parameter."""
    params = make_params(dtype)
    theirs = make("NAdam", params, torch.optim)
    train(theirs, 0, 1)
    theirs.load_state_dict(theirs.state_dict())
    ours = make("NAdam", params)
    ours.load_state_dict(through_file(theirs.state_dict()))
    for p in params_of(ours):
        if p in ours.state:
            expected = theirs.state[p]["mu_product"]
            assert expected.dtype == dtype
            assert torch.equal(ours.state[p]["mu_product"], expected.float())
    set_grads(params_of(ours), 1)
    step_as_specified(ours)


def test_a_checkpoint_that_draws_for_one_that_does_not_and_back():
    source = drawing(make_params(BF16), seed=9)
    train(source, 0, 2)
    plain = twin(source)
    assert "seed" not in plain.param_groups[0]
    assert not any("tensor_id" in plain.state[p] for p in params_of(plain))
    set_grads(params_of(plain), 2)
    step_as_specified_but_for_the_dtype_of_the_count(plain)
    with pytest.warns(UserWarning, match="rounded from float32 to bfloat16"):
        back = twin(plain, state_dtype="bfloat16", seed=4)
    assert back.param_groups[0]["seed"] == 4
    assert ids(back) == [0, 1, 2, 3]
    set_grads(params_of(back), 3)
    step_as_specified(back)


def step_as_specified_but_for_the_dtype_of_the_count(opt):
    expected = expect(opt)
    for values in expected.values():
        values["step"] = np.float64(values["step"])
    opt.step()
    assert_is(expected, opt)


def test_empty_state_is_made_fresh():
    opt = drawing(params := make_params(BF16, [(4,), (5,)]))
    opt.state[params[1]] = {}
    train(opt, 0, 1)
    assert ids(opt) == [0, 1]
    checkpoint = opt.state_dict()
    checkpoint["state"][0] = {}
    opt.load_state_dict(checkpoint)
    train(opt, 1, 1)
    assert [opt.state[p]["step"].item() for p in params] == [1, 2]


def test_a_load_does_not_change_what_it_is_given():
    source = make("NAdam", make_params(BF16))
    train(source, 0, 1)
    checkpoint = source.state_dict()
    kept = [{k: (id(v), v.dtype) for k, v in s.items()} for s in checkpoint["state"].values()]
    target = make("NAdam", make_params(BF16), state_dtype={"exp_avg_sq": "bfloat16"})
    with pytest.warns(UserWarning, match="rounded"):
        target.load_state_dict(checkpoint)
    assert kept == [{k: (id(v), v.dtype) for k, v in s.items()} for s in checkpoint["state"].values()]


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("param", [BF16, F16, F32], ids=["bf16", "f16", "f32"])
@pytest.mark.parametrize("grad", [BF16, F16, F32], ids=["bf16", "f16", "f32"])
@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has no Tensor.grad_dtype")
def test_gradients_of_another_dtype(param, grad):
    params = make_params(param, [(30,), (4, 5)])
    for p in params:
        p.grad_dtype = grad
    opt = make("AdamW", params, max_norm=0.1)
    for _ in range(2):
        opt.zero_grad()
        sum((p.float() ** 2).sum() for p in params).backward()
        assert {p.grad.dtype for p in params} == {grad}
        step_as_specified(opt)


def test_a_gradient_in_another_attribute():
    params = make_params(BF16, [(30,), (4, 5), (6,)])
    opt = make("AdamW", [{"params": params[:2]}, {"params": params[2:], "grad_attr": "grad"}], grad_attr="main_grad")
    set_grads(params, 0, 100.0)
    with pytest.raises((AttributeError, TypeError, ValueError), match=r"params\[0\].*main_grad"):
        opt.step()
    assert not opt.state
    set_grads(params[:2], 1, attr="main_grad")
    for p in params[:2]:
        p.main_grad = p.main_grad.float()
    step_as_specified(opt)
    params[0].main_grad = None
    expected = expect(opt)
    assert params[0] not in expected
    opt.step()
    assert_is(expected, opt)
    assert not {"grad_attr", "main_grad"} & set(opt.state_dict()["param_groups"][0])
    assert copy.deepcopy(opt).param_groups[0]["grad_attr"] == "main_grad"


def test_frozen_parameters_of_16_bits():
    params = make_params(BF16, [(3,), (4,), (5,)])
    params[1].requires_grad_(False)
    opt = drawing(params, max_norm=1.0)
    set_grads([params[0], params[2]], 0)
    step_as_specified(opt)
    assert params[1] not in opt.state
    params[1].requires_grad_(True)
    set_grads(params, 1)
    step_as_specified(opt)
    assert ids(opt) == [0, 1, 2]


@pytest.mark.parametrize("how", [{"fused": True}, {"max_norm": 0.5}, {"fused": True, "clip_value": 0.1}], ids=str)
@pytest.mark.parametrize("dtype", [F16, BF16], ids=["f16", "bf16"])
def test_a_scaler_with_16_bit_gradients(how, dtype):
    """torch refuses to unscale float16 gradients in place: the step does it."""
    opt = make("AdamW", params := make_params(dtype, [(30,), (4, 5)]), **how)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    scaler.scale(torch.ones(()))
    for seed in range(3):
        set_grads(params, seed, scaler.get_scale())
        if seed == 1:
            params[0].grad[3] = float("inf")
            before = snapshot(opt, params)
            scaler.step(opt)
            scaler.update()
            assert snapshot(opt, params) == before
            continue
        expected = expect(opt, grad_scale=scaler.get_scale())
        scaler.step(opt)
        scaler.update()
        assert_is(expected, opt)
    assert scaler.get_scale() == 128.0
    assert opt.skipped_steps == 1


def test_a_scaler_refuses_to_unscale_float16_itself():
    opt = make("AdamW", params := make_params(F16))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    set_grads(params, 0)
    with pytest.raises(ValueError, match="FP16"):
        scaler.step(opt)


# ------------------------------------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf"), 3.0])
@pytest.mark.parametrize("dtypes", [(BF16,), (F16,), (BF16, F16), (BF16, F32), (F16, F64)], ids=str)
def test_norms_of_16_bit_gradients_are_float32(norm_type, dtypes):
    """torch's bfloat16 norm has 8 bits, and its float16 norm overflows."""
    grads = [g.detach() * 1000 for dtype in dtypes for g in make_params(dtype, [(300,), (40, 50)])]
    norm = fst.get_total_norm(grads, norm_type)
    assert norm.dtype == (F64 if F64 in dtypes else F32)
    exact = reference.total_norm([reals(g) for g in grads], norm_type)
    assert norm.item() == pytest.approx(exact, rel=1e-6)
    if norm_type == 1.0:
        assert exact > 65504, "beyond float16"
    if norm_type != 3.0:
        assert norm.item() == torch.tensor(exact, dtype=norm.dtype).item()


@pytest.mark.parametrize("dtype", [BF16, F16], ids=["bf16", "f16"])
def test_clipping_in_place(dtype):
    params = make_params(dtype, [(300,), (40, 50)])
    set_grads(params, 0, 100.0)
    given = [reals(p.grad) for p in params]
    norm = fst.clip_grad_norm_(params, 1.5)
    exact = reference.total_norm(given)
    assert norm.item() == np.float32(exact)
    for p, g in zip(params, given, strict=True):
        (clipped,) = reference.clip(g, clip_coef=reference.clip_coefficient(exact, 1.5))
        assert reals(p.grad).tobytes() == clipped.tobytes()
    fst.clip_grad_value_(params, 0.01)
    assert max(p.grad.abs().max().item() for p in params) == torch.tensor(0.01, dtype=dtype).item()
    set_grads(params, 0, 100.0)
    fst.clip_grads_with_norm_(params, 1.5, norm)
    theirs = make_params(dtype, [(300,), (40, 50)])
    set_grads(theirs, 0, 100.0)
    utils.clip_grad_norm_(theirs, 1.5)
    for p, q in zip(params, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=2e-2, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------ defaults


def test_every_rule_declares_what_may_be_stored_how():
    """Where a declaration changes, this table changes with it, and docs/torch.md."""
    found = {}
    for rule in RULES.values():
        for s in rule.states:
            found[rule.kernel, s.name] = s.kind + (f", exact with {s.exact_when}" if s.exact_when else "")
    assert found == {
        ("adabelief", "exp_avg"): "exact",
        ("adabelief", "exp_avg_var"): "unsigned",
        ("adabelief", "max_exp_avg_var"): "maximum",
        ("adadelta", "square_avg"): "unsigned",
        ("adadelta", "acc_delta"): "unsigned",
        ("adagrad", "sum"): "unsigned",
        ("adam", "exp_avg"): "signed",
        ("adam", "exp_avg_sq"): "unsigned",
        ("adam", "max_exp_avg_sq"): "maximum",
        ("adamax", "exp_avg"): "signed",
        ("adamax", "exp_inf"): "unsigned",
        ("adan", "exp_avg"): "signed",
        ("adan", "exp_avg_diff"): "signed",
        ("adan", "exp_avg_sq"): "unsigned",
        ("adan", "neg_pre_grad"): "signed",
        ("ademamix", "exp_avg"): "signed",
        ("ademamix", "exp_avg_slow"): "exact",
        ("ademamix", "exp_avg_sq"): "unsigned",
        ("adopt", "exp_avg"): "signed",
        ("adopt", "exp_avg_sq"): "unsigned",
        ("asgd", "ax"): "exact",
        ("laprop", "exp_avg"): "signed",
        ("laprop", "exp_avg_sq"): "unsigned",
        ("lion", "exp_avg"): "signed",
        ("nadam", "exp_avg"): "signed",
        ("nadam", "exp_avg_sq"): "unsigned",
        ("radam", "exp_avg"): "signed",
        ("radam", "exp_avg_sq"): "unsigned",
        ("rmsprop", "square_avg"): "unsigned, exact with centered",
        ("rmsprop", "grad_avg"): "signed, exact with centered",
        ("rmsprop", "momentum_buffer"): "signed",
        ("rprop", "prev"): "signed",
        ("rprop", "step_size"): "signed",
        ("sgd", "momentum_buffer"): "signed",
        ("signsgd", "momentum_buffer"): "signed",
        ("yogi", "exp_avg"): "signed",
        ("yogi", "exp_avg_sq"): "unsigned",
    }
