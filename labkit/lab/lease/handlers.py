"""The address that the notice asks. Who may use the server may ask."""

from datetime import UTC, datetime
from pathlib import Path

from jupyter_server.base.handlers import APIHandler
from tornado import web

from labkit.lab.lease.end import read_end


class LeaseHandler(APIHandler):
    """The lease's end and the server's time, both in UTC: a laptop's clock may be wrong."""

    _track_activity = False  # a page that is merely open asks too, and that is no work

    def initialize(self, file: Path | None) -> None:
        """Jupyter calls it for each request."""
        self._file = file

    @web.authenticated
    async def get(self) -> None:
        """``{"end": "2026-11-29T16:50:00+00:00", "now": ...}``; the end is null where there is no lease."""
        try:
            end = read_end(self._file)
        except ValueError as error:
            raise web.HTTPError(500, str(error)) from None
        self.set_header("Cache-Control", "no-store")
        self.finish({"end": end.isoformat() if end else None, "now": datetime.now(UTC).isoformat()})
