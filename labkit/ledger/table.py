"""Table: rows of text under a title. One value, shown in a terminal, in a notebook and on a page."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.ledger.view import View

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

NO_NUMBER = "-"
"""A cell of a column of numbers that has none."""

_LONG = 20
"""Letters from which on a word may be broken, so that the columns beside it are seen."""

_WHOLE = ";white-space:nowrap"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's name. ``is_number``: whether it stands to the right; None where the cells are to tell.

    ``most``: how many columns of a terminal it takes at most.
    """

    name: str
    is_number: bool | None = None
    most: int | None = None


def words(*names: str, most: int | None = None) -> list[Column]:
    """Columns of text, each of at most so many columns of the terminal."""
    return [Column(name=name, is_number=False, most=most) for name in names]


def numbers(*names: str) -> list[Column]:
    """Columns of numbers, which stand to the right."""
    return [Column(name=name, is_number=True) for name in names]


class Table(View):
    """Rows of text under a title, with notes below. Columns may be names; then those of numbers are found.

    A terminal that is too narrow gets several tables below each other, each with the ``keys`` first columns.
    """

    def __init__(
        self, title: str, columns: Iterable[str | Column], rows: Iterable[Sequence[str]], notes: Iterable[str] = (),
        keys: int = 1,
    ) -> None:  # fmt: skip
        self.title, self.keys = title, keys
        self.columns = [Column(name=column) if isinstance(column, str) else column for column in columns]
        self.rows, self.notes = [list(row) for row in rows], list(notes)

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it is one of numbers."""
        cells = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return [
            bool(of) and all(_is_number(cell) for cell in of) if column.is_number is None else column.is_number
            for column, of in zip(self.columns, cells, strict=True)
        ]

    @property
    def _head(self) -> list[str]:
        return [column.name for column in self.columns]

    def _text(self) -> str:
        widths = [max(len(cell) for cell in column) for column in zip(self._head, *self.rows, strict=True)]
        numeric = self.numeric
        lines = [
            "  ".join(
                cell.rjust(w) if to_right else cell.ljust(w)
                for cell, w, to_right in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in (self._head, *self.rows)
        ]
        return "\n".join([self.title, *lines, *self.notes])

    def _html(self) -> str:
        aligned = ["right" if to_right else "left" for to_right in self.numeric]

        def cells(tag: str, row: Sequence[str]) -> str:
            return "".join(
                f'<{tag} style="text-align:{a};padding:2px 5px{_WHOLE if a == "right" else ""}">{_cell(c)}</{tag}>'
                for c, a in zip(row, aligned, strict=True)
            )

        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        notes = "".join(f'<div style="font-size:90%">{escape(note)}</div>' for note in self.notes)
        title = escape(self.title)
        return (
            f'<div><b>{title}</b></div><div style="overflow-x:auto">'
            f'<table aria-label="{title}" style="font-variant-numeric:tabular-nums">'
            f"<thead><tr>{cells('th', self._head)}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
        )

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        from labkit.ledger.columns import laid_out  # rich is imported by who prints

        return laid_out(self, options.max_width)


class Picture(str):
    """A cell that is an image, shown small; as text it is the file's name."""

    path: Path
    alt: str

    def __new__(cls, path: Path, alt: str) -> "Picture":
        """A cell of the image file at ``path``; ``alt`` says what it shows."""
        picture = super().__new__(cls, path.name)
        picture.path, picture.alt = path, alt
        return picture

    def as_html(self) -> str:
        """The image itself, within the page."""
        data = base64.b64encode(self.path.read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" width="40">'


def _cell(cell: str) -> str:
    if isinstance(cell, Picture):
        return cell.as_html()
    return " ".join(word.replace("_", "_<wbr>") if len(word) > _LONG else word for word in escape(cell).split(" "))


def _is_number(cell: str) -> bool:
    return cell == NO_NUMBER or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())
