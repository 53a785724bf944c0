"""Inputs of BLIP-2: what a batch looks like for each language model."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from labkit.families.batch import IGNORED, Collate, Sample
from labkit.memory.tracker import host

PROMPT = "a photo of"
"""What T5's encoder reads after the image; the caption is the decoder's."""


class Collator(Collate):
    """Turn (image, caption) pairs into one batch of CPU tensors; made for a loader's worker.

    ``opt``: ``input_ids`` of image placeholders, caption and end mark, padded; ``labels`` the same with placeholders
    and padding ignored. ``t5``: placeholders and the prompt in ``input_ids``, caption and end mark in ``labels``.
    Captions are cut and padded to ``max_length`` tokens, so every batch has the same shape and every step needs the
    same memory. Shapes: ``pixel_values`` (batch, 3, px, px); ``input_ids`` and ``attention_mask``
    (batch, queries + max_length) for OPT, (batch, queries + prompt) for T5; ``labels`` as ``input_ids`` for OPT,
    (batch, max_length) for T5.

    The placeholders are put in here and counted, whatever the processor does: processors saved by older releases
    leave them out, and current models then ignore the image without an error.
    """

    def __init__(
        self, processor: Any, language: str, max_length: int, num_query_tokens: int, image_token_id: int
    ) -> None:
        self.image_processor = processor.image_processor
        self.tokenizer = processor.tokenizer
        self.language = language
        self.max_length = max_length
        self.num_query_tokens = num_query_tokens
        self.image_token_id = image_token_id

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """One batch of these samples."""
        with host():  # with num_workers=0 this runs in the training process, but in host memory all the same
            captions = [caption for _, caption in samples]
            batch = self._opt(captions) if self.language == "opt" else self._t5(captions)
            return {"pixel_values": self._pixels([image for image, _ in samples]), **batch}

    def prompts(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The batch to generate captions of these images from; no labels.

        ``opt``: placeholders and the start mark, ``input_ids`` of shape (batch, queries + 1). ``t5``: placeholders
        and the prompt, (batch, queries + prompt).
        """
        with host():
            text = self._tokens([""] if self.language == "opt" else [PROMPT])[0]
            rows = [self._placeholders() + text] * len(images)
            return {"pixel_values": self._pixels(images), **self._padded(rows, len(rows[0]))}

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        rgb = [image.convert("RGB") for image in images]
        return self.image_processor(rgb, return_tensors="pt")["pixel_values"]

    def _opt(self, captions: list[str]) -> dict[str, torch.Tensor]:
        # the tokenizer puts its start mark in front; the end mark is ours, and must survive the cut
        tokens = self._tokens(captions, self.max_length - 1)
        rows = [self._placeholders() + ids + [self.tokenizer.eos_token_id] for ids in tokens]
        batch = self._padded(rows, self.num_query_tokens + self.max_length)
        scored = (batch["attention_mask"] == 1) & (batch["input_ids"] != self.image_token_id)
        return batch | {"labels": batch["input_ids"].masked_fill(~scored, IGNORED)}

    def _t5(self, captions: list[str]) -> dict[str, torch.Tensor]:
        prompt = self._placeholders() + self._tokens([PROMPT])[0]
        batch = self._padded([prompt] * len(captions), len(prompt))
        target = self._padded(self._tokens(captions, self.max_length), self.max_length)
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, IGNORED)
        return batch | {"labels": labels}

    def _placeholders(self) -> list[int]:
        return [self.image_token_id] * self.num_query_tokens

    def _tokens(self, texts: list[str], limit: int | None = None) -> list[list[int]]:
        rows = self.tokenizer(
            texts, truncation=limit is not None, max_length=limit, split_special_tokens=True
        )["input_ids"]  # fmt: skip
        # a caption that spells the placeholder would be one, and shift the image features from there on
        return [[i for i in row if i != self.image_token_id][:limit] for row in rows]

    def _padded(self, rows: list[list[int]], length: int) -> dict[str, torch.Tensor]:
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}
