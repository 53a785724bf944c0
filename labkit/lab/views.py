"""Views of a cell: lines below a headline, and several views below each other."""

from collections.abc import Iterable
from html import escape

from labkit.ledger.view import View

INDENT = "  "


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


class Several(View):
    """Views one below the other."""

    def __init__(self, views: Iterable[View]) -> None:
        self.views = list(views)

    def _text(self) -> str:
        return "\n".join(view.text() for view in self.views)

    def _html(self) -> str:
        return "".join(view.html() for view in self.views)


_BOX = "border-left:3px solid #888;padding:2px 10px;margin:2px 0;line-height:1.5;max-width:60em"
_BADGE = "border:1px solid currentColor;border-radius:3px;padding:0 5px;font-size:85%"
