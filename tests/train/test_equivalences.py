"""Equivalences that the labs claim, in numbers: what gives the same update, and what does not."""

import functools
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

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
ROUNDING = 1e-4  # of the length of the update, in float32
both = pytest.mark.parametrize("name", [OPT, T5])


def make_config(name, **keys):
    small = {
        "capacity_gib": 1, "num_workers": 0, "max_length": 16, "dropout": 0.0, "max_epochs": 1, "optim": "sgd",
        "weights": "random", "lr": 0.1, "num_train_samples": 64,
    }  # fmt: skip
    return RunConfig(model_name=name, **(small | keys))


def loader_of(config):
    arch = architecture(config.model_name)
    collate = Collator(Blip2Family().processor(arch), arch.language, config.max_length, arch.num_query_tokens, 4)
    return build_loader(config, load_samples(config, Path())[0], collate, train=True)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@functools.lru_cache(maxsize=8)  # several tests compare with the same run
def train(config):
    """Weights after the run and the losses of its optimizer steps."""
    seed_everything(config.seed, workers=True, verbose=False)
    module = CaptionModule(config, build_model(config, "cpu"))
    trainer = Trainer(
        accelerator="cpu", max_epochs=config.max_epochs, accumulate_grad_batches=config.accumulate_grad_batches,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader_of(config))
    return weights(module.model), module.take_losses()


def start(config):
    return weights(build_model(config, "cpu"))


def apart(one, other, config):
    """Distance of two results as a share of the way from the start."""
    return ((one - other).norm() / (one - start(config)).norm()).item()


def by_hand(config, group_loss):
    """Plain SGD over groups of micro batches; ``group_loss`` takes the (loss, tokens) of each."""
    model = build_model(config, "cpu")
    batches, losses = list(loader_of(config)), []
    for first in range(0, len(batches), config.accumulate_grad_batches):
        group = batches[first : first + config.accumulate_grad_batches]
        loss = group_loss([step_loss(model, batch) for batch in group])
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= config.lr * parameter.grad
                parameter.grad = None
    return weights(model), losses


def mean_of_tokens(parts):
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)


def mean_of_batches(parts):
    return sum(loss for loss, _ in parts) / len(parts)


@both
def test_four_batches_of_16_give_the_update_of_one_of_64(name):
    one = make_config(name, batch_size=64)
    four = make_config(name, batch_size=16, accumulate_grad_batches=4)
    (expected, losses), (found, same) = train(one), train(four)
    assert apart(expected, found, one) < ROUNDING
    assert len(losses) == 1
    assert same == pytest.approx(losses, rel=1e-6)


@both
def test_global_batch_size_gives_the_update_of_that_batch(name):
    one, some = make_config(name, batch_size=64), make_config(name, batch_size=32, global_batch_size=64)
    assert apart(train(one)[0], train(some)[0], one) < ROUNDING


@both
def test_a_mean_of_means_does_not(name):
    one = make_config(name, batch_size=64)
    four = make_config(name, batch_size=16, accumulate_grad_batches=4, loss_average="batches")
    (expected, losses), (found, others) = train(one), train(four)
    assert apart(expected, found, one) > 10 * ROUNDING  # captions differ in length, and so do the batches' weights
    assert others != pytest.approx(losses, rel=1e-6)


@both
def test_without_accumulation_both_averages_are_one(name):
    tokens, batches = (make_config(name, batch_size=16, loss_average=average) for average in ("tokens", "batches"))
    (expected, losses), (found, same) = train(tokens), train(batches)
    assert apart(expected, found, tokens) < ROUNDING
    assert same == pytest.approx(losses, rel=1e-5)


@both
@pytest.mark.parametrize(("average", "group_loss"), [("tokens", mean_of_tokens), ("batches", mean_of_batches)])
@pytest.mark.parametrize("samples", [32, 48], ids=["whole groups", "a last smaller group"])
def test_every_step_of_a_run_is_the_one_computed_by_hand(name, average, group_loss, samples):
    config = make_config(name, batch_size=8, accumulate_grad_batches=4, num_train_samples=samples, loss_average=average)
    (expected, losses), (found, same) = by_hand(config, group_loss), train(config)
    assert len(losses) == (samples + 31) // 32
    assert same == pytest.approx(losses, rel=1e-5)
    assert apart(expected, found, config) < ROUNDING


def test_adamw_moves_the_same_way_too():
    one = make_config(OPT, batch_size=64, optim="adamw", lr=1e-3)
    four = make_config(OPT, batch_size=16, accumulate_grad_batches=4, optim="adamw", lr=1e-3)
    expected, found = train(one)[0], train(four)[0]
    # where a gradient is rounding only, Adam makes a whole step of its sign: count these instead of measuring them
    assert ((expected - found).abs() > 0.01 * one.lr).float().mean() < 0.01
    assert apart(expected, found, one) < 0.1


@both
def test_activation_checkpointing_trains_the_same_model(name):
    keys = {"batch_size": 16, "dropout": 0.1}
    plain, saving = make_config(name, **keys), make_config(name, act_ckpt=True, **keys)
    (expected, losses), (found, same) = train(plain), train(saving)
    assert same == pytest.approx(losses, rel=1e-6)
    assert apart(expected, found, plain) < ROUNDING


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
@pytest.mark.parametrize("impl", ["fused", "for-loop"])
def test_the_implementation_of_an_optimizer_changes_nothing(optim, impl):
    keys = {"batch_size": 16, "num_train_samples": 32, "optim": optim, "lr": 1e-3}
    foreach, other = make_config(OPT, **keys), make_config(OPT, optim_impl=impl, **keys)
    (expected, losses), (found, same) = train(foreach), train(other)
    assert same == pytest.approx(losses, rel=1e-5)
    assert apart(expected, found, foreach) < 10 * ROUNDING


@both
def test_longer_padding_trains_the_same_model(name):
    keys = {"batch_size": 16, "num_train_samples": 32}
    short, long = make_config(name, max_length=24, **keys), make_config(name, max_length=50, **keys)
    (expected, losses), (found, same) = train(short), train(long)
    assert same == pytest.approx(losses, rel=1e-5)
    assert apart(expected, found, short) < ROUNDING
