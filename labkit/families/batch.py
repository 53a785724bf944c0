"""Batch: what a collator of any family gives, and which of its labels are scored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

IGNORED = -100
"""Label of a position that is not scored (PyTorch's ``ignore_index``)."""

Sample = tuple[Image.Image, str]


class Collate(ABC):
    """Turn (image, caption) pairs into one batch of CPU tensors; made for a loader's worker.

    Every batch has the same shapes, so every step needs the same memory.
    """

    tokenizer: Any

    @abstractmethod
    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """One batch of these samples, by the names that the model's ``forward`` takes; ``labels`` among them."""

    @abstractmethod
    def prompts(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The batch to generate captions of these images from; no labels."""
