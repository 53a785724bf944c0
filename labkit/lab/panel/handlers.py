"""Handlers: the addresses of the panel in Jupyter's server. Who may use the server may look."""

import json
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from labkit.lab.figures import COLOURS, LABELS, SHOWN
from labkit.lab.panel.feed import feed, find_run, newest
from labkit.lab.panel.gpus import Gpus

PAGE = Path(__file__).with_name("page.html")


def handlers(place: str, runs: Path) -> list[tuple[str, type[JupyterHandler], dict[str, Any]]]:
    """What is served below ``place`` of the runs in a ledger."""
    run = r"/([^/]+)/([^/]+)/([^/]+)"
    gpus = Gpus()
    return [
        (place + "/?", _Page, {"place": place, "runs": runs}),
        (place + "/list", _List, {"runs": runs}),
        (place + "/gpus", _Gpus, {"gpus": gpus}),
        (place + run, _Page, {"place": place, "runs": runs}),
        (place + run + "/feed", _Feed, {"runs": runs}),
    ]


class _Page(JupyterHandler):
    def initialize(self, place: str, runs: Path) -> None:
        self._place, self._runs = place, runs

    @web.authenticated
    def get(self, *run: str) -> None:
        if run and find_run(self._runs, *run) is None:
            raise web.HTTPError(404, f"there is no run {'/'.join(run)} in {self._runs}")
        stack = [{"category": c, "label": LABELS[c], "colour": COLOURS[c]} for c in SHOWN]
        facts = {"place": self._place, "run": "/".join(run), "stack": stack}
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(PAGE.read_text(encoding="utf-8").replace("{facts}", json.dumps(facts).replace("<", "\\u003c")))


class _Json(JupyterHandler):
    def initialize(self, runs: Path) -> None:
        self._runs = runs

    def say(self, found: Any) -> None:
        """Answer with JSON that nobody keeps."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(found))


class _List(_Json):
    @web.authenticated
    def get(self) -> None:
        self.say(newest(self._runs))


class _Feed(_Json):
    @web.authenticated
    def get(self, *run: str) -> None:
        folder = find_run(self._runs, *run)
        offset = self.get_query_argument("from", "0")
        if folder is None:
            raise web.HTTPError(404, f"there is no run {'/'.join(run)} in {self._runs}")
        if not offset.isdecimal() or len(offset) > 15:
            raise web.HTTPError(400, f"from={offset!r} is no number of bytes")
        self.say(feed(folder, int(offset)))


class _Gpus(_Json):
    def initialize(self, gpus: Gpus) -> None:
        self._gpus = gpus

    @web.authenticated
    async def get(self) -> None:
        self.say(await self._gpus.look())
