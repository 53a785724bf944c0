"""Models: one by its architecture with random weights, and what a model's weights are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from labkit.borrowed.bitsandbytes import quant_state
from labkit.config.catalogue.models import FAMILIES
from labkit.config.precision import DTYPES
from labkit.config.schema import RunConfig
from labkit.families.known import family_of
from labkit.memory.owners import quantization_tensors
from labkit.memory.tracker import host


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that weights are kept in under one of Lightning's precisions."""
    return getattr(torch, DTYPES[precision].weights)


def autocast_dtype_of(precision: str) -> torch.dtype | None:
    """The dtype that autocast computes in under one of them; None where nothing is cast."""
    name = DTYPES[precision].autocast
    return None if name is None else getattr(torch, name)


def random_model(config: RunConfig, device: str | torch.device) -> PreTrainedModel:
    """Random weights from ``config.seed``, made on ``device`` in the run's dtype; on ``meta`` nothing is allocated."""
    family = family_of(config.architecture)
    sizes = family.config(config.architecture)
    if config.dropout is not None:
        family.set_dropout(sizes, config.dropout)
    torch.manual_seed(config.seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(config.precision))
    try:
        if config.use_qlora:
            from labkit.train.quantized import materialize_in_4_bits  # bitsandbytes takes seconds to import

            with host(), torch.device("meta"):  # no device holds it, also where the run itself is on meta
                model = family.model_class(sizes)
            materialize_in_4_bits(
                model, device, config.double_quant, config.architecture.unquantized, family.weight_std
            )
        with torch.device(device):
            if not config.use_qlora:
                model = family.model_class(sizes)
            family.fix_random_weights(model)
    finally:
        torch.set_default_dtype(before)
    return model


def weight_facts(model: nn.Module) -> dict[str, Any]:
    """``parameters`` and ``trainable`` in numbers, ``parameter_bytes``; of a model in 4 bits also what is in them.

    ``quantized_bytes`` are the 4-bit weights with their scales, ``unquantized_bytes`` the others by what they are; the
    adapters are not among these.
    """
    facts: dict[str, Any] = {"parameters": 0, "trainable": 0, "parameter_bytes": 0}
    quantized_bytes, others = 0, {}
    owners = dict(model.named_modules())
    unquantized = FAMILIES[model.config.model_type].unquantized
    for name, parameter in model.named_parameters():
        state = quant_state(parameter)
        size_bytes = parameter.nbytes + sum(t.nbytes for t in quantization_tensors(parameter))
        numbers = parameter.numel() if state is None else state.shape.numel()
        facts["parameters"] += numbers
        facts["trainable"] += numbers if parameter.requires_grad else 0
        facts["parameter_bytes"] += size_bytes
        if state is not None:
            quantized_bytes += size_bytes
        elif ".lora_" not in name:
            kind = _kind(name, owners[name.rpartition(".")[0]], unquantized)
            others[kind] = others.get(kind, 0) + size_bytes
    if quantized_bytes:
        facts |= {"quantized_bytes": quantized_bytes, "unquantized_bytes": others}
    return facts


def _kind(name: str, owner: nn.Module, unquantized: Sequence[str]) -> str:
    """What an unquantized parameter is, in a word."""
    for kind in unquantized:
        if kind in name.split(".")[:-1]:
            return kind
    return "embeddings" if isinstance(owner, nn.Embedding) or "embed" in name else "norms, biases, other"
