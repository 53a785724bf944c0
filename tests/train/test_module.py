"""CaptionModule under Lightning: losses, validation, schedules, low precision, and the same run twice."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.train.build import build_model
from labkit.train.data import build_loader, load_samples
from labkit.train.module import CaptionModule
from labkit.train.step import step_loss

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
SMALL = {
    "weights": "random", "capacity_gib": 1,
    "num_workers": 0, "max_length": 16, "batch_size": 4, "num_train_samples": 16, "max_epochs": 1,
    "optim": "sgd", "lr": 0.1,
}  # fmt: skip
both = pytest.mark.parametrize("name", [OPT, T5])


def make_config(name, **keys):
    return RunConfig(model_name=name, **(SMALL | keys))


def loaders_of(config):
    arch = architecture(config.model_name)
    collate = Collator(Blip2Family().processor(arch), arch.language, config.max_length, arch.num_query_tokens, 4)
    train, held_out = load_samples(config, Path())
    loaders = [build_loader(config, train, collate, train=True)]
    return loaders if held_out is None else [*loaders, build_loader(config, held_out, collate, train=False)]


def train(config):
    seed_everything(config.seed, workers=True, verbose=False)
    module = CaptionModule(config, build_model(config, "cpu"))
    trainer = Trainer(
        accelerator="cpu", precision=config.precision, max_epochs=config.max_epochs, max_steps=config.max_steps or -1,
        accumulate_grad_batches=config.accumulate_grad_batches, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, *loaders_of(config))
    return module, trainer


@pytest.mark.slow
@pytest.mark.parametrize(("name", "optim"), [(OPT, "sgd"), (OPT, "adam_8bit"), (T5, "adamw")])
def test_two_runs_with_one_seed_have_bit_identical_losses(name, optim):
    config = make_config(name, optim=optim, lr=1e-3, val_fraction=0.25, max_epochs=2)  # with the default dropout
    configs = (config, config, make_config(name, optim=optim, lr=1e-3, seed=1))
    first, again, other = (train(c)[0] for c in configs)
    losses = first.take_losses()
    assert len(losses) == 6
    assert losses == again.take_losses()
    assert first.validation_losses == again.validation_losses
    assert losses[:3] != other.take_losses()[:3]


@pytest.mark.slow
@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_training_lowers_the_loss_in_every_precision(name, precision):
    config = make_config(name, precision=precision, max_epochs=4, optim="adamw", lr=1e-3)
    losses = train(config)[0].take_losses()
    assert len(losses) == 16
    assert all(map(math.isfinite, losses))
    assert losses[0] == pytest.approx(math.log(1000), rel=0.1)
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.slow
@both
def test_the_validation_loss_is_the_mean_over_all_held_out_tokens(name):
    config = make_config(name, num_train_samples=20, val_fraction=0.35, max_epochs=2)  # 7 held out: batches of 4 and 3
    module, _ = train(config)
    assert len(module.validation_losses) == 2
    total, tokens = 0.0, 0
    module.model.eval()
    with torch.no_grad():
        for batch in loaders_of(config)[1]:
            loss, count = step_loss(module.model, batch)
            total, tokens = total + loss.item() * count.item(), tokens + count.item()
    assert module.validation_losses[-1] == pytest.approx(total / tokens, rel=1e-6)
    assert module.validation_losses[0] != module.validation_losses[1]


@pytest.mark.slow
@both
def test_validation_does_not_change_the_training(name):
    config = make_config(name, num_train_samples=20, val_fraction=0.2, max_epochs=2, dropout=0.1)
    module, _ = train(config)

    class Bare(CaptionModule):
        validation_step = None

    seed_everything(config.seed, workers=True, verbose=False)
    bare = Bare(config, build_model(config, "cpu"))
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(bare, loaders_of(config)[0])
    assert module.model.training
    assert module.take_losses() == bare.take_losses()


def test_losses_are_taken_once():
    module, _ = train(make_config(OPT))
    assert len(module.take_losses()) == 4
    assert module.take_losses() == []


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 5), (2, 3), (4, 2), (5, 1), (7, 1)])
def test_there_is_one_loss_an_optimizer_step(accumulate, steps):
    config = make_config(OPT, num_train_samples=20, accumulate_grad_batches=accumulate)
    module, trainer = train(config)
    assert len(module.take_losses()) == trainer.global_step == steps


@pytest.mark.slow
def test_max_steps_ends_a_run():
    module, trainer = train(make_config(OPT, max_steps=3, max_epochs=5, accumulate_grad_batches=2))
    assert len(module.take_losses()) == trainer.global_step == 3


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, {"accumulate_grad_batches": 3}, {"max_steps": 3}, {"max_epochs": 2}])
def test_the_schedule_ends_at_the_last_optimizer_step(keys):
    _, trainer = train(make_config(OPT, lr_schedule="linear", **keys))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


@pytest.mark.slow
def test_the_schedule_warms_up_by_optimizer_steps():
    keys = {"num_train_samples": 24, "accumulate_grad_batches": 2, "warmup_steps": 4, "lr": 1.0}  # 3 optimizer steps
    _, trainer = train(make_config(OPT, **keys))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.75)


@pytest.mark.slow
@both
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_in_bf16_gradients_are_divided_by_the_tokens_of_all_micro_batches(name, precision):
    config = make_config(name, precision=precision, accumulate_grad_batches=4, dropout=0.0, lr=1e-6)
    module, _ = train(config)
    whole = make_config(name, batch_size=16, dropout=0.0)  # float32, one batch
    model = build_model(whole, "cpu")
    model.load_state_dict(build_model(config, "cpu").float().state_dict())
    step_loss(model, next(iter(loaders_of(whole)[0])))[0].backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    found = torch.cat([p.grad.flatten().float() for p in module.model.parameters()])
    assert {p.grad.dtype for p in module.model.parameters()} == {p.dtype for p in module.model.parameters()}
    assert found.norm().item() == pytest.approx(expected.norm().item(), rel=0.02)
    assert (found - expected).norm() / expected.norm() < 0.05


@pytest.mark.slow
@both
def test_frozen_parts_stay_as_they_are(name):
    config = make_config(name, freeze_vision=True, freeze_language=True)
    module, _ = train(config)
    before = dict(build_model(config, "cpu").named_parameters())
    for key, weight in module.model.named_parameters():
        frozen = key.split(".")[0] in ("vision_model", "language_model")
        assert torch.equal(weight, before[key]) == frozen or weight.grad.abs().max() < 1e-6, key
