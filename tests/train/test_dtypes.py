"""The dtypes that a precision means here are those that Lightning's plugin of that name works with."""

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from torch import nn

from labkit.config.precision import DTYPES
from labkit.train.models import autocast_dtype_of, dtype_of

PLUGINS = {
    "32-true": lambda name: Precision(),
    "bf16-true": HalfPrecision,
    "16-true": HalfPrecision,
    "bf16-mixed": lambda name: MixedPrecision(name, "cpu"),
    "16-mixed": lambda name: MixedPrecision(name, "cpu"),
}


def test_every_precision_is_compared():
    assert PLUGINS.keys() == DTYPES.keys()


@pytest.mark.parametrize("precision", PLUGINS)
def test_weights_and_arithmetic_have_the_dtypes_that_lightning_gives_them(precision):
    plugin = PLUGINS[precision](precision)
    layer = plugin.convert_module(nn.Linear(2, 2))
    assert layer.weight.dtype == dtype_of(precision)
    with plugin.forward_context():
        cast = torch.is_autocast_enabled("cpu")
        found = layer(plugin.convert_input(torch.ones(1, 2)))
        assert (torch.get_autocast_dtype("cpu") if cast else None) == autocast_dtype_of(precision)
    assert found.dtype == getattr(torch, DTYPES[precision].compute)
    assert cast == DTYPES[precision].mixed


@pytest.mark.parametrize("precision", PLUGINS)
def test_the_loss_is_scaled_where_lightning_has_a_scaler(precision):
    plugin = PLUGINS[precision](precision)
    has_scaler = isinstance(plugin, MixedPrecision) and plugin.scaler is not None
    assert has_scaler == DTYPES[precision].loss_scaled
