"""Base weights in 4 bits: the linear layers of a model that is still on ``meta``, quantized one by one."""

import bitsandbytes
import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

KEPT = ("lm_head", "qformer", "query_tokens", "wo")
"""What transformers does not quantize in BLIP-2: the output layer, the Q-Former, and ``wo`` of every T5 layer."""


def materialize_in_4_bits(
    model: PreTrainedModel, device: str | torch.device, double_quant: bool, weight_std: float
) -> PreTrainedModel:
    """Put a model that was built on ``meta`` on ``device`` with random weights, its linear layers in NF4.

    Each layer's weights are made in bf16 and quantized before the next layer's, so the device never holds more than
    the quantized model and one layer. What is in ``KEPT`` stays in the dtype the model was built in.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=double_quant,
    )
    replace_with_bnb_linear(model, list(KEPT), config)
    made: dict[int, nn.Parameter] = {}  # by the one on meta, which several modules may share
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            shape = (module.out_features, module.in_features)
            weight = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0.0, weight_std)
            options = dict(module.weight.__dict__)
            module.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, **options).to(device)
            del weight  # or it is still there when the next one is made
            if module.bias is not None:
                module.bias = nn.Parameter(torch.zeros_like(module.bias, device=device), requires_grad=False)
            module._is_hf_initialized = module.weight._is_hf_initialized = True  # transformers would draw it again
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
