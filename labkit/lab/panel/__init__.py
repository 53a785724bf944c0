"""Panel: a page of Jupyter's server that shows a run in progress. The kernel has no part in it.

A server extension; ``docker/jupyter/server_extension.json`` switches it on. The page asks again and again how the
run stands, so that it is there again after a reload or a new kernel. The server reads a run's event file as it grows,
once for all panels, and in threads of its own.
"""

import os
from html import escape
from pathlib import Path
from typing import Any

from labkit.config.workspace import Workspace
from labkit.lab.panel.names import NAME, lies_in
from labkit.ledger.view import View

PLACE = "LABKIT_PANEL"
"""Environment variable that kernels of the server get: where the panel is, such as ``/labkit/panel``."""

RUNS = "LABKIT_PANEL_RUNS"
"""Environment variable: the ledger that the panel shows."""

FILES = "LABKIT_FILES"
"""Environment variable: where the server gives files of its root folder, such as ``/files``."""

ROOT = "LABKIT_FILES_ROOT"
"""Environment variable: that folder."""


class Panel(View):
    """The panel of one run, in the cell of a notebook."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name

    @classmethod
    def of(cls, folder: str) -> "Panel | None":
        """The panel of the run in ``folder``; None without a server that has the panel and shows this ledger."""
        runs, place = os.environ.get(RUNS), os.environ.get(PLACE)
        if not runs or not place or not folder.startswith(runs + os.sep):
            return None
        run = folder.removeprefix(runs + os.sep)
        if not all(NAME.fullmatch(part) for part in Path(run).parts) or not lies_in(Path(runs), Path(folder)):
            return None
        return cls(f"{place}/{run}", run)

    def _text(self) -> str:
        return f"{self.name}: {self.url} shows it while it runs"

    def _html(self) -> str:
        url, name = escape(self.url, quote=True), escape(self.name, quote=True)
        style = "width:100%;height:330px;border:0"
        return f'<iframe src="{url}" title="run {name}" style="{style}"></iframe>'


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labkit.lab.panel"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from labkit.lab.panel.handlers import handlers

    base = app.web_app.settings["base_url"].rstrip("/")
    place = base + "/labkit/panel"
    runs = Workspace.find().runs
    app.web_app.add_handlers(".*$", handlers(place, runs))
    os.environ |= {PLACE: place, RUNS: str(runs), FILES: base + "/files", ROOT: os.path.realpath(app.root_dir)}
