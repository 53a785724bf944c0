"""What each value of ``device`` means, in a config, in a record as it was written, and in one that is no value."""

import hashlib
import json

import pytest

from labkit.config.device import OLD_NAMES, SIMULATED, is_cuda, is_simulated, source_today
from labkit.config.schema import RunConfig, coerce, hash_today, key_choices

MEANS = {"simulated": (True, False), "cuda": (False, True)}
"""By value: simulated, real."""


def test_every_value_of_the_key_is_simulated_or_real():
    assert tuple(MEANS) == key_choices("device")
    assert MEANS[SIMULATED] == (True, False)
    assert RunConfig.device == SIMULATED


@pytest.mark.parametrize("device", MEANS)
def test_what_a_device_means(device):
    config = RunConfig(device=device, capacity_gib=1.0)
    assert (config.simulated, config.on_cuda) == MEANS[device]
    assert (is_simulated(device), is_cuda(device)) == MEANS[device]
    assert config.device == device == config.to_dict()["device"]


@pytest.mark.parametrize("value", [None, "", "cpu", "CUDA", "cuda:0", 1, ["simulated"]])
def test_what_is_no_device_is_neither(value):
    assert not is_simulated(value)
    assert not is_cuda(value)


def test_the_old_name_is_read_and_never_written():
    assert set(OLD_NAMES) == {"virtual"}
    assert coerce("device", "virtual") == SIMULATED == "simulated"
    config = RunConfig(device="virtual", capacity_gib=1.0)
    assert config == RunConfig(capacity_gib=1.0)
    assert config.to_dict()["device"] == "simulated"
    assert (is_simulated("virtual"), is_cuda("virtual")) == (True, False)


def test_settings_with_the_old_name_have_the_hash_of_the_same_settings_today():
    today = RunConfig(capacity_gib=1.0)
    then = today.to_dict() | {"device": "virtual"}
    written = hashlib.sha256(json.dumps(then, sort_keys=True).encode()).hexdigest()[:12]
    assert written != today.hash
    assert hash_today(then, written) == today.hash
    assert hash_today(then | {"batch_size": 7}, written) == written


@pytest.mark.parametrize(
    ("said", "today"),
    [
        ("virtual GPU", "simulated GPU"), ("virtual GPU on x86_64 CPU", "simulated GPU on x86_64 CPU"),
        ("simulated GPU", "simulated GPU"), ("CUDA", "CUDA"), ("predicted", "predicted"),
        ("a virtual GPU", "a virtual GPU"),
    ],
)  # fmt: skip
def test_where_numbers_come_from_in_the_words_of_today(said, today):
    assert source_today(said) == today
