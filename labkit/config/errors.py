"""The one error of this room."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A value that cannot be used; the message is one line that names the key, the value and the next step."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known word closest to ``word``, or an empty string."""
    found = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{found[0]}'?" if found else ""
