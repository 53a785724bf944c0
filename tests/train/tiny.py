"""Tiny models and batches for tests of what is put onto a model."""

import torch
from torch import nn

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.step import step_loss

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-large"


def config_of(name, **keys):
    """A config of random weights that needs no profile."""
    return RunConfig(model_name=name, **({"capacity_gib": 1, "weights": "random"} | keys))


def plain(name, **keys):
    """The model alone, as ``config_of`` has it."""
    return build_model(config_of(name, **keys), "cpu")


def language_of(name):
    return architecture(name).language


def make_batch(name, model, samples=4):
    """Emoji and their names."""
    arch, emoji = architecture(name), EmojiZip(assets.FLUENT_EMOJI)
    processor = Blip2Family().processor(arch)
    collate = Collator(processor, arch.language, 16, arch.num_query_tokens, model.config.image_token_id)
    batch = collate([emoji[i] for i in range(samples)])
    batch["pixel_values"] = batch["pixel_values"].to(model.query_tokens.dtype)
    return batch


def logits_of(name, model):
    """Logits of one batch without dropout; the model is in train mode afterwards."""
    model.eval()
    with torch.no_grad():
        found = model(**make_batch(name, model)).logits
    model.train()
    return found


def train(name, model, steps=2):
    """Let the parameters that are trained move; the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch, losses = make_batch(name, model), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = step_loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def linear_shapes(model):
    """Shapes (out, in) of the linear layers by name."""
    return {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
