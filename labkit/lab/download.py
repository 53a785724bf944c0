"""Download: the address from which a browser gets a file of this machine."""

import base64
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from labkit.lab.panel import FILES, ROOT

LARGEST_BYTES = 4 * 2**20
"""A larger file is no part of a page: it would lie in every copy of the notebook's outputs."""


def link(path: Path) -> str:
    """The link as HTML; an empty string where a browser has no way to the file.

    A file below the root folder of Jupyter's server comes from the server itself, which gives nothing hidden. Another
    one is in the link, if it is small.
    """
    found = _address(path)
    if found is None:
        return ""
    name = escape(path.name, quote=True)
    return f'<a href="{escape(found, quote=True)}" download="{name}" style="text-decoration:underline">{name}</a>'


def _address(path: Path) -> str | None:
    files, root = os.environ.get(FILES), os.environ.get(ROOT)
    real = path.resolve()
    if files and root and real.is_relative_to(root):
        parts = real.relative_to(root).parts
        if not any(part.startswith(".") for part in parts):
            return f"{files}/{'/'.join(quote(part, safe='') for part in parts)}?download=1"
    if real.stat().st_size > LARGEST_BYTES:
        return None
    return f"data:application/gzip;base64,{base64.b64encode(real.read_bytes()).decode()}"
