"""Lightning and Fabric: every precision and way of clipping, what wrappers show, checkpoints of the other library."""

from __future__ import annotations

import math

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import BOTH, assert_same, need, training, warns

lightning = need("lightning")
precision_plugins = need("lightning.pytorch.plugins.precision")
fabric_plugins = need("lightning.fabric.plugins.precision")
pytestmark = warns("Lightning")

ours, theirs = fusedstep.torch, torch.optim
LIMIT = 0.5
TOO_HIGH = 2.0**20  # a loss scale that makes the first steps overflow


class Net(lightning.LightningModule):
    def __init__(self, library, name="SGD", automatic=True, clip="client", **options):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        self.optimizer_class = getattr(library, name)
        self.options = {"lr": 0.05, **({"momentum": 0.9} if name == "SGD" else {}), **options}
        self.automatic_optimization = automatic
        self.clip = clip
        self.losses, self.norms = [], []

    def training_step(self, x, index):
        loss = torch.nn.functional.mse_loss(self.layers(x), x.sum(1, keepdim=True))
        self.losses.append(loss.item())
        if self.automatic_optimization:
            return loss
        opt = self.optimizers()
        opt.zero_grad()
        self.manual_backward(loss)
        if self.clip == "client":
            self.clip_gradients(opt, gradient_clip_val=LIMIT, gradient_clip_algorithm="norm")
        opt.step()
        self.lr_schedulers().step()
        return None

    def on_before_optimizer_step(self, optimizer):
        if self.clip == "client":
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            self.norms.append(torch.nn.utils.get_total_norm(grads).item())

    def on_train_batch_end(self, outputs, batch, index):
        if self.clip == "step":
            norm = self.optimizers().total_norm
            self.norms.append(math.nan if norm is None else norm.item())

    def configure_optimizers(self):
        limit = {"max_norm": LIMIT} if self.clip == "step" else {}
        opt = self.optimizer_class(self.parameters(), **self.options, **limit)
        return [opt], [{"scheduler": torch.optim.lr_scheduler.StepLR(opt, 6, 0.5), "interval": "step"}]


def data():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(x, batch_size=4)


def fit(net, precision="32-true", ckpt_path=None, max_epochs=1, **options):
    if net.automatic_optimization and net.clip == "client":
        options.setdefault("gradient_clip_val", LIMIT)
    if precision == "16-mixed":  # Lightning itself has it for GPUs only
        scaler = torch.amp.GradScaler("cpu", init_scale=TOO_HIGH, growth_interval=1000)
        options["plugins"] = [precision_plugins.MixedPrecision(precision, "cpu", scaler)]
    else:
        options["precision"] = precision
    for unneeded in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"):
        options[unneeded] = False
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=max_epochs, **options)
    trainer.fit(net, data(), ckpt_path=ckpt_path)
    return trainer, training(net, trainer.optimizers[0], net.losses)


# In 16 bits a rounding of float32 now and then becomes one of 16 bits.
TOLERANCE = {"32-true": {}, "bf16-mixed": {"rtol": 2e-3, "atol": 2e-4}, "16-mixed": {"rtol": 2e-3, "atol": 2e-4}}


# The first step is left out, and schedules go on, as with torch.optim.
SCHEDULE = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")


def assert_report(opt, precision, norms, reference):
    """Norms as of torch's gradients; then counts: steps with a norm that is not finite are skipped."""
    finite = list(map(math.isfinite, reference))
    assert list(map(math.isfinite, norms)) == finite
    assert all(finite) == (precision != "16-mixed")
    kept = [norm for norm in norms if math.isfinite(norm)]
    assert kept == pytest.approx([norm for norm in reference if math.isfinite(norm)], rel=1e-2)
    assert opt.skipped_steps == len(norms) - len(kept)
    assert 0 < opt.clipped_steps == sum(norm > LIMIT for norm in kept)


@SCHEDULE
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("clip", ["client", "step"])
@pytest.mark.parametrize("automatic", [True, False], ids=["automatic", "manual"])
def test_as_torch(precision, clip, automatic):
    # With a scaler, what is clipped by hand is still scaled: no reference for a step that clips.
    net, reference = Net(ours, automatic=automatic, clip=clip), Net(theirs, automatic=automatic or clip == "step")
    trainer, got = fit(net, precision)
    assert_same(got, fit(reference, precision)[1], **TOLERANCE[precision])
    opt = trainer.optimizers[0]
    if clip == "step":
        assert_report(opt, precision, net.norms, reference.norms)
    else:
        assert opt.total_norm is None
        assert opt.skipped_steps == 0  # of steps that GradScaler does not call


@pytest.mark.parametrize("library", BOTH, ids=lambda library: library.__name__)
def test_both_ways_at_once_are_refused_in_16_bits(library):
    """As with torch's fused=True: gradients are still scaled when Lightning would clip them."""
    net = Net(library, "AdamW", fused=True) if library is theirs else Net(library, clip="step")
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        fit(net, "16-mixed", gradient_clip_val=LIMIT)


@pytest.mark.parametrize("name", ["AdamW", "RMSprop"])
def test_clip_by_value_of_accumulated_gradients(name):
    options = {"gradient_clip_algorithm": "value", "gradient_clip_val": 0.05, "accumulate_grad_batches": 2}
    assert_same(*(fit(Net(library, name), **options)[1] for library in (ours, theirs)))


def test_report_through_the_wrapper():
    """LightningOptimizer is of a class made of both: properties run on the wrapper."""
    net = Net(ours, automatic=False, clip="step")
    trainer, _ = fit(net)
    wrapper, opt = net.optimizers(), trainer.optimizers[0]
    assert wrapper is not opt
    assert wrapper.optimizer is opt
    for name in ("total_norm", "clip_coefficient", "clipped_steps", "skipped_steps", "norm_group"):
        assert getattr(wrapper, name) == getattr(opt, name)
    assert wrapper.total_norm.item() == net.norms[-1] > 0
    assert wrapper.clipped_steps > 0
    wrapper.param_groups[0]["max_norm"] = 2.0
    assert opt.param_groups[0]["max_norm"] == 2.0


@pytest.mark.parametrize("wrapper", ["Lightning", "Fabric"])
def test_norm_group_set_on_the_wrapper(wrapper):
    dist = torch.distributed
    opt = ours.SGD([torch.nn.Parameter(torch.ones(2))], max_norm=1.0)
    if wrapper == "Lightning":
        wrapped = lightning.pytorch.core.optimizer.LightningOptimizer(opt)
    else:
        wrapped = lightning.Fabric(accelerator="cpu").setup_optimizers(opt)
    assert wrapped is not opt
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped.norm_group = dist.group.WORLD
        assert wrapped.norm_group is opt.norm_group is dist.group.WORLD
        opt.param_groups[0]["params"][0].grad = torch.tensor([3.0, 4.0])
        opt.step()
        assert wrapped.total_norm == 5.0
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("first", "second"), [(theirs, ours), (ours, theirs)], ids=["from torch", "to torch"])
def test_checkpoint_of_the_other_library(first, second, tmp_path):
    """A training goes on where the other optimizer left it; who clips is the script's affair."""
    trainer, _ = fit(Net(first, "AdamW", clip="step" if first is ours else "client"))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    results = []
    for library in (second, theirs):
        net = Net(library, "AdamW", clip="step" if library is ours else "client")
        results.append(fit(net, ckpt_path=tmp_path / "half.ckpt", max_epochs=2)[1])
    assert_same(*results)
    assert results[0].state_dict["state"][0]["step"] == 32


class Finetuning(Net):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.backbone = torch.nn.Linear(8, 8)

    def training_step(self, x, index):
        return super().training_step(self.backbone(x), index)

    def configure_optimizers(self):
        limit = {"max_norm": LIMIT} if self.clip == "step" else {}
        return self.optimizer_class([p for p in self.parameters() if p.requires_grad], **self.options, **limit)


class Unfreeze(lightning.pytorch.callbacks.BaseFinetuning):
    """The backbone trains from the second epoch on, in a group that is added then."""

    def freeze_before_training(self, module):
        self.freeze(module.backbone)

    def finetune_function(self, module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.backbone, optimizer, initial_denom_lr=2.0)


@pytest.mark.parametrize("clip", ["client", "step"])
def test_groups_added_by_a_callback(clip):
    nets = Finetuning(ours, clip=clip), Finetuning(theirs)
    results = [fit(net, max_epochs=2, callbacks=[Unfreeze()]) for net in nets]
    assert_same(*(run for _, run in results))
    assert len(results[0][0].optimizers[0].param_groups) == 2


def test_groups_made_anew_by_a_callback_are_clipped(tmp_path):
    """On resume the callback sets ``param_groups`` to dicts it has made of them, before the state is loaded."""
    results = []
    for library, clip in ((ours, "step"), (theirs, "client")):
        path = tmp_path / f"{clip}.ckpt"
        fit(Finetuning(library, clip=clip), max_epochs=2, callbacks=[Unfreeze()])[0].save_checkpoint(path)
        net = Finetuning(library, clip=clip)
        results.append(fit(net, max_epochs=3, callbacks=[Unfreeze()], ckpt_path=path)[1])
    assert_same(*results)


# -------------------------------------------------------------------------------------------------------------- Fabric


def fabric_training(library, clip, precision):
    torch.manual_seed(0)
    options = {"precision": precision}
    if precision == "16-mixed":
        scaler = torch.amp.GradScaler("cpu", init_scale=TOO_HIGH, growth_interval=1000)
        options = {"plugins": [fabric_plugins.MixedPrecision(precision, "cpu", scaler)]}
    fabric = lightning.Fabric(accelerator="cpu", **options)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    limit = {"max_norm": LIMIT} if clip == "step" else {}
    model, opt = fabric.setup(model, library.SGD(model.parameters(), lr=0.05, momentum=0.9, **limit))
    losses, norms = [], []
    for x in fabric.setup_dataloaders(data()):
        loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        fabric.backward(loss)
        if clip == "client":
            norms.append(fabric.clip_gradients(model, opt, max_norm=LIMIT, error_if_nonfinite=False).item())
        elif clip == "value":
            fabric.clip_gradients(model, opt, clip_val=0.05)
        opt.step()
        if clip == "step":
            norms.append(opt.total_norm.item())
        opt.zero_grad()
        losses.append(loss.item())
    return training(model, opt, losses), norms, opt


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("clip", ["client", "step", "value"])
def test_fabric_as_torch(precision, clip):
    got, norms, opt = fabric_training(ours, clip, precision)
    expected, reference, _ = fabric_training(theirs, "client" if clip == "step" else clip, precision)
    assert_same(got, expected, **TOLERANCE[precision])
    if clip == "step":
        assert_report(opt, precision, norms, reference)


@pytest.mark.parametrize("library", BOTH, ids=lambda library: library.__name__)
def test_fabric_both_ways_at_once_are_refused_in_16_bits(library):
    torch.manual_seed(0)
    fabric = lightning.Fabric(plugins=[fabric_plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))])
    model = torch.nn.Linear(8, 1)
    limit = {"fused": True} if library is theirs else {"max_norm": LIMIT}
    model, opt = fabric.setup(model, library.SGD(model.parameters(), lr=0.05, **limit))
    fabric.backward(model(torch.ones(2, 8)).sum())
    with pytest.raises(NotImplementedError, match="optimizers handling the unscaling"):
        fabric.clip_gradients(model, opt, max_norm=LIMIT)


def test_command_line_sees_the_arguments(monkeypatch):
    """LightningCLI builds the optimizer from its signature: known arguments are parsed, unknown ones are refused."""
    cli = need("lightning.pytorch.cli")

    class Plain(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

    def build(*arguments):
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls
        monkeypatch.setattr("sys.argv", ["train.py", "--optimizer", "fusedstep.torch.AdamW", *arguments])
        quiet = {"trainer_defaults": {"logger": False, "accelerator": "cpu"}, "seed_everything_default": 0}
        return cli.LightningCLI(Plain, run=False, save_config_callback=None, **quiet)

    stored = ("--optimizer.state_dtype", '{"exp_avg": "bfloat16"}')
    built = build("--optimizer.lr", "0.25", "--optimizer.max_norm", "0.5", "--optimizer.betas", "[0.5,0.75]", *stored)
    assert built.config.optimizer.init_args.lr == 0.25
    opt = cli.instantiate_class(built.model.parameters(), built.config.optimizer.as_dict())
    group = opt.param_groups[0]
    assert (group["lr"], group["max_norm"], group["betas"]) == (0.25, 0.5, (0.5, 0.75))
    assert group["state_dtype"] == {"exp_avg": "bfloat16"}
    with pytest.raises(SystemExit):
        build("--optimizer.learning_rate", "0.25")
