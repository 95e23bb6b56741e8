"""transformers' Trainer and peft: who clips, accumulation, checkpoints of the other library, LoRA."""

from __future__ import annotations

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import assert_same, need, training, warns

transformers = need("transformers")
need("accelerate")
pytestmark = warns("transformers")

ours, theirs = fusedstep.torch, torch.optim
TOKENS = torch.randint(64, (48, 16), generator=torch.Generator().manual_seed(0))


def tiny():
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return transformers.LlamaForCausalLM(config)


def trainer_of(library, name="AdamW", model=None, max_grad_norm=0.5, optimizer=None, options=None, **arguments):
    args = transformers.TrainingArguments(
        output_dir="out", max_steps=6, per_device_train_batch_size=8, logging_steps=1, save_steps=3, report_to="none",
        use_cpu=True, disable_tqdm=True, weight_decay=0.1, max_grad_norm=max_grad_norm, **arguments,
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in TOKENS]
    model = tiny() if model is None else model
    if optimizer is not None:
        return transformers.Trainer(model, args, train_dataset=data, optimizers=(optimizer, None))
    cls = getattr(library, name), {"lr": 0.01, **(options or {})}
    return transformers.Trainer(model, args, train_dataset=data, optimizer_cls_and_kwargs=cls)


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def trained(trainer, **resume):
    trainer.train(**resume)
    return training(trainer.model, trainer.optimizer, logged(trainer, "loss"))


@pytest.mark.parametrize(
    "arguments", [{}, {"gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine"}, {"bf16": True}], ids=str
)
@pytest.mark.parametrize("clip", ["client", "step"])
def test_as_torch(arguments, clip):
    limit = {"max_grad_norm": 0.0, "options": {"max_norm": 0.5}} if clip == "step" else {}
    trainer, reference = trainer_of(ours, **limit, **arguments), trainer_of(theirs, **arguments)
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if arguments.get("bf16") else {}
    assert_same(trained(trainer), trained(reference), **tolerance)
    norms = logged(trainer, "grad_norm")  # measured by the Trainer, whoever clips
    assert norms == pytest.approx(logged(reference, "grad_norm"), rel=1e-2)
    assert any(norm > 0.5 for norm in norms)
    opt = trainer.optimizer.optimizer
    assert [group["weight_decay"] for group in opt.param_groups] == [0.1, 0.0]
    if clip == "step":
        assert opt.total_norm.item() == pytest.approx(norms[-1], rel=1e-5)
        assert opt.clipped_steps == sum(norm > 0.5 for norm in norms)


def test_an_optimizer_made_by_hand():
    runs = []
    for library in (ours, theirs):
        model = tiny()
        opt = library.SGD(model.parameters(), lr=0.1, momentum=0.9)
        runs.append(trained(trainer_of(library, model=model, optimizer=opt)))
    assert_same(*runs)


@pytest.mark.parametrize(("first", "second"), [(theirs, ours), (ours, theirs)], ids=["from torch", "to torch"])
def test_checkpoint_of_the_other_library(first, second):
    def limits(library):
        return {"max_grad_norm": 0.0, "options": {"max_norm": 0.5}} if library is ours else {}

    whole = trained(trainer_of(first, **limits(first)))
    rest = trained(trainer_of(second, **limits(second)), resume_from_checkpoint="out/checkpoint-3")
    assert_same(rest, whole)


@pytest.mark.parametrize("options", [{}, {"state_dtype": "bfloat16"}], ids=str)
def test_a_model_that_was_saved_as_bfloat16(options):
    """transformers 5 loads it as that. It trains, clips, and goes on from a checkpoint with equal bits."""
    tiny().bfloat16().save_pretrained("model")

    def loaded():
        model = transformers.AutoModelForCausalLM.from_pretrained("model")
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        return model

    def trainer():
        return trainer_of(ours, model=loaded(), max_grad_norm=0.0, options={"max_norm": 0.5, **options})

    whole = trained(trainer())
    assert whole.optimizer.clipped_steps > 0
    rest = trained(trainer(), resume_from_checkpoint="out/checkpoint-3")
    assert_same(rest, whole, rtol=0, atol=0)
    low = getattr(torch, options.get("state_dtype", "float32"))
    for kept in rest.state_dict["state"].values():
        assert (kept["exp_avg"].dtype, kept["exp_avg_sq"].dtype) == (low, low)
        assert ("tensor_id" in kept) == (low is torch.bfloat16)
    beside = trained(trainer_of(theirs, model=loaded()))  # with state in bfloat16
    assert whole.losses == pytest.approx(beside.losses, abs=0.05)

    model, losses = loaded(), []
    opt = ours.AdamW(model.parameters(), lr=0.01, max_norm=0.5, **options)
    for _ in range(30):  # all of the data in each step: it is soon known by heart
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def lora():
    peft = need("peft")
    return peft.get_peft_model(tiny(), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def test_trainer_of_an_adapter():
    runs = []
    for library, limit in ((ours, {"max_grad_norm": 0.0, "options": {"max_norm": 0.05}}), (theirs, {})):
        need("peft")
        whole = trained(trainer_of(library, model=lora(), **(limit or {"max_grad_norm": 0.05})))
        resumed = trainer_of(library, model=lora(), **(limit or {"max_grad_norm": 0.05}))
        assert_same(trained(resumed, resume_from_checkpoint="out/checkpoint-3"), whole)
        runs.append(whole)
    assert_same(*runs)
    assert runs[0].optimizer.clipped_steps > 0


def test_lora_plus():
    """Four groups with learning rates of their own, made by peft from a class."""
    need("peft")
    from peft.optimizers import create_loraplus_optimizer

    runs = []
    for library, limit in ((ours, {"max_norm": 0.005}), (theirs, {})):
        model = lora()
        opt = create_loraplus_optimizer(model, library.AdamW, lr=0.01, loraplus_lr_ratio=4.0, **limit)
        losses = []
        for _ in range(4):
            loss = model(input_ids=TOKENS, labels=TOKENS).loss
            loss.backward()
            if not limit:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.005)
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
        runs.append(training(model, opt, losses))
    assert_same(*runs)
    assert {group["lr"] for group in runs[0].optimizer.param_groups} >= {0.01, 0.04}
    assert runs[0].optimizer.clipped_steps > 0


@pytest.mark.parametrize("state_dtype", [None, "bfloat16"])
def test_a_model_loaded_as_bfloat16_trains_and_goes_on_from_a_checkpoint(state_dtype):
    """As transformers 5 loads what was saved as bfloat16."""
    tiny().bfloat16().save_pretrained("saved")
    options = {"max_grad_norm": 0.0, "options": {"max_norm": 0.5, "state_dtype": state_dtype}}

    def loaded():
        model = transformers.AutoModelForCausalLM.from_pretrained("saved")
        assert model.dtype == torch.bfloat16
        return model

    whole = trained(trainer_of(ours, model=loaded(), **options))
    resumed = trainer_of(ours, model=loaded(), **options)
    assert_same(trained(resumed, resume_from_checkpoint="out/checkpoint-3"), whole, rtol=0, atol=0)
    dtypes = {v.dtype for state in resumed.optimizer.state.values() for v in state.values() if getattr(v, "ndim", 0)}
    assert dtypes == {torch.bfloat16 if state_dtype else torch.float32}
    assert not any(torch.equal(p, whole.parameters[name]) for name, p in loaded().named_parameters())
