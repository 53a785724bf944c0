"""The families that labkit trains, by what ``model_type`` says in a model's config."""

from transformers import PretrainedConfig

from labkit.config.catalogue.architecture import Architecture
from labkit.families.blip2.family import Blip2Family
from labkit.families.family import AnyFamily

FAMILIES: dict[str, AnyFamily] = {"blip-2": Blip2Family()}


def family_of(model: Architecture | type[Architecture] | PretrainedConfig) -> AnyFamily:
    """The family of an architecture, or of the model that has this config."""
    return FAMILIES[model.model_type]
