"""Columns: a table with many columns is printed as several tables where the terminal is too narrow for it.

Text is wrapped, a number is never cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import JustifyMethod, RenderableType

from labkit.config.printable import printable
from labkit.ledger.table import Table

LEAST = 24
"""Columns of the terminal that a column of text keeps; longer text is wrapped."""

_PADDING = 2


@dataclass(kw_only=True)
class _Column:
    name: str
    is_number: bool
    most: int | None
    cells: list[str]

    @property
    def longest(self) -> int:
        longest = max(cell_len(line) for cell in (self.name, *self.cells) for line in cell.split("\n"))
        return longest if self.most is None else min(longest, max(self.most, cell_len(self.name)))

    @property
    def least(self) -> int:
        return self.longest if self.is_number else min(self.longest, LEAST)


def laid_out(table: Table, width: int) -> Iterator[RenderableType]:
    """The table for rich's console of this width; a table that is too wide becomes several, one below the other."""
    columns = [
        _Column(name=column.name, is_number=numeric, most=column.most, cells=[printable(row[at]) for row in table.rows])
        for at, (column, numeric) in enumerate(zip(table.columns, table.numeric, strict=True))
    ]
    for number, part in enumerate(_parts(columns, table.keys, width)):
        if number:
            yield ""
        drawn = _drawn(part, width)
        drawn.title = None if number else printable(table.title)
        yield drawn
    yield from map(printable, table.notes)


def _parts(columns: list[_Column], keys: int, width: int) -> list[list[_Column]]:
    """Columns that stand side by side: in as few tables as there is room for, and these about as wide."""
    parts = _filled(columns, keys, width)
    filled = (_filled(columns, keys, less) for less in range(1, width + 1))
    return next(found for found in filled if len(found) == len(parts))


def _filled(columns: list[_Column], keys: int, width: int) -> list[list[_Column]]:
    first, others = columns[:keys], columns[keys:]
    parts = [list(first)]
    for column in others:
        alone = len(parts[-1]) == len(first)
        if not alone and _least(parts[-1]) + column.least + _PADDING > width:
            parts.append(list(first))
        parts[-1].append(column)
    return parts


def _drawn(columns: Sequence[_Column], width: int) -> rich_table.Table:
    table = rich_table.Table(box=None, title_justify="left")
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
