"""What every error of the config room must be."""

import pytest

from labkit.config.errors import ConfigError


def error_of(function, *args, **kwargs):
    """The text of the ConfigError, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text
    assert len(text.splitlines()) == 1
    return text
