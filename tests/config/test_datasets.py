"""The data registry: where a data set lies, and what to do when it does not."""

import dataclasses
import subprocess
import tarfile

import pytest

from labkit.config.datasets import DATASETS, FOOD, DatasetEntry, by_hand, find_dataset
from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig


def error_of(name, folder):
    """The text of the ConfigError, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        find_dataset(name, folder)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_the_default_data_set_ships_with_the_package(tmp_path):
    assert RunConfig.dataset == "fluent_emoji"
    assert find_dataset("fluent_emoji", tmp_path) is None


@pytest.mark.parametrize("name", ["fluent_emoji", "fluent_emoji_food", "fluent_emoji_rest"])
def test_its_parts_ship_with_it(tmp_path, name):
    (tmp_path / name).mkdir()
    assert find_dataset(name, tmp_path) is None


def test_food_and_the_rest_make_the_whole():
    whole, food, rest = (DATASETS[f"fluent_emoji{part}"] for part in ("", "_food", "_rest"))
    for group in (FOOD, "Flags", "", None):
        assert whole.takes(group)
        assert food.takes(group) == (group == FOOD)
        assert rest.takes(group) != food.takes(group)


def test_an_entry_may_take_some_groups_but_one():
    entry = DatasetEntry("some", "", "", groups=("a", "b"), without=("b",))
    assert [group for group in ("a", "b", "c", None) if entry.takes(group)] == ["a"]


@pytest.mark.parametrize("name", DATASETS)
def test_an_entry_has_its_name_and_says_what_it_is(name):
    assert DATASETS[name].name == name
    assert DATASETS[name].about


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.folder])
def test_a_registered_data_set_is_found_once_it_is_unpacked(tmp_path, name):
    folder = tmp_path / DATASETS[name].folder
    assert str(folder) in error_of(name, tmp_path)
    assert f"dataset={name!r}" in error_of(name, tmp_path)
    assert f"'labkit fetch --data {name}'" in error_of(name, tmp_path)
    folder.mkdir()
    assert find_dataset(name, tmp_path) == folder


@pytest.mark.slow
def test_the_command_by_hand_brings_what_the_registry_says(tmp_path):
    """Run by a shell, on an archive in a file, in folders whose names have blanks."""
    shipped = tmp_path / "any name" / "train"
    shipped.mkdir(parents=True)
    (shipped / "state.json").write_text("{}")
    with tarfile.open(tmp_path / "food.gz", "w:gz") as tar:
        tar.add(shipped.parent, "any name")
    entry = dataclasses.replace(DATASETS["gourmetgram_caption"], address=(tmp_path / "food.gz").as_uri())
    data = tmp_path / "my workspace" / "data"
    subprocess.run(by_hand(entry, data), shell=True, check=True, capture_output=True)
    assert (data / entry.folder / "train" / "state.json").read_text() == "{}"


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.folder])
def test_an_address_is_told_as_it_is(tmp_path, name):
    """Nothing of it is taken for a secret."""
    assert DATASETS[name].address.startswith("https://")
    assert f"curl -fLo {tmp_path / name}.tar.gz {DATASETS[name].address} && " in error_of(name, tmp_path)


def test_a_registered_name_means_the_registered_folder(tmp_path, monkeypatch):
    """A folder of that name in the current folder is not taken for it."""
    (tmp_path / "gourmetgram_caption").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "gourmetgram_caption" in error_of("gourmetgram_caption", tmp_path / "data")


def test_a_folder_is_found_by_its_path_or_by_its_name_among_the_data(tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "mine").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_dataset(str(data / "mine"), tmp_path) == data / "mine"
    assert find_dataset("mine", data) == data / "mine"
    assert find_dataset("here", data).resolve() == tmp_path / "here"


def test_what_is_no_data_set_is_named_with_the_nearest_and_all_others(tmp_path):
    text = error_of("fluent-emoji", tmp_path)
    assert "dataset='fluent-emoji'" in text
    assert "Did you mean 'fluent_emoji'?" in text
    for name in DATASETS:
        assert name in text


@pytest.mark.parametrize("name", ["a\nb", "a\0b", " ", "nowhere/at/all"])
def test_a_name_that_no_folder_can_have_is_refused_like_any_other(tmp_path, name):
    assert error_of(name, tmp_path).startswith("dataset=")


def test_a_file_is_not_a_data_set(tmp_path):
    (tmp_path / "mine").write_text("")
    assert "dataset='mine'" in error_of("mine", tmp_path)
