"""Views: what a cell shows, as HTML in a notebook and as text everywhere else."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

INDENT = "  "


class View:
    """Something that a cell shows. Subclasses give ``_text``, and ``_html`` where it is more than that."""

    def text(self) -> str:
        """Plain text."""
        return self._text()

    def html(self) -> str:
        """The same as HTML."""
        return self._html()

    def _text(self) -> str:
        raise NotImplementedError

    def _html(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def __repr__(self) -> str:
        return self._text()

    def _repr_html_(self) -> str:
        return self._html()


class Lines(View):
    """A headline and lines below it. ``mark`` is a word in front of the headline, such as ``passed``."""

    def __init__(self, headline: str, lines: Iterable[str] = (), mark: str = "") -> None:
        self.headline, self.lines, self.mark = headline, list(lines), mark

    def _text(self) -> str:
        head = f"[{self.mark}] {self.headline}" if self.mark else self.headline
        return "\n".join([head, *(INDENT + line for line in self.lines)])

    def _html(self) -> str:
        mark = f'<span style="{_BADGE}">{escape(self.mark)}</span> ' if self.mark else ""
        below = "".join(f"<div>{escape(line.strip())}</div>" for line in self.lines)
        return f'<div style="{_BOX}"><div>{mark}<b>{escape(self.headline)}</b></div>{below}</div>'


class Table(View):
    """Rows of text under a title. Columns whose cells are numbers stand to the right."""

    def __init__(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
    ) -> None:
        self.title, self.columns = title, list(columns)
        self.rows, self.notes = [list(row) for row in rows], list(notes)

    def _text(self) -> str:
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        right = self._right()
        lines = [
            "  ".join(
                cell.rjust(w) if to_right else cell.ljust(w)
                for cell, w, to_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in (self.columns, *self.rows)
        ]
        return "\n".join([self.title, *lines, *self.notes])

    def _html(self) -> str:
        aligned = ["right" if to_right else "left" for to_right in self._right()]

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
            f"<thead><tr>{cells('th', self.columns)}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
        )

    def _right(self) -> list[bool]:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return [bool(column) and all(_is_number(cell) for cell in column) for column in columns]


class Several(View):
    """Views one below the other."""

    def __init__(self, views: Iterable[View]) -> None:
        self.views = list(views)

    def _text(self) -> str:
        return "\n".join(view.text() for view in self.views)

    def _html(self) -> str:
        return "".join(view.html() for view in self.views)


NO_NUMBER = "-"

_LONG = 20
"""Letters from which on a word may be broken, so that the columns beside it are seen."""

_WHOLE = ";white-space:nowrap"
_BOX = "border-left:3px solid #888;padding:2px 10px;margin:2px 0;line-height:1.5;max-width:60em"
_BADGE = "border:1px solid currentColor;border-radius:3px;padding:0 5px;font-size:85%"


def _cell(cell: str) -> str:
    if isinstance(cell, Picture):
        return cell.as_html()
    return " ".join(word.replace("_", "_<wbr>") if len(word) > _LONG else word for word in escape(cell).split(" "))


def _is_number(cell: str) -> bool:
    return cell == NO_NUMBER or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())


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
