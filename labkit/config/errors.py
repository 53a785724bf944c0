"""The one error of this room."""

import difflib
from collections.abc import Iterable, Sequence

from labkit.config.secrets import redact

LONGEST = 2000
"""Characters of a message; a value may be of any length."""


class ConfigError(ValueError):
    """A value that cannot be used; the message is one line that names the key, the value and the next step.

    Values are typed by people, so secrets are taken out of the message before it is shown. ``keys`` are those of a
    config that it is about, none where it is about something else; ``others`` is what else is wrong with the same
    config.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = (), others: Sequence["ConfigError"] = ()) -> None:
        self.keys, self.others = keys, tuple(others)
        clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in redact(message))
        middle = f" ... {len(clean)} characters ... "
        super().__init__(clean if len(clean) <= LONGEST else clean[: LONGEST // 2] + middle + clean[-LONGEST // 2 :])


def nearest(word: object, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known word closest to ``word``, or an empty string."""
    found = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{found[0]}'?" if found else ""
