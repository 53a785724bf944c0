"""Architecture: what is known of a model without building it. A family adds the sizes it is built from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """One model of a family. Needs no torch, and answers in microseconds."""

    title: ClassVar[str]
    """The family, as messages call it."""

    model_type: ClassVar[str]
    """What ``model_type`` says in the ``config.json`` of this family."""

    prefix: ClassVar[str]
    """What the names of its models begin with; tables leave it out."""

    parts: ClassVar[dict[str, tuple[str, ...]]]
    """``vision``, ``connector``, ``language`` and the attributes that hold them; ``freeze_<part>`` turns one off."""

    unquantized: ClassVar[tuple[str, ...]]
    """Names of modules and parameters that stay in 16 or 32 bits under QLoRA."""

    name: str
    language: str
    """``model_type`` of the language model."""

    packaged: bool = False
    """Whether its checkpoint ships with labkit."""

    @classmethod
    @abstractmethod
    def from_json(cls, name: str, data: dict[str, Any], needed: str) -> "Architecture":
        """The model in the folder ``name``, by what its ``config.json`` holds.

        Raises ``ConfigError`` for sizes that no model has; ``needed`` says in it what a folder has to be.
        """

    @property
    @abstractmethod
    def lora_targets(self) -> tuple[str, ...]:
        """Query and value projections of the language model, which LoRA adapts unless told otherwise."""

    @property
    @abstractmethod
    def image_px(self) -> int:
        """Side of the square input image."""

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """Positions of the language model that one image takes."""

    @property
    @abstractmethod
    def positions(self) -> int | None:
        """Positions of the language model; None where they are relative and have no end."""

    @property
    @abstractmethod
    def rough_size(self) -> int:
        """Weights of the language model's layers and words; enough to tell which of two models is larger."""

    @abstractmethod
    def with_fewer_layers(self, name: str, parts: int) -> "Architecture":
        """As wide, with one of ``parts`` of the layers: nearly that share of weights and activations."""
