"""Paged: the optimizer state that bitsandbytes keeps in memory which CUDA moves as it is used."""

import dataclasses
from collections.abc import Iterable

import torch

from labkit.borrowed.bitsandbytes import set_state_buffers
from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.train.optimizers import build_optimizer

LEAST_NUMBERS = 100_000
"""Weights with fewer keep their state on the GPU (``Optimizer8bit.get_state_buffer`` of bitsandbytes 0.50)."""


def build_paged(config: RunConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The 8-bit optimizer with its state where the paged one has it; that one itself needs a GPU.

    The allocator holds nothing of it. What the driver has brought to the GPU at a time is not planned.
    """
    optimizer = build_optimizer(dataclasses.replace(config, optim="adam_8bit"), parameters)
    set_state_buffers(optimizer, _state_buffer)
    return optimizer


def _state_buffer(parameter: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    if parameter.numel() < LEAST_NUMBERS:
        return torch.zeros_like(parameter, dtype=dtype)
    with host():
        buffer = torch.zeros_like(parameter, dtype=dtype)
    buffer.is_paged = True  # type: ignore[attr-defined]
    return buffer
