"""Family: the functions by which labkit builds, feeds, reads and splits the models of one kind."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from labkit.config.catalogue.architecture import Architecture
from labkit.families.batch import Collate

A = TypeVar("A", bound=Architecture)
C = TypeVar("C", bound=PretrainedConfig)
M = TypeVar("M", bound=PreTrainedModel)
P = TypeVar("P", bound=ProcessorMixin)

Unit = tuple[str, int]
"""What a pipeline never cuts: one of a model's parts by name, and which layer of it."""


class Stages(ABC):
    """A model that can be cut into a pipeline of stages, each with consecutive units."""

    units: Sequence[tuple[Unit, int]]
    """The units in the order of the forward, with their parameters."""

    embedding: Unit
    """The unit that has the embedding of the text."""

    trained: Collection[Unit]
    """The units that have parameters that are trained."""

    tied: torch.Tensor | None
    """The embedding's weight where the last unit has it too, as the output layer."""

    @abstractmethod
    def stage(self, mine: Sequence[Unit], is_last: bool) -> nn.Module:
        """The units of one rank, taken out of the model, which is of no use afterwards; to be called once.

        The first stage is given ``pixel_values``, the others what the one before them has returned; all see the rest
        of the batch. The last returns the loss, summed over the scored tokens and divided by its ``divisor``.
        """

    @abstractmethod
    def shape_after(self, unit: Unit, pixel_values: torch.Size, input_ids: torch.Size) -> tuple[int, ...]:
        """Shape of what is handed on after ``unit``, for a batch of these shapes."""


class Family(ABC, Generic[A, C, M, P]):
    """What is to be done for the models of one kind. Facts that need no torch are in its ``Architecture``.

    A family names the classes of its facts, and of transformers' config, model and processor.
    """

    model_class: type[M]
    processor_class: type[P]

    weight_std: ClassVar[float] = 0.02
    """Standard deviation of random weights."""

    @abstractmethod
    def config(self, arch: A) -> C:
        """transformers' config of an architecture, with the special ids of the embedded tokenizer."""

    @abstractmethod
    def set_dropout(self, config: C, rate: float) -> None:
        """Set the probability of dropout in every part that has any."""

    @abstractmethod
    def fix_random_weights(self, model: M) -> None:
        """Draw again what transformers' own initialisation leaves unusable for training from scratch."""

    @abstractmethod
    def own_head(self, config: C) -> str | None:
        """Name of the output layer's weight where it is a weight of its own though transformers would tie it."""

    @abstractmethod
    def untie_head(self, model: M) -> None:
        """Make the output layer's weight its own, for a model with an ``own_head``."""

    @abstractmethod
    def processor(self, arch: A) -> P:
        """A processor for ``weights=random``: real image processing, and nothing to download."""

    @abstractmethod
    def fault_of(self, processor: P, config: C) -> str | None:
        """Why a processor is not the model's. Sets in ``config`` what an old checkpoint leaves open."""

    @abstractmethod
    def collate(self, processor: P, config: C, max_length: int) -> Collate:
        """What makes batches of samples for the model with this config; captions have ``max_length`` tokens."""

    @abstractmethod
    def stages(self, model: M) -> Stages:
        """The model as a pipeline has it."""


AnyFamily = Family[Any, Any, Any, Any]
"""A family of which nothing more is known here."""
