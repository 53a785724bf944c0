"""Notebook: whether a file that was handed in is one."""

import json

MOST_PARTS = 1_000_000
"""Lists and objects that a notebook may have: more than any has, and few enough to be read."""


def fault(data: bytes) -> str:
    """What is wrong with a notebook, empty where nothing is: then it can be read and has cells."""
    if not data.strip(b"\0 \t\r\n"):
        return "it is empty"
    if data.count(b"[") + data.count(b"{") > MOST_PARTS:
        return "it has more parts than any notebook"
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return "it is cut off, or no notebook"
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        return "it is not a notebook: it has no list of cells"
    if not any(cell.get("source") for cell in cells):
        return "it has no cell with anything in it"
    return ""
