"""The tokenizer that ships with labkit, for models with random weights: there is nothing to download."""

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from labkit import assets

PAD, EOS, BOS, UNKNOWN, IMAGE = "<pad>", "</s>", "<s>", "<unk>", "<image>"
TOKEN_IDS = {PAD: 0, EOS: 1, BOS: 2, UNKNOWN: 3, IMAGE: 4}
"""Ids of the embedded tokenizer's special tokens; ``labkit/assets/make.py`` writes them in this order."""


def embedded_tokenizer(language: str) -> PreTrainedTokenizerFast:
    """The tokenizer that ships with the package: ``<s>`` in front for OPT, ``</s>`` after for T5."""
    tokenizer = Tokenizer.from_file(str(assets.TOKENIZER))
    if language == "opt":
        template = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, TOKEN_IDS[BOS])])
    else:
        template = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, TOKEN_IDS[EOS])])
    tokenizer.post_processor = template
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD, eos_token=EOS, bos_token=BOS, unk_token=UNKNOWN,
        padding_side="right",
    )  # fmt: skip
