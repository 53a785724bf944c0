"""A table for a terminal and for a notebook."""

import html
from collections.abc import Sequence


def as_text(title: str, rows: Sequence[Sequence[str]]) -> str:
    """The title, and each row below it, in columns."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(rows[0]) if rows else 0)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *(f"  {line}" for line in lines)])


def as_html(title: str, rows: Sequence[Sequence[str]]) -> str:
    """The same for a notebook."""
    cells = ("".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<b>{html.escape(title)}</b><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
