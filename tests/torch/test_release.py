"""Gradient release of ``fusedstep.torch``: updates within the backward pass, beside ordinary steps."""

import copy
import gc
import pickle
import re
import warnings
import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import fusedstep.torch as fst
from fusedstep import _core
from fusedstep.torch import _release, release_gradients
from tests.helpers.declared import RULES
from tests.helpers.torch_spec import CASES, NAMES, make, make_params, reals, snapshot

BF16 = torch.bfloat16
# A backward pass leaves the first error of a hook as it is.
TWICE = r"params\[\d+\] gets a gradient after it has been updated"


class Net(nn.Module):
    """With a tied parameter, one that takes part only when it is asked for, and a frozen one."""

    def __init__(self, dtype=torch.float32, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(7, 6)
        self.linear = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.extra = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7)
        self.head.weight = self.embed.weight
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.to(dtype)

    def forward(self, seed=0, extra=True):
        x = self.embed(torch.randint(7, (5,), generator=torch.Generator().manual_seed(seed)))
        x = self.norm(torch.tanh(self.frozen(self.linear(x))))
        if extra:
            x = x + torch.tanh(self.extra(x))
        return self.head(x).float().square().mean()


def bits(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), reals(value).tobytes()
    return {k: bits(v) for k, v in value.items()} if isinstance(value, dict) else value


def everything(model, opt):
    """What two trainings are compared by."""
    saved = opt.state_dict()
    params = {name: bits(p) for name, p in model.named_parameters()}
    return params, {k: bits(s) for k, s in saved["state"].items()}, [bits(g) for g in saved["param_groups"]]


def pair(name="AdamW", dtype=torch.float32, **options):
    """The same model and optimizer twice; the second releases gradients."""
    plain, released = Net(dtype), Net(dtype)
    opts = [make(name, model.parameters(), **options) for model in (plain, released)]
    release = release_gradients(released, opts[1])
    return (plain, opts[0]), (released, opts[1]), release


def train(model, opt, steps=3, first=0):
    for seed in range(first, first + steps):
        model(seed, extra=seed != 1).backward()
        opt.step()
        opt.zero_grad()


def assert_equal_trainings(one, other, steps=3):
    train(*one, steps)
    train(*other, steps)
    assert everything(*one) == everything(*other)


def allowed(name, options):
    """State that may be bfloat16."""
    rule = RULES[name]
    full = {**rule.defaults, **options}
    return {s.name: "bfloat16" for s in rule.state_of(full) if s.rounding(full) != "exact"}


# -------------------------------------------------------------------------------------------------------------- equal


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=["f32", "bf16"])
def test_equals_ordinary_steps(name, options, dtype):
    if dtype == BF16:
        options = {"state_dtype": allowed(name, options), "seed": 3, **options}
    one, other, _ = pair(name, dtype, **options)
    assert_equal_trainings(one, other)


RIDES = {
    "l1": {"l1": 0.1},
    "nonzero": {"mask": "nonzero"},
    "cautious": {"cautious": "unscaled", "cautious_decay": True, "decay_mode": "relative"},
    "average": {"ema_decay": 0.9},
    "warmup": {"ema_decay": 0.9, "ema_warmup": {"kind": "power", "update_after_step": 1}},
    "stats": {"stats": True},
    "clip_value": {"clip_value": 0.01},
    "all": {"l1": 0.1, "ema_decay": 0.9, "ema_warmup": "linear", "stats": True, "state_dtype": "bfloat16"},
}


@pytest.mark.parametrize("options", RIDES.values(), ids=RIDES)
def test_what_rides_along_equals_that_of_ordinary_steps(options):
    one, other, _ = pair("AdamW", **options)
    for model, opt in (one, other):
        if options.get("mask") is None:
            opt.set_mask({model.linear.weight: torch.arange(36).view(6, 6) % 3 > 0})
    assert_equal_trainings(one, other, 4)
    if options.get("stats"):
        assert one[1].stats() == other[1].stats()
        assert len(one[1].stats()) == 8
    if "ema_decay" in options:
        assert other[1].param_groups[0]["ema_step"] == 4
        averages = [[bits(a) for a in opt.ema_parameters()] for _, opt in (one, other)]
        assert averages[0] == averages[1]
        for _, opt in (one, other):
            opt.state.clear()  # averages start anew, as counted by the group
        assert_equal_trainings(one, other, 2)
        assert other[1].param_groups[0]["ema_step"] == 2


def test_an_attached_average_counts_steps():
    one, other, _ = pair("SGD", ema_decay=0.5)
    averaged = [AveragedModel(model) for model, _ in (one, other)]
    for (model, opt), average in zip((one, other), averaged, strict=True):
        opt.attach_ema(average, model)
    assert_equal_trainings(one, other)
    assert [int(a.n_averaged) for a in averaged] == [3, 3]
    assert [bits(p) for p in averaged[0].parameters()] == [bits(p) for p in averaged[1].parameters()]


@pytest.mark.parametrize("lr", [0.05, torch.tensor(0.05)], ids=["number", "tensor"])
def test_schedules_and_options_that_change(lr):
    models = Net(), Net()
    opts = [fst.AdamW(model.parameters(), lr=lr if isinstance(lr, float) else lr.clone()) for model in models]
    release_gradients(models[1], opts[1])
    for model, opt in zip(models, opts, strict=True):
        schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for seed in range(3):
                model(seed).backward()
                opt.step()
                opt.zero_grad()
                schedule.step()
                opt.param_groups[0]["weight_decay"] = 0.1 * seed
        assert schedule.last_epoch == 3
        assert float(opt.param_groups[0]["lr"]) == pytest.approx(0.05 / 8)
    assert everything(models[0], opts[0]) == everything(models[1], opts[1])


def test_groups_with_options_of_their_own():
    models = Net(), Net()
    opts = []
    for model in models:
        groups = [{"params": [*model.linear.parameters()], "lr": 0.5, "state_dtype": "bfloat16"}]
        groups += [{"params": [*model.head.parameters()], "ema_decay": 0.5}, {"params": [*model.norm.parameters()]}]
        opts.append(fst.Adam(groups, lr=0.1))
    release_gradients(models[1], opts[1])
    train(models[0], opts[0])
    for seed in range(3):
        models[1](seed, extra=seed != 1).backward()
        # In no group, so that it is left to whoever it belongs to.
        assert [n for n, p in models[1].named_parameters() if p.grad is not None] == (
            [] if seed == 1 else ["extra.weight", "extra.bias"]
        )
        opts[1].step()
        models[1].zero_grad()
    assert everything(models[0], opts[0]) == everything(models[1], opts[1])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at the loss
def test_a_compiled_model_is_released():
    one, other, release = pair("AdamW")
    release.remove()
    compiled = torch.compile(other[0], backend="aot_eager")
    release_gradients(compiled, other[1])

    @torch.compile(backend="aot_eager")
    def loss_and_gradients(seed):
        loss = other[0](seed)
        loss.backward()
        return loss

    for seed in range(2):
        train(*one, 1, seed)
        compiled(seed, extra=seed != 1).backward()
        assert all(p.grad is None for p in other[0].parameters())
        other[1].step()
    train(*one, 1, 2)
    loss_and_gradients(2)
    assert all(p.grad is None for p in other[0].parameters())
    other[1].step()
    assert everything(*one) == everything(*other)


def test_checkpointed_segments():
    one, other, _ = pair("SGD")

    def loss(model, reentrant):
        x = model.embed(torch.arange(7))
        for _ in range(2):  # the same parameters twice
            x = checkpoint(model.linear, x, use_reentrant=reentrant)
        return model.head(x).square().mean()

    for model, opt in (one, other):
        for _ in range(2):
            loss(model, False).backward()
            opt.step()
            opt.zero_grad()
    assert everything(*one) == everything(*other)
    # Reentrant ones accumulate a part of the gradient after the other.
    with pytest.raises(RuntimeError, match=TWICE):
        loss(other[0], True).backward()


# --------------------------------------------------------------------------------------------------------- in the loop


def test_gradients_are_freed_one_by_one():
    model = Net()
    opt = fst.AdamW(model.parameters())
    alive = []
    params = [p for p in model.parameters() if p.requires_grad]
    grads = []

    def before(p):
        grads.append(weakref.ref(p.grad))
        alive.append(sum(g() is not None for g in grads))

    for p in params:
        p.register_post_accumulate_grad_hook(before)
    release_gradients(model, opt)
    model().backward()
    assert alive == [1] * len(params)
    assert all(p.grad is None for p in params)


def test_step_updates_what_still_has_a_gradient():
    other_model = nn.Linear(3, 3)
    model = Net()
    opt = fst.AdamW([*model.parameters(), *other_model.parameters()], lr=0.1)
    release_gradients(model, opt)
    (model() + other_model(torch.ones(3)).sum()).backward()
    assert all(p.grad is not None for p in other_model.parameters())
    before = {p: bits(p) for p in (*model.parameters(), *other_model.parameters())}
    opt.step()
    assert {p for p in before if bits(p) != before[p]} == {*other_model.parameters()}
    # By hand, after it was released: as asked for.
    model.linear.weight.grad = torch.ones(6, 6)
    opt.zero_grad()
    model().backward()
    model.linear.weight.grad = torch.ones(6, 6)
    opt.step()
    assert opt.state[model.linear.weight]["step"] == 3


def test_a_gradient_by_hand_beside_averages():
    one, other, _ = pair("SGD", ema_decay=0.5)
    for model, opt in (one, other):
        model().backward()
        if model is one[0]:
            opt.step()
            opt.param_groups[0]["ema_step"] = 0  # within the same step
        model.linear.bias.grad = torch.ones(6)
        if model is one[0]:
            for p in model.parameters():
                if p is not model.linear.bias:
                    p.grad = None
            kept = {p: opt.state[p]["ema"].clone() for p in model.parameters() if p is not model.linear.bias}
        opt.step()
        if model is one[0]:
            for p, average in kept.items():
                opt.state[p]["ema"].copy_(average)
    assert everything(*one) == everything(*other)


def test_micro_batches():
    one, other, release = pair("AdamW", ema_decay=0.5, stats=True)
    for first in (0, 10):
        for model, opt in (one, other):
            for seed in range(first, first + 3):
                # A parameter has a gradient in the first micro-batch alone.
                if model is other[0] and seed < first + 2:
                    with release.no_release():
                        with release.no_release():
                            model(seed, extra=seed == first).backward()
                        assert model.linear.weight.grad is not None
                else:
                    model(seed, extra=seed == first).backward()
            left = [n for n, p in model.named_parameters() if p.grad is not None]
            assert model is one[0] or left == ["extra.weight", "extra.bias"]
            opt.step()
            opt.zero_grad()
        assert everything(*one) == everything(*other)
        assert one[1].stats() == other[1].stats()


def test_micro_batches_without_a_releasing_one():
    one, other, release = pair("AdamW")
    train(*one)
    with release.no_release():
        train(*other)
    assert everything(*one) == everything(*other)


def test_no_release_ends_with_an_error():
    _, (model, _), release = pair()
    with pytest.raises(KeyError), release.no_release():
        raise KeyError
    model().backward()
    assert all(p.grad is None for p in model.parameters())


def test_a_second_backward_pass_is_an_error():
    one, other, release = pair("AdamW")
    train(*one, 1)
    model, opt = other
    model(0).backward()
    before = everything(model, opt)
    for again in (lambda: model(1).backward(), lambda: model(1, extra=False).backward()):
        with pytest.raises(RuntimeError, match=TWICE + r".*no_release\(\)"):
            again()
        with release.no_release(), pytest.raises(RuntimeError, match=TWICE):
            again()
    assert everything(model, opt) == before
    opt.zero_grad()
    opt.step()  # ends what cannot be taken back
    assert everything(model, opt) == before == everything(*one)
    assert_equal_trainings(one, other)


def test_retained_graphs():
    one, other, release = pair("SGD")
    for model, opt in (one, other):
        loss = model()
        with release.no_release():
            loss.backward(retain_graph=True)
        loss.backward()
        opt.step()
        opt.zero_grad()
    assert everything(*one) == everything(*other)
    loss = other[0]()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=f"modified by an inplace operation|{TWICE}"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_second_derivatives():
    one, other, release = pair("AdamW")
    for model, opt in (one, other):
        loss = model()
        grads = torch.autograd.grad(loss, [model.linear.weight, model.embed.weight], create_graph=True)
        (loss + sum(g.square().sum() for g in grads)).backward()
        opt.step()
        opt.zero_grad()
    assert everything(*one) == everything(*other)
    before = everything(*other)
    with pytest.raises(RuntimeError, match="has a graph, expected"):
        other[0]().backward(create_graph=True)
    assert everything(*other) == before
    other[1].zero_grad()
    with release.no_release():
        other[0]().backward(create_graph=True)
    assert other[0].linear.weight.grad.requires_grad
    other[1].zero_grad()


def test_closures_and_hooks_of_the_optimizer():
    one, other, _ = pair("AdamW")
    calls = []
    handle = register_optimizer_step_pre_hook(lambda opt, *_: calls.append(opt))
    for model, opt in (one, other):
        opt.register_step_post_hook(lambda opt, *_: calls.append(opt))
        for seed in range(2):

            def closure(model=model, opt=opt, seed=seed):
                opt.zero_grad()
                loss = model(seed)
                loss.backward()
                return loss

            assert opt.step(closure).item() > 0
    handle.remove()
    assert [opt is one[1] for opt in calls] == [True] * 4 + [False] * 4
    one[1].zero_grad()
    assert everything(*one) == everything(*other)


def test_frozen_parameters_and_new_groups():
    models = Net(), Net()
    opts = [fst.AdamW([*m.linear.parameters(), *m.frozen.parameters()], lr=0.1) for m in models]
    release_gradients(models[1], opts[1])

    def both(change=lambda model, opt: None):
        for model, opt in zip(models, opts, strict=True):
            change(model, opt)
            train(model, opt, 1)
            model.zero_grad()

    def held():
        models[1](0).backward()
        found = {n for n, p in models[1].named_parameters() if p.grad is not None}
        opts[1].step()
        models[1].zero_grad()
        models[0](0).backward()
        opts[0].step()
        models[0].zero_grad()
        return {n.split(".")[0] for n in found}

    others = {"embed", "norm", "extra", "head"}
    assert held() == others
    both(lambda model, opt: model.frozen.requires_grad_(True))  # from the next step() on
    assert held() == others
    both(lambda model, opt: opt.add_param_group({"params": [*model.norm.parameters()], "lr": 0.5}))
    assert held() == others - {"norm"}
    both(lambda model, opt: model.linear.requires_grad_(False))
    assert held() == others - {"norm"}
    both(lambda model, opt: model.linear.requires_grad_(True))
    assert held() == others - {"norm"}
    # A group that is gone: its parameters keep their gradients.
    gone = [opt.param_groups.pop() for opt in opts]
    assert held() == others
    for opt, group in zip(opts, gone, strict=True):
        opt.param_groups.append(group)
    assert held() == others - {"norm"}
    assert everything(models[0], opts[0]) == everything(models[1], opts[1])


def test_a_group_is_added_within_a_step():
    models = Net(), Net()
    opts = [fst.AdamW([*m.linear.parameters()], lr=0.1, state_dtype="bfloat16", stats=True) for m in models]
    release_gradients(models[1], opts[1])
    for model, opt in zip(models, opts, strict=True):
        model().backward()
        opt.add_param_group({"params": [*model.norm.parameters()]})
        opt.step()
        model.zero_grad()
        opt.param_groups.reverse()
        model().backward()
        opt.step()
        model.zero_grad()
    assert everything(models[0], opts[0]) == everything(models[1], opts[1])


def test_groups_that_change_between_micro_batches():
    models = Net(), Net()
    opts = [fst.SGD([{"params": m.linear.parameters(), "lr": 0.5}, {"params": m.norm.parameters()}]) for m in models]
    release = release_gradients(models[1], opts[1])
    for model, opt in zip(models, opts, strict=True):
        with release.no_release():
            model(0).backward()
        opt.param_groups.reverse()
        model(1).backward()
        assert (model.linear.weight.grad is None) == (model.norm.weight.grad is None) == (model is models[1])
        opt.step()
        opt.zero_grad()
    assert everything(models[0], opts[0]) == everything(models[1], opts[1])


def test_ids_that_change():
    one, other, release = pair("AdamW", state_dtype="bfloat16")
    for model, opt in (one, other):
        with release.no_release():
            train(model, opt, 1)  # in which step() makes the state
        opt.state.clear()
        opt.param_groups[0]["tensor_ids"] = tuple(range(100, 100 + len(opt.param_groups[0]["params"])))
    assert_equal_trainings(one, other, 2)
    assert other[1].state[other[0].embed.weight]["tensor_id"] == 100


def test_remove():
    one, other, release = pair("AdamW", ema_decay=0.5)
    assert_equal_trainings(one, other)
    for model, opt in (one, other):
        model(5).backward()
        if model is other[0]:
            release.remove()
            release.remove()  # once more is nothing
        opt.step()
        opt.zero_grad()
    assert everything(*one) == everything(*other)
    other[0](6).backward()
    assert other[0].linear.weight.grad is not None
    other[1].zero_grad()
    assert all(not p._post_accumulate_grad_hooks for p in other[0].parameters())
    release_gradients(*other)
    assert_equal_trainings(one, other)


# --------------------------------------------------------------------------------------------- checkpoints and copies


def test_checkpoints():
    one, other, _ = pair("AdamW", state_dtype="bfloat16", ema_decay=0.9)
    train(*one, 4)
    train(*other, 2)
    saved = copy.deepcopy((other[0].state_dict(), other[1].state_dict()))
    other[0](9).backward()  # not ended by a step
    other[0].load_state_dict(saved[0])
    other[1].load_state_dict(saved[1])
    train(*other, 2, 2)
    assert everything(*one) == everything(*other)


def test_torch_goes_on():
    (model, theirs), other, _ = pair("AdamW")
    train(*other, 2)
    model.load_state_dict(other[0].state_dict())
    theirs = torch.optim.AdamW(model.parameters(), lr=0.05)
    theirs.load_state_dict(copy.deepcopy(other[1].state_dict()))
    train(model, theirs, 2, 2)
    train(*other, 2, 2)
    for p, q in zip(model.parameters(), other[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_are_not_released(way):
    _, (model, opt), release = pair("AdamW")
    train(model, opt, 1)
    model_copy, opt_copy = way((model, opt))
    model_copy().backward()
    assert model_copy.linear.weight.grad is not None
    opt_copy.step()
    before = everything(model_copy, opt_copy)
    train(model, opt, 1)
    assert everything(model, opt) == before
    opt_copy.zero_grad()
    release_gradients(model_copy, opt_copy)
    train(model_copy, opt_copy, 1)
    train(model, opt, 1)
    assert everything(model, opt) == everything(model_copy, opt_copy)
    with pytest.raises(TypeError, match="a handle belongs to one model"):
        way(release)


def test_nothing_is_kept_alive():
    model = Net()
    opt = fst.AdamW(model.parameters())
    release_gradients(model, opt)
    train(model, opt, 1)
    found = weakref.ref(opt)
    gc.disable()
    try:
        del opt
        assert found() is None
        model().backward()  # the hooks are there, and do nothing
        assert model.linear.weight.grad is not None
        model.zero_grad()
        assert fst.clip_grad_norm_(model.parameters(), 1.0) == 0
        opt = fst.AdamW(model.parameters())
        release_gradients(model, opt)
        train(model, opt, 1)
        found = weakref.ref(model.linear.weight)
        del model, opt
        assert found() is None
    finally:
        gc.enable()


def test_a_wrapper_with_the_same_attributes():
    """As Lightning has it."""
    model = Net()
    opt = fst.AdamW(model.parameters())
    wrapper = object.__new__(type("Wrapper", (fst.AdamW,), {}))
    wrapper.__dict__ = dict(opt.__dict__)
    release_gradients(model, wrapper)
    train(model, opt, 2)
    assert opt.state[model.linear.weight]["step"] == 2


# ------------------------------------------------------------------------------------------------------ what cannot be

LATER = {
    "max_norm": (1.0, "max_norm of group 1 is 1.0, expected None with release_gradients"),
    "nonfinite": ("skip", "nonfinite of group 1 is 'skip', expected 'propagate' with release_gradients"),
    "grad_attr": ("main_grad", "grad_attr of group 1 is 'main_grad', expected 'grad' with release_gradients"),
}


def two_groups(**options):
    model = Net()
    groups = [{"params": [*model.norm.parameters()]}, {"params": [*model.linear.parameters()], **options}]
    return model, fst.AdamW(groups)


@pytest.mark.parametrize("name", LATER)
def test_options_that_need_all_gradients(name):
    value, message = LATER[name]
    options = {name: value} | ({"max_norm": 1.0} if name == "nonfinite" else {})
    message = LATER["max_norm" if name == "nonfinite" else name][1]
    model, opt = two_groups(**options)
    with pytest.raises(ValueError, match=re.escape(message)):
        release_gradients(model, opt)
    assert all(p._post_accumulate_grad_hooks is None for p in model.parameters())
    assert opt._run.release is None


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("by", ["backward", "step"])
def test_options_that_are_set_later(name, by):
    model, opt = two_groups()
    release_gradients(model, opt)
    train(model, opt, 1)
    value, message = LATER[name]
    loss = model()
    if by == "backward":
        opt.param_groups[1][name] = value
        before = bits(model.linear.weight)
        with pytest.raises(ValueError, match=re.escape(message)):
            loss.backward()
        assert bits(model.linear.weight) == before
    else:
        loss.backward()
        opt.param_groups[1][name] = value
        before = snapshot(opt, list(model.parameters()))
        with pytest.raises(ValueError, match=re.escape(message)):
            opt.step()
        assert snapshot(opt, list(model.parameters())) == before


def test_groups_of_other_models_may_clip():
    other = nn.Linear(2, 2)
    model = Net()
    opt = fst.AdamW([{"params": model.parameters()}, {"params": other.parameters(), "max_norm": 0.5}])
    release_gradients(model, opt)
    (model() + 100 * other(torch.ones(2)).sum()).backward()
    opt.step()
    assert opt.total_norm > 100
    assert opt.clipped_steps == 1


@pytest.mark.parametrize("way", ["step", "unscale", "by hand"])
def test_loss_scaling(way):
    _, (model, opt), release = pair("SGD")
    if way == "by hand":
        opt.grad_scale = 2.0
        before = everything(model, opt)
        with pytest.raises(RuntimeError, match="with release_gradients, expected none: whether scaled"):
            model().backward()
        assert everything(model, opt) == before
        return
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model()).backward()
    if way == "unscale":
        scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="with release_gradients, expected none: whether scaled"):
        scaler.step(opt)
    release.remove()
    assert not opt._step_supports_amp_scaling
    disabled = torch.amp.GradScaler("cpu", enabled=False)
    one, other, _ = pair("SGD")
    for model, opt in (one, other):
        disabled.scale(model()).backward()
        disabled.step(opt)
        opt.zero_grad()
    assert everything(*one) == everything(*other)


@pytest.mark.parametrize("key", ["sums", "group_scalars"])
def test_rules_that_need_more_than_a_parameter(monkeypatch, key):
    rules = _core.rules()
    assert all(not rule["sums"] and not rule["group_scalars"] for rule in rules if rule["name"] in ("sgd", "adam"))
    changed = [rule | ({key: 1 if key == "sums" else ["d"]} if rule["name"] == "adam" else {}) for rule in rules]
    monkeypatch.setattr(_core, "rules", lambda: changed)
    model = Net()
    with pytest.raises(ValueError, match="an update by AdamW depends on more than its element"):
        release_gradients(model, fst.AdamW(model.parameters()))
    release_gradients(model, fst.SGD(model.parameters()))


def test_every_rule_can_be_released():
    for name in NAMES:
        _release._check_rule(RULES[name])


def test_arguments():
    model = Net()
    opt = fst.AdamW(model.parameters())
    with pytest.raises(TypeError, match="release_gradients: model is a list, expected a"):
        release_gradients([*model.parameters()], opt)
    with pytest.raises(TypeError, match="release_gradients: optimizer is a AdamW, expected an optimizer of fusedstep"):
        release_gradients(model, torch.optim.AdamW(model.parameters()))
    with pytest.raises(ValueError, match=r"none of the model's 2 parameters is in a group of this AdamW"):
        release_gradients(nn.Linear(2, 2), opt)
    release = release_gradients(model, opt)
    with pytest.raises(ValueError, match="this AdamW releases gradients already"):
        release_gradients(model, opt)
    second = fst.SGD(model.linear.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"params\[0\] of SGD is updated in backward\(\) by another AdamW already"):
        release_gradients(model, second)
    release.remove()
    release_gradients(model, second)


def test_two_optimizers_of_one_model():
    models = Net(), Net()
    opts = []
    for model in models:
        opts.append(
            (
                fst.SGD([model.linear.weight], lr=0.1),
                fst.Adam([p for p in model.parameters() if p is not model.linear.weight]),
            )
        )
    for opt in opts[1]:
        release_gradients(models[1], opt)
    for seed in range(3):
        for model, both in zip(models, opts, strict=True):
            model(seed).backward()
            for opt in both:
                opt.step()
                opt.zero_grad()
    for one, other in zip(*opts, strict=True):
        assert everything(models[0], one) == everything(models[1], other)


def test_beside_optimizers_in_the_backward_of_torch():
    optim = pytest.importorskip("torch.distributed.optim")
    model = Net()
    optim._apply_optimizer_in_backward(torch.optim.SGD, [model.linear.weight], {"lr": 0.1})
    with pytest.raises(ValueError, match=r"params\[1\] of AdamW is updated in backward\(\) by torch's"):
        release_gradients(model, fst.AdamW(model.parameters()))
    assert all(p._post_accumulate_grad_hooks is None for p in model.parameters())


def test_clipping_between_backward_and_step():
    _, (model, opt), release = pair()
    model().backward()
    with pytest.raises(RuntimeError, match="clip_grad_norm_: no parameter has a gradient, since release_gradients"):
        fst.clip_grad_norm_(model.parameters(), 1.0)
    with pytest.raises(RuntimeError, match="clip_grad_value_: no parameter has a gradient, since release_gradients"):
        fst.clip_grad_value_(model.parameters(), 1.0)
    opt.step()
    with release.no_release():
        model().backward()
    assert fst.clip_grad_norm_(model.parameters(), 1.0) > 0
    opt.step()
    opt.zero_grad()
    release.remove()
    assert fst.clip_grad_norm_(model.parameters(), 1.0) == 0


def test_an_error_in_the_backward_pass():
    """It names the parameter by its number in the optimizer; what came before has been updated."""
    other = Net()
    model = Net()
    model.embed.sparse = True
    model.head.weight = nn.Parameter(torch.ones(7, 6))
    for m in (model, other):
        m.requires_grad_(True)
    opt = fst.AdamW(
        [
            {"params": model.head.parameters()},
            {"params": model.linear.parameters()},
            {"params": model.embed.parameters()},
        ]
    )
    release_gradients(model, opt)
    with pytest.raises(TypeError, match=r"AdamW: grads\[4\] has layout torch.sparse_coo"):
        model().backward()
    assert model.embed.weight.grad.is_sparse
    assert model.embed.weight not in opt.state
    assert opt.state[model.linear.weight]["step"] == 1
    with pytest.raises(TypeError, match=r"AdamW: grads\[4\] has layout torch.sparse_coo"):
        opt.step()
    opt.zero_grad()
    opt.step()
    model.embed.sparse = False
    train(model, opt, 1)
    assert opt.state[model.linear.weight]["step"] == 2


def test_within_swap_ema():
    _, (model, opt), _ = pair("SGD", ema_decay=0.9)
    train(model, opt, 1)
    before = everything(model, opt)
    with opt.swap_ema(), pytest.raises(RuntimeError, match=r"within swap_ema\(\)"):
        model().backward()
    assert everything(model, opt) == before


def test_state_that_is_none():
    _, (model, opt), _ = pair("SGD", momentum=0.9)
    train(model, opt, 1)
    opt.state = []
    with pytest.raises(TypeError, match="SGD: state is a list, expected a dict"):
        model().backward()


# --------------------------------------------------------------------------------------------------- several processes


@pytest.fixture
def one_process(tmp_path):
    if not dist.is_available():
        pytest.skip("needs torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel():
    model = Net()
    opt = fst.AdamW(model.parameters())
    release = release_gradients(model, opt)
    train(model, opt, 1)
    release.remove()
    wrapped = nn.parallel.DistributedDataParallel(model)
    for module in (wrapped, nn.Sequential(wrapped)):
        with pytest.raises(ValueError, match="DistributedDataParallel averages gradients after they are released"):
            release_gradients(module, opt)
    release_gradients(model, opt)
    before = everything(model, opt)
    with pytest.raises(ValueError, match="DistributedDataParallel averages gradients after they are released"):
        wrapped().backward()
    assert everything(model, opt) == before


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore:FSDP is switching to use")
@pytest.mark.parametrize("original", [False, True])
def test_fsdp1(original):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(nn.Linear(4, 4), use_orig_params=original, device_id=torch.device("cpu"))
    opt = fst.SGD(model.parameters(), lr=0.1)
    for module in (model, model.module) if original else (model,):
        with pytest.raises(ValueError, match=r"FullyShardedDataParallel \(FSDP1\) reduces gradients"):
            release_gradients(module, opt)


def test_many_parameters_are_not_walked_for_each():
    """What one update costs does not grow with the number of parameters."""
    found = {}
    for count in (10, 1000):
        model = nn.ParameterList(make_params(shapes=[(2,)] * count))
        opt = fst.AdamW(model.parameters(), lr=0.1)
        release_gradients(model, opt)
        seen = []
        original = _core.step_torch

        def counted(groups, *args, original=original, seen=seen, **kwargs):
            seen.append(sum(len(group[1]) for group in groups))
            return original(groups, *args, **kwargs)

        _core.step_torch = counted
        try:
            torch.stack([p.sum() for p in model]).sum().backward()
        finally:
            _core.step_torch = original
        found[count] = seen
    assert found == {10: [1] * 10, 1000: [1] * 1000}
