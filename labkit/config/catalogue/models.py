"""Models by name: the published sizes, their stand-ins, and a model in a folder."""

import os

from labkit.config.catalogue import blip2
from labkit.config.catalogue.architecture import Architecture
from labkit.config.catalogue.model_json import read_model_json
from labkit.config.errors import ConfigError, nearest

FAMILIES: dict[str, type[Architecture]] = {blip2.Blip2.model_type: blip2.Blip2}
"""Families by what ``model_type`` says in a ``config.json``. A new one is a line here."""

_TITLES = " or ".join(family.title for family in FAMILIES.values())

COURSE_MODEL = blip2.PUBLISHED[0].name
"""The model that the course fine-tunes unless an experiment names another."""

PUBLISHED: dict[str, Architecture] = {a.name: a for a in blip2.PUBLISHED}
"""Full sizes, with a checkpoint on the hub."""

ARCHITECTURES: dict[str, Architecture] = PUBLISHED | {a.name: a for a in blip2.TINY}
"""Full sizes, and the tiny models that stand in for them on a machine without a GPU."""

SCALES = {"half": 2, "third": 3, "quarter": 4, "sixth": 6, "eighth": 8, "sixteenth": 16}
"""Shares of a full size's layers that a stand-in for a smaller GPU has; labkit.plan.tune picks one."""

STAND_INS: dict[str, Architecture] = {
    a.name: a
    for full in PUBLISHED.values()
    for a in (full.with_fewer_layers(f"{w}/{full.name.partition('/')[2]}", parts) for w, parts in SCALES.items())
}  # fmt: skip
"""Full sizes with fewer layers, for a real GPU that is smaller than the course's. They have no checkpoint."""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``, or of the model in the folder ``name`` that ``save_pretrained`` wrote.

    Raises ``ConfigError`` with the nearest known name, or with what the folder lacks.
    """
    if name in ARCHITECTURES or name in STAND_INS:
        return ARCHITECTURES.get(name) or STAND_INS[name]
    if is_folder(name):
        return _from_folder(name)
    raise ConfigError(
        f"model_name={name!r} is not a model that labkit plans or trains, nor a folder.{nearest(name, ARCHITECTURES)} "
        f"It knows {_TITLES} only; 'labkit configs --models' lists its sizes. For any other model of the hub "
        "'accelerate estimate-memory OWNER/MODEL' estimates weights, gradients and Adam's state."
    )


def _from_folder(name: str) -> Architecture:
    needed = f"needed is a folder of a {_TITLES} that save_pretrained wrote"
    data = read_model_json(name, needed)
    kind = data.get("model_type") if isinstance(data, dict) else None
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        types = " or ".join(f"model_type={known!r}" for known in FAMILIES)
        raise ConfigError(f"model_name={name!r}: its config.json has model_type={kind!r}; {needed}, with {types}.")
    return family.from_json(name, data, needed)


def is_folder(name: str) -> bool:
    """Whether ``name`` is a model's folder and no model that has a name here."""
    # os.path says no to a name that is too long, where Path raises
    return name not in ARCHITECTURES and os.path.isdir(name)  # noqa: PTH112


def is_tiny(name: str) -> bool:
    """Whether ``name`` is of the scale that runs without a GPU."""
    return name.startswith("tiny/")


def smaller(name: str) -> str | None:
    """The next smaller known model of the same scale and language model, whose layers have the same names."""
    if name not in ARCHITECTURES:
        return None
    here, scale = ARCHITECTURES[name], name.partition("/")[0]
    same = [a for a in ARCHITECTURES.values() if a.name.partition("/")[0] == scale and a.language == here.language]
    smaller_ones = [a for a in same if a.rough_size < here.rough_size and not a.packaged]
    return max(smaller_ones, key=lambda a: a.rough_size).name if smaller_ones else None


def short_name(name: str) -> str:
    """A model's name as tables have it: without its owner and its family's prefix."""
    short = name.rpartition("/")[2]
    for family in FAMILIES.values():
        short = short.removeprefix(family.prefix)
    return short
