"""The step: the loss of one micro batch. Shared by training and planning."""

import torch

from labkit.families.batch import IGNORED


def step_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss over the scored tokens of one micro batch, and their number; both stay on the device."""
    # without use_cache=False the decoders fill a cache of keys and values that is not read
    loss = model(**batch, use_cache=False).loss
    return loss, (batch["labels"] != IGNORED).sum()
