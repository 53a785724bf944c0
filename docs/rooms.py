"""Picture of the rooms: how large each is, and which imports which. Drawn from the code and from the table of tests.

    python docs/rooms.py

Writes ``docs/rooms.svg``. A room is a folder of ``labkit``; what each may import says ``tests/test_rooms.py``.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import test_rooms as table  # noqa: E402

PICTURE = ROOT / "docs" / "rooms.svg"
ROW, NAME, BAR, CELL, HEAD, EDGE = 30, 96, 210, 44, 118, 16
"""Sizes in pixels."""

INK, FAINT, USED, ALLOWED = "#1f2430", "#8a91a0", "#3b6fb6", "#e3e9f2"
ROUNDED_TO = 100
"""Lines are drawn in hundreds, so that not every edit of labkit changes the picture."""


def in_order() -> list[str]:
    """All rooms from the ground up: each stands after those that it may import."""
    rooms = [*table.MAY_IMPORT]

    def height(room: str) -> int:
        return 1 + max((height(other) for other in table.MAY_IMPORT[room]), default=0)

    return sorted(rooms, key=lambda room: (height(room), rooms.index(room)))


def lines() -> dict[str, int]:
    """Lines of Python in each room, rounded."""
    found = dict.fromkeys(in_order(), 0)
    for path in table.MODULES:
        found[table.room_of(table.parts_of(path))] += len(path.read_text(encoding="utf-8").splitlines())
    return {room: round(count / ROUNDED_TO) * ROUNDED_TO for room, count in found.items()}


def importing() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second."""
    found = set()
    for path in table.MODULES:
        parts = table.parts_of(path)
        package = parts if path.stem == "__init__" else parts[:-1]
        room = table.room_of(parts)
        found |= {(room, other) for other in table.imported_rooms(path.read_text(encoding="utf-8"), package)}
    return found


def _text(x: float, y: float, text: str, size: int = 13, color: str = INK, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{color}"/>'


def draw() -> str:
    """The picture, as SVG."""
    rooms, size, arrows = in_order(), lines(), importing()
    whole, largest = sum(size.values()), max(size.values())
    left = EDGE + NAME + BAR + 80  # where the columns begin
    width, height = left + CELL * len(rooms) + 3 * EDGE, HEAD + ROW * len(rooms) + 56
    drawn = [_box(0, 0, width, height, "#ffffff"), _text(EDGE, 30, "The rooms of labkit", 18)]
    drawn.append(_text(EDGE, 52, f"{whole:,} lines of Python, to the nearest {ROUNDED_TO}", 12, FAINT))
    for column, room in enumerate(rooms):
        x = left + CELL * (column + 0.5)
        drawn.append(_text(x, HEAD - 10, room, 12, FAINT, f' transform="rotate(-40 {x:g} {HEAD - 10})"'))
    for row, room in enumerate(reversed(rooms)):  # the ground is at the bottom
        y = HEAD + ROW * row
        bar = BAR * size[room] / largest
        drawn.append(_text(EDGE, y + 20, room))
        drawn.append(_box(EDGE + NAME, y + 6, max(bar, 2), ROW - 12, "#c9a227"))
        share = f"{size[room]:,} · {100 * size[room] / whole:.0f}%"
        drawn.append(_text(EDGE + NAME + bar + 6, y + 20, share, 11, FAINT))
        for column, other in enumerate(rooms):
            x = left + CELL * column
            if (room, other) in arrows and room != other:
                drawn.append(_box(x + 4, y + 3, CELL - 8, ROW - 6, USED))
            elif other in table.MAY_IMPORT[room]:
                drawn.append(_box(x + 4, y + 3, CELL - 8, ROW - 6, ALLOWED))
            elif room == other:
                drawn.append(_text(x + CELL / 2, y + 19, "·", 16, FAINT, ' text-anchor="middle"'))
    y = height - 24
    drawn.append(_box(left + 4, y - 12, 20, 14, USED) + _text(left + 30, y, "imports", 12))
    drawn.append(_box(left + 104, y - 12, 20, 14, ALLOWED) + _text(left + 130, y, "may, and does not", 12))
    drawn.append(_text(left + 260, y, "empty: may not; a test refuses it", 12))
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
