"""What each value of ``device`` means, in a config, in a record as it was written, and in one that is no value."""

import pytest

from labkit.config.device import SIMULATED, is_cuda, is_simulated
from labkit.config.schema import RunConfig, key_choices

MEANS = {"virtual": (True, False), "cuda": (False, True)}
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


@pytest.mark.parametrize("value", [None, "", "cpu", "CUDA", "cuda:0", 1, ["virtual"]])
def test_what_is_no_device_is_neither(value):
    assert not is_simulated(value)
    assert not is_cuda(value)
