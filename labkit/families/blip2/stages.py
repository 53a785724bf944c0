"""Stages of BLIP-2: pieces of consecutive layers, one for each rank, which hand hidden states on."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration

from labkit.families.batch import IGNORED
from labkit.families.family import Stages, Unit


def part_of(config: Blip2Config, part: Literal["vision", "qformer", "text"]) -> Any:
    """The config of a part, which transformers types as any or none."""
    return getattr(config, f"{part}_config")


class Blip2Stages(Stages):
    """BLIP-2 as a pipeline has it.

    Units: the layers of the vision tower, the Q-Former with the text's embeddings, and the layers of OPT. Of T5 the
    encoder and the decoder are whole, because their layers share the position bias of their first.
    """

    embedding = ("connector", 0)

    def __init__(self, model: Blip2ForConditionalGeneration) -> None:
        self._model: Blip2ForConditionalGeneration | None = model
        self._config, self._language = model.config, part_of(model.config, "text").model_type
        language: Any = model.language_model
        vision = model.vision_model.encoder.layers
        found: list[tuple[Unit, Any]] = [(("vision", i), [layer]) for i, layer in enumerate(vision)]
        found.append((self.embedding, [model.qformer, model.language_projection, model.get_input_embeddings()]))
        if self._language == "opt":
            layers, decoding = language.model.decoder.layers, language.lm_head
        else:
            layers, decoding = [language.encoder, language.decoder], language.decoder.embed_tokens
        found += [(("language", i), [layer]) for i, layer in enumerate(layers)]
        parameters = {unit: [*nn.ModuleList(modules).parameters()] for unit, modules in found}
        self.units = [(unit, sum(p.numel() for p in mine)) for unit, mine in parameters.items()]
        self.trained = {unit for unit, mine in parameters.items() if any(p.requires_grad for p in mine)}
        embedding: Any = model.get_input_embeddings().weight
        self.tied = embedding if decoding.weight is embedding else None

    def stage(self, mine: Sequence[Unit], is_last: bool) -> "Stage":
        """Take the units' modules out of the model, and let go of it: the other ranks' layers take memory too."""
        model, self._model, self.tied = self._model, None, None
        if model is None:
            raise RuntimeError("a stage was taken already, and the model is in pieces")
        return Stage(model, mine, is_last, self._language)

    def shape_after(self, unit: Unit, pixel_values: torch.Size, input_ids: torch.Size) -> tuple[int, ...]:
        """The image's patches and its class token after the vision tower, the positions of the text after that."""
        config = self._config
        if unit[0] == "vision":
            patches = (pixel_values[-1] // part_of(config, "vision").patch_size) ** 2 + 1
            return pixel_values[0], patches, part_of(config, "vision").hidden_size
        return pixel_values[0], input_ids[1], part_of(config, "text").hidden_size


class Stage(nn.Module):
    """The units of one rank, as ``Stages.stage`` describes them."""

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
        self.decoder: Any = None
        self.encoder: Any = None
        self.language_model: Any = None
        self.lm_head: Any = None
        if by_part["language"]:
            take = self._take_opt if language == "opt" else self._take_t5
            take(model, by_part["language"])
        self._loss = functools.partial(model.loss_function, vocab_size=part_of(model.config, "text").vocab_size)

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
