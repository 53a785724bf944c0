"""The families that are known: the same in the catalogue and here; a model of no known family is refused by name."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig

from labkit import assets
from labkit.config.catalogue.models import ARCHITECTURES, FAMILIES, PUBLISHED, short_name, smaller
from labkit.config.schema import RunConfig
from labkit.families import known
from labkit.train.errors import CheckpointError
from labkit.train.weights import find_weights, load_model

BASE = "tiny/blip2-opt-base"


def test_the_catalogue_and_the_room_know_the_same_families():
    assert set(known.FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_familys_facts_are_those_of_the_model_that_transformers_builds(model_type):
    arch = next(a for a in ARCHITECTURES.values() if a.model_type == model_type)
    family = known.family_of(arch)
    config = family.config(arch)
    assert known.family_of(config) is family
    with torch.device("meta"):
        model = family.model_class(config)
    attributes = {name for names in arch.parts.values() for name in names}
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == attributes
    language = [f"{name}." for name in arch.parts["language"]]
    adapted = {n.rpartition(".")[2] for n, _ in model.named_modules() if n.startswith(tuple(language))}
    assert set(arch.lora_targets) <= adapted


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_pipeline_has_every_layer_of_vision_and_language_once_and_in_order(name):
    arch = PUBLISHED[name]
    family = known.family_of(arch)
    with torch.device("meta"):
        model = family.model_class(family.config(arch))
    units = [unit for unit, _ in family.stages(model).units]
    parts = [part for part, _ in units]
    assert parts == sorted(parts, key=["vision", "connector", "language"].index)
    assert family.stages(model).embedding in units
    for part in arch.parts:
        layers = [layer for one, layer in units if one == part]
        assert layers == list(range(len(layers))) and layers, part
    assert all(size > 0 for _, size in family.stages(model).units)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_pipeline_knows_in_which_units_something_is_trained(name):
    arch = PUBLISHED[name]
    family = known.family_of(arch)
    with torch.device("meta"):
        model = family.model_class(family.config(arch))
    every = {unit for unit, _ in family.stages(model).units}
    assert family.stages(model).trained == every
    for attribute in arch.parts["language"]:
        getattr(model, attribute).requires_grad_(False)
    assert family.stages(model).trained == {unit for unit in every if unit[0] != "language"}
    for attribute in arch.parts["vision"]:
        getattr(model, attribute).requires_grad_(False)
    assert family.stages(model).trained == {family.stages(model).embedding}


def test_a_smaller_model_has_the_same_language_model_and_is_never_the_packaged_one():
    found = {name: smaller(name) for name in ARCHITECTURES}
    assert any(found.values())
    for name, other in found.items():
        if other is not None:
            one, two = ARCHITECTURES[name], ARCHITECTURES[other]
            assert (one.language, one.name.split("/")[0]) == (two.language, two.name.split("/")[0])
            assert two.rough_size < one.rough_size
            assert not two.packaged


def test_only_the_packaged_model_ships_a_checkpoint():
    assert [a.name for a in ARCHITECTURES.values() if a.packaged] == [BASE]
    assert find_weights(BASE) == assets.BASE


@pytest.mark.parametrize("model_type", ["llama", None, 7])
def test_a_checkpoint_of_no_known_family_is_refused_by_name(model_type, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(assets.BASE, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    config = LlamaConfig().to_dict() | {"model_type": model_type}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"holds a model of the type {model_type!r}, and labkit trains blip-2"):
        load_model(RunConfig(model_name=BASE, device="cuda"), folder, "cpu")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Salesforce/blip2-opt-2.7b", "opt-2.7b"),
        ("tiny/blip2-t5-large", "t5-large"),
        ("/models/mine", "mine"),
        ("32", "32"),
    ],
)
def test_a_table_has_a_models_name_without_owner_and_family(name, short):
    assert short_name(name) == short
