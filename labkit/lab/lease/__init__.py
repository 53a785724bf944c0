"""Lease: how long the node that Jupyter runs on is still reserved, for a notice inside JupyterLab.

A server extension, which ``docker/jupyter/server_extension.json`` switches on; the page's half of it is
``docker/jupyter/labextension``. Provisioning writes the file that LABKIT_LEASE names. Without it there is no lease, and
nothing is shown.
"""

import os
from pathlib import Path
from typing import Any

FILE = "LABKIT_LEASE"
"""Environment variable: the file that has the lease's end."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labkit.lab.lease"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from labkit.lab.lease.handlers import LeaseHandler

    place = app.web_app.settings["base_url"].rstrip("/") + "/labkit/lease"
    file = Path(os.environ[FILE]) if os.environ.get(FILE) else None
    app.web_app.add_handlers(".*$", [(place, LeaseHandler, {"file": file})])
