"""Groups and their options of the run, and what a GradScaler leaves to a step."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import utils

import fusedstep.torch as fst
from fusedstep.torch import _groups
from tests.helpers import declared
from tests.helpers.torch_spec import (
    CASES,
    NAMES,
    OURS,
    RUN_TIME,
    SHORT,
    TIGHT,
    assert_close,
    make,
    make_params,
    params_of,
    set_grads,
    snapshot,
)

OFF = {k: OURS[k] for k in RUN_TIME}


# ------------------------------------------------------------------------------------------- groups as mappings


def test_options_of_the_run_are_read_and_set_and_are_no_keys():
    opt = make("AdamW", make_params(), max_norm=1.0)
    theirs = torch.optim.AdamW(make_params(), lr=0.05)
    (group,), (torchs,) = opt.param_groups, theirs.param_groups
    assert isinstance(group, dict)
    assert {k: group[k] for k in RUN_TIME} == {**OFF, "max_norm": 1.0}
    assert list(group) == list(group.keys()) == list(torchs)
    assert len(group) == len(torchs)
    for seen in (dict(group), {**group}, dict(group.items()), opt.state_dict()["param_groups"][0], opt.defaults):
        assert not set(RUN_TIME) & set(seen)
    assert all(name in group for name in RUN_TIME)
    assert group.get("max_norm") == 1.0
    assert group.get("clip_value", 7) is None
    assert group.get("nothing", 7) == 7
    assert group.setdefault("max_norm", 3.0) == 1.0
    assert group.setdefault("initial_lr", 0.5) == group["initial_lr"] == 0.5
    group.update(max_norm=0.5, lr=0.25)
    group["clip_value"] = 2.0
    assert (group["max_norm"], group["clip_value"], group["lr"], len(group)) == (0.5, 2.0, 0.25, len(torchs) + 1)
    assert group.pop("clip_value") == 2.0
    assert group["clip_value"] is None
    assert group.pop("initial_lr") == 0.5
    with pytest.raises(KeyError, match="initial_lr"):
        group["initial_lr"]
    with pytest.raises(KeyError):
        group.pop("initial_lr")
    del group["max_norm"]
    assert group["max_norm"] is None
    for other in (copy.copy(group), group.copy()):
        other["max_norm"] = 9.0
        assert group["max_norm"] is None
    repr(opt)


def test_merging_a_group():
    opt = make("SGD", params := make_params(), lr=1.0)
    keys = list(opt.param_groups[0])
    opt.param_groups[0] |= {"max_norm": 0.5, "lr": 0.25}
    group = opt.param_groups[0]
    group |= [("clip_value", 2.0)]
    assert group is opt.param_groups[0]
    assert {k: group[k] for k in ("max_norm", "clip_value", "lr")} == {"max_norm": 0.5, "clip_value": 2.0, "lr": 0.25}
    assert list(group) == keys
    assert set(opt.state_dict()["param_groups"][0]) == set(keys)
    set_grads(params, 0, scale=100.0)
    opt.step()
    assert opt.clipped_steps == 1

    plain = {"max_norm": 9.0, "nonfinite": "skip", "lr": 7.0, "more": 1}
    for other in (group | plain, group | _groups.ParamGroup(plain)):
        assert type(other) is type(group)
        assert list(other) == [*keys, "more"]
        assert (other["lr"], other["clip_value"], group["max_norm"], group["lr"]) == (7.0, 2.0, 0.5, 0.25)
    assert (group | plain)["max_norm"] == 9.0
    assert (group | plain)["nonfinite"] == "skip"
    assert (group | _groups.ParamGroup(plain))["max_norm"] == 0.5  # an option of the run is no key of the other group
    other = plain | group
    assert type(other) is type(group)
    assert (other["lr"], other["max_norm"], other["nonfinite"], other["more"]) == (0.25, 0.5, "propagate", 1)
    assert set(other) == {*keys, "more"}
    assert plain["max_norm"] == 9.0
    for wrong in (3, None, ["ab"]):
        with pytest.raises(TypeError):
            group | wrong
        with pytest.raises(TypeError):
            wrong | group


def test_the_two_words_for_raising():
    group = make("SGD", make_params(), max_norm=1.0).param_groups[0]
    group["error_if_nonfinite"] = True
    assert group["nonfinite"] == "raise"
    group["nonfinite"] = "skip"
    assert group["error_if_nonfinite"] is False
    group["error_if_nonfinite"] = False
    assert group["nonfinite"] == "skip"
    group["error_if_nonfinite"] = True
    group["error_if_nonfinite"] = False
    assert group["nonfinite"] == "propagate"


@pytest.mark.parametrize("option", ["max_norm", "clip_value", "nonfinite"])
def test_bad_values_set_later_change_nothing(option):
    opt = make("SGD", params := make_params(), max_norm=1.0)
    set_grads(params, 0)
    before = snapshot(opt, params)
    for bad in ("much", -1.0, math.nan, [1.0]):
        opt.param_groups[0][option] = bad
        with pytest.raises((TypeError, ValueError), match=f"SGD: {option} is "):
            opt.step()
    assert snapshot(opt, params) == before


def test_groups_of_their_own():
    params = make_params(shapes=[(3,), (4,), (5,)])
    given = {"params": params[1:2], "max_norm": 2.0, "lr": 0.5, "error_if_nonfinite": True}
    opt = make("SGD", [{"params": params[:1]}, given], max_norm=1.0)
    opt.add_param_group({"params": params[2:], "max_norm": None, "nonfinite": "skip"})
    assert [g["max_norm"] for g in opt.param_groups] == [1.0, 2.0, None]
    given["lr"] = 9.0  # a copy was taken
    assert opt.param_groups[1]["lr"] == 0.5
    assert [g["nonfinite"] for g in opt.param_groups] == ["propagate", "raise", "skip"]
    for bad, error in (
        ({"max_norm": -1.0}, ValueError),
        ({"clip_value": "x"}, TypeError),
        ({"nonfinite": 1}, ValueError),
    ):
        with pytest.raises(error, match=f"SGD: {next(iter(bad))}"):
            opt.add_param_group({"params": make_params(), **bad})
    with pytest.raises(TypeError, match="SGD: param_group"):
        opt.add_param_group([params[0]])
    assert len(opt.param_groups) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_have_the_options(copied):
    opt = make("Adam", make_params(), max_norm=1.0, nonfinite="skip", fused=True)
    opt.param_groups[0]["clip_value"] = 0.5
    other = copied(opt)
    for each in (opt, other):
        each.add_param_group({"params": make_params()})
    options = [{k: g[k] for k in RUN_TIME} for g in other.param_groups]
    assert options == [{k: g[k] for k in RUN_TIME} for g in opt.param_groups]
    assert options[0]["clip_value"] == 0.5
    assert other._step_supports_amp_scaling
    assert not set(RUN_TIME) & set(other.param_groups[0])


def test_a_checkpoint_of_an_older_version_has_them():
    opt = make("SGD", make_params(), max_norm=1.0)
    saved = opt.state_dict()
    saved["param_groups"][0] |= {"max_norm": 9.0, "clip_value": 9.0, "error_if_nonfinite": True, "lr": 0.125}
    opt.load_state_dict(saved)
    group = opt.param_groups[0]
    assert (group["max_norm"], group["clip_value"], group["nonfinite"], group["lr"]) == (1.0, None, "propagate", 0.125)
    assert not set(RUN_TIME) & set(group)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_groups_taken_from_torch(name, options):
    """They lack our options, which are the constructor's then; whose groups they are stays as it is."""
    params = make_params(torch.float64)
    source = make(name, params, torch.optim, **options)
    opt = make(name, params, **options)
    opt.param_groups = source.param_groups
    plain = make(name, make_params(torch.float64), torch.optim, **options)
    for seed in range(3):
        for each in (opt, plain):
            set_grads(params_of(each), seed)
            each.step()
    assert opt.total_norm is None
    assert type(source.param_groups[0]) is dict
    assert_close(opt, plain, **TIGHT)
    opt.param_groups[0]["max_norm"] = 1.0
    opt.step()
    assert opt.total_norm is not None


@pytest.mark.parametrize("loads", [False, True])
def test_plain_groups_in_place_of_ours_clip_as_the_constructor_said(loads):
    """Lightning's BackboneFinetuning makes such when it resumes, and then loads the state."""
    opt = make("SGD", params := make_params(), max_norm=0.5, nonfinite="skip")
    saved = opt.state_dict()
    opt.param_groups = [{**group, "params": params} for group in copy.deepcopy(saved["param_groups"])]
    assert opt._step_supports_amp_scaling
    if loads:
        opt.load_state_dict(saved)
        assert opt.param_groups[0]["max_norm"] == 0.5
    other = make("SGD", make_params(), max_norm=0.5)
    for each in (opt, other):
        set_grads(params_of(each), 0)
        each.step()
    assert_close(opt, other, rtol=0, atol=0)
    assert opt.total_norm == other.total_norm
    params[0].grad[0, 0] = math.nan
    opt.step()
    assert opt.skipped_steps.item() == 1


def test_foreign_groups_without_torchs_keys_either():
    opt = make("Adam", params := make_params(), lr=0.25, betas=(0.5, 0.5))
    opt.param_groups = [{"params": params, "lr": 0.125}]
    other = make("Adam", make_params(), lr=0.125, betas=(0.5, 0.5))
    for each in (opt, other):
        set_grads(params_of(each), 0)
        each.step()
    assert_close(opt, other, rtol=0, atol=0)


# ----------------------------------------------------------------------------- defaults, and options that torch lacks


@pytest.mark.parametrize("name", NAMES)
def test_defaults_that_were_changed_count_for_groups_added_later(name):
    opt = make(name, make_params(), lr=0.5, **({"fused": True} if "fused" in declared.RULES[name].options else {}))
    assert opt.param_groups[0].get("fused", True)
    changed = declared.known(declared.RULES[name], {"lr": 0.125, "weight_decay": 0.25}) | (
        {"fused": False} if "fused" in opt.defaults else {}
    )
    opt.defaults.update(changed)
    for each in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        each.add_param_group({"params": make_params()})
        assert {k: each.param_groups[-1][k] for k in changed} == changed


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_several_elements_is_named(name):
    with pytest.raises((TypeError, ValueError), match=r"(?i)lr"):
        make(name, make_params(), lr=torch.ones(2))


class Far(float):
    """A number that has to be waited for where it is compared."""

    def __eq__(self, other):
        raise AssertionError("waited")

    __ne__ = __eq__
    __hash__ = float.__hash__


@pytest.mark.parametrize("name", NAMES)
def test_no_option_is_compared_with_its_default(name):
    assert make(name, make_params(), fst, lr=Far(0.5)).param_groups[0]["lr"].hex() == (0.5).hex()


# ------------------------------------------------------------------------------------------------------ AMP contract


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_left_to_the_step_only_if_asked_for(name):
    opt = make(name, make_params())
    assert opt._step_supports_amp_scaling is False
    for option in ("max_norm", "clip_value"):
        assert make(name, make_params(), **{option: 1.0})._step_supports_amp_scaling is True
        opt.param_groups[0][option] = 1.0
        assert opt._step_supports_amp_scaling is True
        opt.param_groups[0][option] = None
        assert opt._step_supports_amp_scaling is False
    if "fused" in declared.RULES[name].options:
        for fused in (True, False, None):
            opt = make(name, make_params(), fused=fused)
            assert opt._step_supports_amp_scaling is bool(fused)
            assert opt.param_groups[0]["fused"] is fused


@pytest.mark.parametrize(("name", "options"), SHORT)
@pytest.mark.parametrize("how", [{}, {"fused": True}, {"max_norm": 1.0}], ids=["default", "fused", "max_norm"])
def test_what_a_scaler_leaves_in_the_gradients(name, options, how):
    if "fused" in how and "fused" not in declared.RULES[name].options:
        pytest.skip(f"torch's {name} has no fused")
    seen = []
    for module in (torch.optim, fst):
        own = {k: v for k, v in how.items() if module is fst or k != "max_norm"}
        opt = make(name, [nn.Parameter(torch.ones(2, dtype=torch.float64))], module, **options, **own)
        opt.register_step_pre_hook(lambda o, a, k, seen=seen: seen.append(params_of(o)[0].grad.tolist()))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (5.0, math.inf, 7.0):
            opt.zero_grad()
            scaler.scale((factor * params_of(opt)[0]).sum()).backward()
            if module is torch.optim and "max_norm" in how:
                scaler.unscale_(opt)
                utils.clip_grad_norm_(params_of(opt), 1.0)
            scaler.step(opt)
            scaler.update()
        seen.append((opt, scaler.get_scale(), params_of(opt)[0].grad.tolist()))
    split = seen.index(next(s for s in seen if isinstance(s, tuple))) + 1
    (theirs, their_scale, _), (ours, our_scale, left) = seen[split - 1], seen[-1]
    assert our_scale == their_scale == 512.0
    assert_close(ours, theirs, **TIGHT)
    assert left == ([7.0, 7.0] if not how else [7.0 * 512.0] * 2)  # not unscaled by whoever clips or is fused
    if not how:  # hooks see unscaled gradients, and no step that is skipped, as with torch's default
        assert seen[split:-1] == seen[: split - 1] == [[5.0, 5.0], [7.0, 7.0]]
