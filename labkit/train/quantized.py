"""Base weights in 4 bits: the linear layers of a model that is still on ``meta``, quantized one by one."""

from collections.abc import Sequence

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from labkit.borrowed.transformers import mark_initialized
from labkit.memory.tracker import host

BLOCK, BLOCK_OF_SCALES = 64, 256
"""Numbers that share a scale, and scales that share one in double quantization."""


def materialize_in_4_bits(
    model: PreTrainedModel, device: str | torch.device, double_quant: bool, unquantized: Sequence[str],
    weight_std: float,
) -> PreTrainedModel:  # fmt: skip
    """Put a model that was built on ``meta`` on ``device`` with random weights, its linear layers in NF4.

    Each layer's weights are made in bf16 and quantized before the next layer's, so the device never holds more than
    the quantized model and one layer. What is named in ``unquantized`` stays in the dtype the model was built in.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=double_quant,
    )
    with host():  # it makes layers on meta, which no device holds, also where the run itself is on meta
        replace_with_bnb_linear(model, list(unquantized), config)
    made: dict[int, nn.Parameter] = {}  # by the one on meta, which several modules may share
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            shape = (module.out_features, module.in_features)
            weight = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0.0, weight_std)
            if weight.is_meta:
                module.weight = _packed_on_meta(weight, double_quant)
                module.quant_state = module.weight.quant_state  # FSDP's own parameters have none
            else:
                options = dict(module.weight.__dict__)
                module.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, **options).to(device)
            del weight  # or it is still there when the next one is made
            if module.bias is not None:
                module.bias = nn.Parameter(torch.zeros_like(module.bias, device=device), requires_grad=False)
            mark_initialized(module)
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device=device))
                setattr(module, name, made[id(parameter)])
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_like(buffer, device=device))
    model.initialize_weights()
    model.tie_weights()
    return model


def _packed_on_meta(weight: torch.Tensor, double_quant: bool) -> nn.Parameter:
    """The storages of a quantized weight, as ``bitsandbytes.functional.quantize_4bit`` makes them; it runs on no meta.

    Two numbers a byte, a scale for each block of 64, a code book; with double quantization a byte a scale, with
    scales, a code book and a mean of their own.
    """
    count = weight.numel()
    meta = {"device": weight.device, "dtype": torch.float32}  # whatever the default is
    scales, state2, offset = -(-count // BLOCK), None, None
    absmax = torch.empty(scales, **meta)
    if double_quant:
        state2 = QuantState(
            absmax=torch.empty(-(-scales // BLOCK_OF_SCALES), **meta), code=torch.empty(256, **meta),
            blocksize=BLOCK_OF_SCALES, dtype=torch.float32,
        )  # fmt: skip
        absmax, offset = torch.empty(scales, dtype=torch.uint8, device=weight.device), torch.empty((), **meta)
    state = QuantState(
        absmax=absmax, shape=weight.shape, code=torch.empty(16, **meta), blocksize=BLOCK, quant_type="nf4",
        dtype=weight.dtype, offset=offset, state2=state2,
    )  # fmt: skip
    packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8, device=weight.device)
    return bitsandbytes.nn.Params4bit(
        packed, requires_grad=False, quant_state=state, quant_type="nf4", compress_statistics=double_quant,
        bnb_quantized=True,
    )  # fmt: skip
