"""The families that labkit trains, by what ``model_type`` says in a model's config."""

from transformers import PretrainedConfig

from labkit.config.catalogue.architecture import Architecture
from labkit.config.catalogue.blip2 import Blip2
from labkit.families.blip2.family import Blip2Family
from labkit.families.family import AnyFamily

FAMILIES: dict[str, AnyFamily] = {Blip2.model_type: Blip2Family()}


def family_of(model: Architecture | type[Architecture] | PretrainedConfig) -> AnyFamily:
    """The family of an architecture, or of the model that has this config."""
    return FAMILIES[model.model_type]
