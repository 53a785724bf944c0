"""Private names of transformers, read in transformers 5.23 and 5.17."""

import contextlib
from collections.abc import Generator
from typing import Any

from torch import nn
from transformers import PreTrainedModel, core_model_loading


def mark_initialized(module: nn.Module) -> None:
    """Say of a module and its weight that they have their values; ``initialize_weights`` would draw them again."""
    module._is_hf_initialized = module.weight._is_hf_initialized = True  # type: ignore[union-attr]


def checkpoint_activations(model: PreTrainedModel, options: dict[str, Any]) -> None:
    """Turn activation checkpointing on. Its name changed between 5.17 and 5.23, where the old one warns."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(options)
    else:
        model.gradient_checkpointing_enable(options)


@contextlib.contextmanager
def _raising(*_: Any, **__: Any) -> Generator[None]:
    """In place of the context that hides errors: they come through."""
    yield


@contextlib.contextmanager
def conversion_errors() -> Generator[None]:
    """Let what goes wrong while a weight is converted be raised, out-of-memory too; ``from_pretrained`` would log it.

    The context that hides it has no switch, so another one takes its place.
    """
    hiding = core_model_loading.log_conversion_errors
    core_model_loading.log_conversion_errors = _raising
    try:
        yield
    finally:
        core_model_loading.log_conversion_errors = hiding
