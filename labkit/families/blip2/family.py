"""The family BLIP-2: how a model of it is built, fed and read."""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from labkit.config.catalogue.blip2 import Blip2
from labkit.families.blip2.inputs import Collator
from labkit.families.blip2.stages import Blip2Stages, part_of
from labkit.families.family import Family
from labkit.families.tokenizer import BOS, EOS, IMAGE, PAD, TOKEN_IDS, embedded_tokenizer

_OWN_HEAD = "language_model.lm_head.weight"


class Blip2Family(Family[Blip2, Blip2Config, Blip2ForConditionalGeneration, Blip2Processor]):
    """BLIP-2 of transformers."""

    model_class = Blip2ForConditionalGeneration
    processor_class = Blip2Processor

    def config(self, arch: Blip2) -> Blip2Config:
        """``Blip2VisionConfig`` alone has a standard deviation of 1e-10, with which no image gets through."""
        ends = {"pad_token_id": TOKEN_IDS[PAD], "eos_token_id": TOKEN_IDS[EOS]}
        starts = "decoder_start_token_id" if arch.language == "t5" else "bos_token_id"
        ends[starts] = TOKEN_IDS[PAD if arch.language == "t5" else BOS]
        return Blip2Config(
            vision_config=Blip2VisionConfig(**arch.vision, initializer_range=self.weight_std),
            qformer_config=Blip2QFormerConfig(**arch.qformer),
            text_config=AutoConfig.for_model(arch.language, **arch.text, **ends),
            num_query_tokens=arch.num_query_tokens,
            image_token_index=TOKEN_IDS[IMAGE],
            initializer_range=self.weight_std,
        )

    def set_dropout(self, config: Blip2Config, rate: float) -> None:
        """In the Q-Former and the language model; the vision tower has none."""
        text, qformer = part_of(config, "text"), part_of(config, "qformer")
        for key in ("dropout_rate",) if text.model_type == "t5" else ("dropout", "attention_dropout"):
            setattr(text, key, rate)
        qformer.hidden_dropout_prob = qformer.attention_probs_dropout_prob = rate

    def fix_random_weights(self, model: Blip2ForConditionalGeneration) -> None:
        """The queries, and T5's output layer: transformers ties it, flan-t5 checkpoints hold one of their own."""
        with torch.no_grad():
            model.query_tokens.normal_(0.0, 0.5)  # zeros make all queries the same, and no image can be told apart
            if part_of(model.config, "text").model_type == "t5":
                head = model.language_model.lm_head
                head.weight = nn.Parameter(torch.empty_like(head.weight).normal_(0.0, self.weight_std))
                _forget_tie(model)

    def own_head(self, config: Blip2Config) -> str | None:
        """T5 v1.1 has an output layer of its own; the second key says what ``tie_word_embeddings`` does not."""
        text = part_of(config, "text")
        return _OWN_HEAD if text.model_type == "t5" and not text.scale_decoder_outputs else None

    def untie_head(self, model: Blip2ForConditionalGeneration) -> None:
        """transformers ties any T5's, unless both differ in the checkpoint."""
        language = model.language_model
        if language.lm_head.weight is language.shared.weight:
            language.lm_head.weight = nn.Parameter(language.shared.weight.detach().clone())
        _forget_tie(model)

    def processor(self, arch: Blip2) -> Blip2Processor:
        """Real image processing, and the tokenizer that ships with labkit."""
        images = BlipImageProcessorPil(size={"height": arch.image_px, "width": arch.image_px})
        return Blip2Processor(images, embedded_tokenizer(arch.language), num_query_tokens=arch.num_query_tokens)

    def fault_of(self, processor: Blip2Processor, config: Blip2Config) -> str | None:
        """Marks, vocabulary and placeholder; sets ``image_token_index`` where it is open.

        The number of placeholders is ``config.num_query_tokens``; a processor saved by an older release does not know
        it.
        """
        tokenizer, text = processor.tokenizer, part_of(config, "text")
        if tokenizer.pad_token_id != text.pad_token_id:
            return f"it pads with id {tokenizer.pad_token_id}, the model with {text.pad_token_id}"
        if tokenizer.eos_token_id is None:
            return "it has no end mark"
        mark, name = (text.bos_token_id, "start") if text.model_type == "opt" else (tokenizer.eos_token_id, "end")
        if (alone := tokenizer("")["input_ids"]) != [mark]:
            return f"an empty text gives the ids {alone}, and should give the {name} mark {[mark]}"
        if config.image_token_index is None:
            # Blip2Processor has added the placeholder where the tokenizer had none
            config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE)
            if config.image_token_index >= text.vocab_size:
                return f"the model's {text.vocab_size} embeddings have no row for the placeholder {IMAGE}"
        return _fault_of_placeholder(tokenizer, config.image_token_index, text.vocab_size)

    def collate(self, processor: Blip2Processor, config: Blip2Config, max_length: int) -> Collator:
        """Placeholders for the image, as many as there are queries, and the caption."""
        return Collator(
            processor, part_of(config, "text").model_type, max_length, config.num_query_tokens, config.image_token_id
        )

    def stages(self, model: Blip2ForConditionalGeneration) -> Blip2Stages:
        """Layers of the vision tower, the Q-Former, layers of OPT or T5's encoder and decoder."""
        return Blip2Stages(model)


def _forget_tie(model: Blip2ForConditionalGeneration) -> None:
    """What saving and sharding go by."""
    for owner in (model, model.language_model):
        tied = owner.all_tied_weights_keys
        for key in [k for k in tied if k.endswith("lm_head.weight")]:
            del tied[key]


def _fault_of_placeholder(tokenizer: Any, index: int, rows: int) -> str | None:
    words = len(tokenizer)
    if tokenizer.added_tokens_decoder.get(words - 1) == IMAGE != tokenizer.convert_ids_to_tokens(index):
        words -= 1  # added by Blip2Processor and not used: the model has another placeholder
    if words > rows:
        return f"it has {words} tokens, the model {rows} embeddings"
    if not 0 <= index < rows:
        return f"the model's placeholder has id {index}, and there are {rows} embeddings"
    if index < words and index not in _special_ids(tokenizer):
        word = tokenizer.convert_ids_to_tokens(index)
        return f"id {index}, which is the model's image placeholder, is the ordinary word {word!r}"
    return None


def _special_ids(tokenizer: Any) -> set[int]:
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
