"""Stages: BLIP-2 in pieces of consecutive layers, one for each rank, which hand hidden states on."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Blip2ForConditionalGeneration

from labkit.train.step import IGNORED

Unit = tuple[str, int]
"""What is never cut: a layer of the vision tower, the Q-Former with the text's embeddings, a layer of OPT, and of T5
the encoder or the decoder, whose layers share the position bias of their first."""


def units(model: Blip2ForConditionalGeneration, language: str) -> list[tuple[Unit, int]]:
    """The units in the order of the forward, with their parameters."""
    vision = model.vision_model.encoder.layers
    found = [(("vision", i), _count(layer)) for i, layer in enumerate(vision)]
    connector = _count(model.qformer) + _count(model.language_projection) + _count(model.get_input_embeddings())
    found.append((("connector", 0), connector))
    if language == "opt":
        layers = model.language_model.model.decoder.layers
    else:
        layers = [model.language_model.encoder, model.language_model.decoder]
    return found + [(("language", i), _count(layer)) for i, layer in enumerate(layers)]


def cut(sized: Sequence[tuple[Unit, int]], parts: int) -> list[list[Unit]]:
    """So many runs of consecutive units that the largest has as few parameters as can be.

    Raises ``ValueError`` when there are fewer units than parts.
    """
    if parts > len(sized):
        raise ValueError(f"{len(sized)} units cannot be cut into {parts} parts")
    sizes = [size for _, size in sized]

    @functools.cache
    def best(start: int, left: int) -> tuple[int, tuple[int, ...]]:
        if left == 1:
            return sum(sizes[start:]), (len(sizes),)
        tried = []
        for end in range(start + 1, len(sizes) - left + 2):
            rest, ends = best(end, left - 1)
            tried.append((max(sum(sizes[start:end]), rest), (end, *ends)))
        return min(tried)

    ends = best(0, parts)[1]
    starts = (0, *ends[:-1])
    return [[unit for unit, _ in sized[a:b]] for a, b in zip(starts, ends, strict=True)]


class Stage(nn.Module):
    """The units of one rank. It takes the modules out of ``model``, which is of no use afterwards.

    The first stage is given ``pixel_values``, the others what the one before them has returned; all see the rest of
    the batch. The last returns the loss, summed over the scored tokens and divided by ``divisor``.
    """

    def __init__(
        self, model: Blip2ForConditionalGeneration, mine: Sequence[Unit], is_last: bool, language: str
    ) -> None:
        super().__init__()
        self.language, self.is_last = language, is_last
        self.divisor: Any = 1
        by_part = {part: [i for name, i in mine if name == part] for part in ("vision", "connector", "language")}
        vision = model.vision_model
        self.vision_embeddings = vision.embeddings if 0 in by_part["vision"] else None
        self.vision_layers = nn.ModuleList(vision.encoder.layers[i] for i in by_part["vision"])
        self.has_connector = bool(by_part["connector"])
        if self.has_connector:
            self.post_layernorm, self.qformer = vision.post_layernorm, model.qformer
            self.query_tokens, self.language_projection = model.query_tokens, model.language_projection
            self.text_embeddings = model.get_input_embeddings()
            self.image_token_id = model.config.image_token_id
        self.decoder = self.encoder = self.language_model = self.lm_head = None
        if by_part["language"]:
            take = self._take_opt if language == "opt" else self._take_t5
            take(model, by_part["language"])
        self._loss = functools.partial(model.loss_function, vocab_size=model.config.text_config.vocab_size)

    def _take_opt(self, model: Blip2ForConditionalGeneration, mine: list[int]) -> None:
        decoder = model.language_model.model.decoder
        if self.is_last:
            self.lm_head = model.language_model.lm_head
        else:
            decoder.final_layer_norm = None
        if 0 not in mine:
            decoder.embed_positions = _NoPositions()
        decoder.layers = nn.ModuleList(decoder.layers[i] for i in mine)
        decoder.embed_tokens = None  # the connector's stage has it
        self.decoder = decoder

    def _take_t5(self, model: Blip2ForConditionalGeneration, mine: list[int]) -> None:
        t5 = model.language_model
        if 0 in mine:
            self.encoder = t5.encoder
            self.encoder.embed_tokens = None
        if 1 in mine:
            t5.encoder = None
            self.language_model = t5

    def forward(
        self, given: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Carry hidden states through this stage's units."""
        hidden = self.vision_embeddings(given) if self.vision_embeddings is not None else given
        for layer in self.vision_layers:
            hidden = layer(hidden)
        if self.has_connector:
            hidden = self._connect(hidden, input_ids)
        if self.encoder is not None:
            hidden = self.encoder(inputs_embeds=hidden, attention_mask=attention_mask).last_hidden_state
        if self.decoder is not None:
            hidden = self.decoder(
                inputs_embeds=hidden, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state  # fmt: skip
        if not self.is_last:
            return hidden
        if self.language == "opt":
            loss = self._loss(logits=self.lm_head(hidden), labels=labels)
        else:
            loss = self.language_model(
                encoder_outputs=(hidden,), attention_mask=attention_mask, labels=labels, use_cache=False
            ).loss  # fmt: skip
        return loss * (labels != IGNORED).sum() / self.divisor

    def _connect(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """As ``Blip2ForConditionalGeneration`` does it (transformers 5.23)."""
        image = self.post_layernorm(hidden)
        queries = self.qformer(
            query_embeds=self.query_tokens.expand(image.shape[0], -1, -1), encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:-1], dtype=torch.long, device=image.device),
        )[0]  # fmt: skip
        features = self.language_projection(queries.to(image.dtype))
        embedded = self.text_embeddings(input_ids)
        places = (input_ids == self.image_token_id).unsqueeze(-1)
        return embedded.masked_scatter(places, features.to(embedded.dtype))


class _NoPositions(nn.Module):
    """In place of position embeddings that an earlier stage has added."""

    def forward(self, attention_mask: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.zeros((), device=attention_mask.device)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
