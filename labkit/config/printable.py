"""Printable: text of a record, a log or an unknown source, made harmless for a terminal."""

_AS_BLANK = frozenset("\t\xa0")


def printable(text: str) -> str:
    r"""``text`` in which control characters, which steer a terminal, are made visible: ``\x1b`` for an escape,
    ``\u202e`` for a change of direction.

    Line breaks stay, tabs become blanks. What is not text (half a character of a broken file name) is made visible too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _visible(c) for c in text.replace("\r\n", "\n"))


def is_text(name: str) -> bool:
    """Whether the name of a file is text, which a record can hold, and not bytes that are none in this locale."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _visible(character: str) -> str:
    return " " if character in _AS_BLANK else repr(character)[1:-1]
