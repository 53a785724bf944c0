"""Notebooks as tests read them."""

from pathlib import Path

import nbformat


def code_of(path: Path) -> list[str]:
    """The cells of code, in their order; none of a file that is not there."""
    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    return [cell.source for cell in cells if cell.cell_type == "code"]
