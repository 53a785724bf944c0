"""Columns: a table of many, which go below each other where a terminal has no room for them side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table

from labkit.config.printable import printable

LEAST = 24
"""Columns of the terminal that a column of text keeps; longer text is wrapped."""

_PADDING = 2


@dataclass(kw_only=True)
class _Column:
    name: str
    is_number: bool
    most: int | None
    cells: list[str] = field(default_factory=list)

    @property
    def longest(self) -> int:
        longest = max(cell_len(line) for cell in (self.name, *self.cells) for line in cell.split("\n"))
        return longest if self.most is None else min(longest, max(self.most, cell_len(self.name)))

    @property
    def least(self) -> int:
        return self.longest if self.is_number else min(self.longest, LEAST)


class WideTable:
    """A table for rich's console. Where it is too wide, the columns that have no room follow in a table below.

    Each of these begins with the ``keys`` first columns. Text is wrapped, a number is never cut.
    """

    def __init__(self, title: str, keys: int = 1, caption: str = "") -> None:
        self.title, self.keys, self.caption = printable(title), keys, printable(caption)
        self._columns: list[_Column] = []

    def add_text(self, *names: str, most: int | None = None) -> None:
        """Columns of text, each of at most so many columns of the terminal."""
        self._columns += [_Column(name=name, is_number=False, most=most) for name in names]

    def add_numbers(self, *names: str) -> None:
        """Columns of numbers, which stand to the right."""
        self._columns += [_Column(name=name, is_number=True, most=None) for name in names]

    def add_row(self, *cells: str) -> None:
        """One line, with a cell for each column."""
        for column, cell in zip(self._columns, cells, strict=True):
            column.cells.append(printable(cell))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        parts = self._parts(options.max_width)
        for number, part in enumerate(parts):
            if number:
                yield ""
            table = self._table(part, options.max_width)
            table.title = self.title if not number else None
            yield table
        if self.caption:
            yield self.caption

    def _parts(self, width: int) -> list[list[_Column]]:
        """Columns that stand side by side: in as few tables as there is room for, and these about as wide."""
        parts = self._filled(width)
        return next(found for less in range(1, width + 1) if len(found := self._filled(less)) == len(parts))

    def _filled(self, width: int) -> list[list[_Column]]:
        keys, others = self._columns[: self.keys], self._columns[self.keys :]
        parts = [list(keys)]
        for column in others:
            alone = len(parts[-1]) == len(keys)
            if not alone and _least(parts[-1]) + column.least + _PADDING > width:
                parts.append(list(keys))
            parts[-1].append(column)
        return parts

    def _table(self, columns: Sequence[_Column], width: int) -> Table:
        table = Table(box=None, title_justify="left")
        spare = width - _least(columns)
        for column in columns:
            more = max(0, min(spare, column.longest - column.least))
            spare -= more
            justify: JustifyMethod = "right" if column.is_number else "left"
            # where not even one column has room beside the keys, rich makes them narrower and folds what is in them
            exact = column.least + more if spare >= 0 else None
            table.add_column(column.name, justify=justify, overflow="fold", width=exact)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*row)
        return table


def _least(columns: Sequence[_Column]) -> int:
    return sum(column.least + _PADDING for column in columns)
