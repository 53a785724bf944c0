"""Models: BLIP-2 by architecture with random weights, and what its parts are."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig

from labkit.borrowed.bitsandbytes import quant_state
from labkit.config.architectures import Architecture, architecture
from labkit.config.schema import RunConfig
from labkit.memory.capture import quantization_tensors
from labkit.memory.tracker import host
from labkit.train.processor import BOS, EOS, IMAGE, PAD, TOKEN_IDS

INITIALIZER_RANGE = 0.02
"""Standard deviation of random weights. ``Blip2VisionConfig`` has 1e-10, with which no image gets through."""

PARTS = {
    "vision": ("vision_model",),
    "connector": ("qformer", "query_tokens", "language_projection"),
    "language": ("language_model",),
}
"""The three parts of BLIP-2 and the attributes that hold them; ``freeze_<part>`` turns one off."""


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that weights are kept in under one of Lightning's precisions."""
    return {"bf16-true": torch.bfloat16, "16-true": torch.float16}.get(precision, torch.float32)


def blip2_config(arch: Architecture, dropout: float | None = None) -> Blip2Config:
    """transformers' config of an architecture with the embedded tokenizer's special ids."""
    rates = {} if dropout is None else {"dropout": dropout, "attention_dropout": dropout, "dropout_rate": dropout}
    qformer_rates = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    text = AutoConfig.for_model(
        arch.language,
        **(arch.text | {k: v for k, v in rates.items() if (k == "dropout_rate") == (arch.language == "t5")}),
        pad_token_id=TOKEN_IDS[PAD],
        eos_token_id=TOKEN_IDS[EOS],
        **({"decoder_start_token_id": TOKEN_IDS[PAD]} if arch.language == "t5" else {"bos_token_id": TOKEN_IDS[BOS]}),
    )
    return Blip2Config(
        vision_config=Blip2VisionConfig(**arch.vision, initializer_range=INITIALIZER_RANGE),
        qformer_config=Blip2QFormerConfig(**(arch.qformer | qformer_rates)),
        text_config=text,
        num_query_tokens=arch.num_query_tokens,
        image_token_index=TOKEN_IDS[IMAGE],
        initializer_range=INITIALIZER_RANGE,
    )


def random_model(config: RunConfig, device: str | torch.device) -> Blip2ForConditionalGeneration:
    """Random weights from ``config.seed``, made on ``device`` in the run's dtype; on ``meta`` nothing is allocated."""
    arch = architecture(config.model_name)
    torch.manual_seed(config.seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(config.precision))
    try:
        if config.use_qlora:
            from labkit.train.quantized import materialize_in_4_bits  # bitsandbytes takes seconds to import

            with host(), torch.device("meta"):  # no device holds it, also where the run itself is on meta
                model = Blip2ForConditionalGeneration(blip2_config(arch, config.dropout))
            materialize_in_4_bits(model, device, config.double_quant, INITIALIZER_RANGE)
        with torch.device(device):
            if not config.use_qlora:
                model = Blip2ForConditionalGeneration(blip2_config(arch, config.dropout))
            _finish_random_weights(model, arch)
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
            kind = _kind(name, owners[name.rpartition(".")[0]])
            others[kind] = others.get(kind, 0) + size_bytes
    if quantized_bytes:
        facts |= {"quantized_bytes": quantized_bytes, "unquantized_bytes": others}
    return facts


def _kind(name: str, owner: nn.Module) -> str:
    """What an unquantized parameter is, in a word."""
    for kind in ("qformer", "lm_head", "wo"):
        if kind in name.split("."):
            return kind
    return "embeddings" if isinstance(owner, nn.Embedding) or "embed" in name else "norms, biases, other"


def part_parameters(model: nn.Module, part: str) -> Iterator[nn.Parameter]:
    """Parameters of ``vision``, ``connector`` or ``language``."""
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in PARTS[part]:
            yield parameter


def _finish_random_weights(model: Blip2ForConditionalGeneration, arch: Architecture) -> None:
    """Mend what transformers' own initialisation leaves unusable for training from scratch."""
    with torch.no_grad():
        model.query_tokens.normal_(0.0, 0.5)  # zeros make all queries the same, and no image can be told apart
        if arch.language == "t5":
            # transformers ties T5's output layer; flan-t5 checkpoints hold one of their own
            head = model.language_model.lm_head
            head.weight = nn.Parameter(torch.empty_like(head.weight).normal_(0.0, INITIALIZER_RANGE))
            for owner in (model, model.language_model):
                tied = owner.all_tied_weights_keys
                for key in [k for k in tied if k.endswith("lm_head.weight")]:
                    del tied[key]
