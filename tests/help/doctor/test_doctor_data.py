"""The doctor on data sets: here or not, read as a run reads them, and the command that brings them."""

import dataclasses
import json
import shlex
from pathlib import Path

import datasets
import pytest
from PIL import Image

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.help.doctor.data import check_data
from labkit.help.doctor.machine import DataFound, Needs

NAME = "gourmetgram_caption"


def needs(*data, experiment="reduced_batch"):
    config = resolve(Workspace.find(), experiment, None, "h100-94gb").config if experiment else None
    return Needs(profile="h100-94gb", device="cuda", experiment=experiment, config=config, data=data)


def test_data_that_is_here_is_green():
    shipped, here = check_data(
        needs(DataFound(name="fluent_emoji"), DataFound(name=NAME, folder=Path("/data/food"), samples=512))
    )
    assert (shipped.level, shipped.found) == ("green", "fluent_emoji ships with labkit")
    assert (here.level, here.found) == ("green", f"{NAME}, 512 samples in /data/food")


def test_data_that_a_run_needs_is_red_and_what_a_profile_has_is_amber():
    missing = DataFound(name=NAME, problem="dataset='gourmetgram_caption' is not here: and much more")
    (found,) = check_data(needs(missing))
    assert (found.level, found.found, found.fix) == ("red", f"{NAME} is not here", f"labkit fetch --data {NAME}")
    assert [check.level for check in check_data(needs(missing, experiment=None))] == ["amber"]


def test_data_that_cannot_be_read_is_put_aside_first():
    folder = Path("/my data/food")
    (found,) = check_data(needs(DataFound(name=NAME, folder=folder, problem="it lacks ['text']")))
    assert (found.level, found.found) == ("red", f"{NAME} cannot be read: it lacks ['text']")
    assert shlex.split(found.fix)[:3] == ["mv", "/my data/food", "/my data/food.old"]
    assert found.fix.endswith(f" && labkit fetch --data {NAME}")


def test_a_folder_of_ones_own_that_is_not_here_has_no_address():
    (found,) = check_data(dataclasses.replace(needs(DataFound(name="mine", problem="...")), typed=("dataset=mine",)))
    assert (found.level, found.found) == ("red", "mine is not here")
    assert found.fix == "labkit run reduced_batch dataset=fluent_emoji --profile h100-94gb"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data folder of a workspace as it is shipped."""
    for part in ("configs", "profiles"):
        (tmp_path / part).symlink_to(getattr(Workspace.find(), part))
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path))
    return tmp_path / "data"


def told(capsys, *arguments):
    main(["doctor", *arguments, "--json"])
    return [c for c in json.loads(capsys.readouterr().out)["checks"] if c["name"] == "data"]


@pytest.mark.slow
def test_the_command_looks_at_the_data_of_a_profile(data, capsys):
    (found,) = told(capsys, "--profile", "h100-94gb")
    assert (found["level"], found["fix"]) == ("amber", f"labkit fetch --data {NAME}")
    folder = data / NAME
    folder.mkdir(parents=True)
    (found,) = told(capsys, "--profile", "h100-94gb")
    assert (found["level"], found["fix"]) == ("amber", f"mv {folder} {folder}.old && labkit fetch --data {NAME}")
    whole = datasets.Dataset.from_dict({"image": [Image.new("RGB", (8, 8))], "text": ["a dish"]})
    datasets.DatasetDict({"train": whole}).save_to_disk(folder)
    (found,) = told(capsys, "--profile", "h100-94gb")
    assert (found["level"], found["found"]) == ("green", f"{NAME}, 1 sample in {folder}")


@pytest.mark.slow
def test_the_command_looks_at_the_data_of_an_experiment(data, capsys):
    assert [found["level"] for found in told(capsys, "bf16_true")] == ["green"]
    (found,) = told(capsys, "bf16_true", "dataset=nowhere")
    assert (found["level"], found["found"]) == ("red", "nowhere is not here")
