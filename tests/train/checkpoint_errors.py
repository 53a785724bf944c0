"""What every error about a checkpoint must be."""

import pytest

from labkit.train.errors import CheckpointError


def error_of(call, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith(".")
    return str(caught.value)
