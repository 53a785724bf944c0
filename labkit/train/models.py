"""Build the models: BLIP-2 by architecture, in the run's dtype, on the run's device."""

from collections.abc import Iterator

import torch
from torch import nn
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig

from labkit.config.architectures import Architecture, architecture
from labkit.config.schema import RunConfig
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
        **arch.text,
        **{k: v for k, v in rates.items() if (k == "dropout_rate") == (arch.language == "t5")},
        pad_token_id=TOKEN_IDS[PAD],
        eos_token_id=TOKEN_IDS[EOS],
        **({"decoder_start_token_id": TOKEN_IDS[PAD]} if arch.language == "t5" else {"bos_token_id": TOKEN_IDS[BOS]}),
    )
    return Blip2Config(
        vision_config=Blip2VisionConfig(**arch.vision, initializer_range=INITIALIZER_RANGE),
        qformer_config=Blip2QFormerConfig(**arch.qformer, **qformer_rates),
        text_config=text,
        num_query_tokens=arch.num_query_tokens,
        image_token_index=TOKEN_IDS[IMAGE],
        initializer_range=INITIALIZER_RANGE,
    )


def build_model(config: RunConfig, device: str | torch.device) -> Blip2ForConditionalGeneration:
    """The model of a run with random weights from ``config.seed``, in train mode.

    Weights are made on ``device`` in the run's dtype, so there is never a second copy. On ``meta`` nothing is
    allocated. Parts named by ``freeze_*`` do not require gradients.
    """
    arch = architecture(config.model_name)
    torch.manual_seed(config.seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(config.precision))
    try:
        with torch.device(device):
            model = Blip2ForConditionalGeneration(blip2_config(arch, config.dropout))
            _finish_random_weights(model, arch)
    finally:
        torch.set_default_dtype(before)
    for part in PARTS:
        if getattr(config, f"freeze_{part}"):
            for parameter in part_parameters(model, part):
                parameter.requires_grad_(False)
    if config.act_ckpt:
        # renamed in transformers 5.2x; both names are tried, since GPU machines have older releases
        name = "activation_checkpointing_enable"
        enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
        enable({"use_reentrant": False})
    # a model in eval mode skips activation checkpointing without a word
    return model.train()


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
