"""Build the model of a run: from its checkpoint or with random weights, in the run's dtype, on the run's device."""

import torch
from transformers import PreTrainedModel

from labkit.borrowed.bitsandbytes import keep_packing
from labkit.borrowed.transformers import checkpoint_activations
from labkit.config.schema import RunConfig
from labkit.train.models import random_model
from labkit.train.weights import find_weights, load_model


def build_model(config: RunConfig, device: str | torch.device) -> PreTrainedModel:
    """The model of a run, in train mode: its checkpoint, or random weights from ``config.seed``.

    Weights are made on ``device`` in the run's dtype, in 4 bits with ``use_qlora``, so there is never a second copy.
    Random weights on ``meta`` allocate nothing. Parts named by ``freeze_*`` do not require gradients. Raises
    ``CheckpointError`` for a checkpoint that is not here or cannot be used.
    """
    if config.weights == "pretrained":
        model = load_model(config, find_weights(config.model_name), device)
    else:
        model = random_model(config, device)
    frozen = config.frozen
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in frozen:
            parameter.requires_grad_(False)
    if config.act_ckpt:
        checkpoint_activations(model, {"use_reentrant": False})
    keep_packing(model)
    # a model in eval mode skips activation checkpointing silently
    return model.train()
