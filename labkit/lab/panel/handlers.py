"""Handlers: the addresses of the panel in Jupyter's server. Who may use the server may look, and stop a run."""

import json
import secrets
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from tornado import web

from labkit.lab.figures import COLOURS, LABELS
from labkit.lab.panel.feed import Feed
from labkit.lab.panel.gpus import Gpus
from labkit.ledger.errors import LedgerError
from labkit.memory.categories import STACKED_CATEGORIES

PAGE = Path(__file__).with_name("page.html")


def handlers(place: str, runs: Path) -> list[tuple[str, type[JupyterHandler], dict[str, Any]]]:
    """What is served below ``place`` of the runs in a ledger."""
    run = r"/([^/]+)/([^/]+)/([^/]+)"
    feed, gpus = Feed(runs), Gpus()
    return [
        (place + "/?", _Page, {"place": place, "feed": feed}),
        (place + "/list", _List, {"feed": feed}),
        (place + "/gpus", _Gpus, {"gpus": gpus}),
        (place + run, _Page, {"place": place, "feed": feed}),
        (place + run + "/feed", _Feed, {"feed": feed}),
        (place + run + "/stop", _Stop, {"feed": feed}),
    ]


def page(place: str, run: str, nonce: str) -> str:
    """The page of a run of the panel that is at ``place``; ``nonce`` is what its script may run by."""
    stack = [{"category": c, "label": LABELS[c], "colour": COLOURS[c]} for c in STACKED_CATEGORIES]
    facts = json.dumps({"place": place, "run": run, "stack": stack}).replace("<", "\\u003c")  # no text ends the script
    return PAGE.read_text(encoding="utf-8").replace("{nonce}", nonce).replace("{facts}", facts)


def _no_run(run: tuple[str, ...]) -> web.HTTPError:
    return web.HTTPError(404, f"there is no run {'/'.join(run)}; its folder was deleted, moved or never there")


class _Page(JupyterHandler):
    def initialize(self, place: str, feed: Feed) -> None:
        self._place, self._feed = place, feed

    @web.authenticated
    async def get(self, *run: str) -> None:
        if run and not await self._feed.has(*run):
            raise _no_run(run)
        _ = self.xsrf_token  # sets the cookie that a stop needs, also where no other page has
        nonce = secrets.token_urlsafe(16)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        # in addition to what Jupyter says of frames: only the page's own script runs, and it asks only this server
        self.set_header(
            "Content-Security-Policy",
            f"{self.content_security_policy}; default-src 'none'; script-src 'nonce-{nonce}'; "
            "style-src 'unsafe-inline'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'",
        )
        self.finish(page(self._place, "/".join(run), nonce))


class _Answer(APIHandler):
    """JSON that is not kept, and no page of another origin may ask for."""

    _track_activity = False  # a panel that is left open keeps no idle server alive

    def initialize(self, feed: Feed) -> None:
        self._feed = feed

    def say(self, found: bytes) -> None:
        """Answer with JSON."""
        self.set_header("Cache-Control", "no-store")
        self.finish(found)


class _List(_Answer):
    @web.authenticated
    async def get(self) -> None:
        self.say(await self._feed.newest())


class _Feed(_Answer):
    @web.authenticated
    async def get(self, *run: str) -> None:
        seen = self.get_query_argument("from", "0")
        if not (seen.isascii() and seen.isdecimal() and len(seen) <= 15):
            raise web.HTTPError(400, "from is the number that the last answer had as next")
        found = await self._feed.of(run, int(seen))
        if found is None:
            raise _no_run(run)
        self.say(found)


class _Stop(_Answer):
    """The one that changes something. As for all that does in Jupyter's server, a browser has to send the token of its
    ``_xsrf`` cookie too, which a page of another origin cannot read."""

    _track_activity = True

    @web.authenticated
    async def post(self, *run: str) -> None:
        try:
            if not await self._feed.stop(*run):
                raise _no_run(run)
        except LedgerError as error:
            raise web.HTTPError(409, str(error)) from None
        self.set_status(202)
        self.say(b"{}")


class _Gpus(_Answer):
    def initialize(self, gpus: Gpus) -> None:
        self._gpus = gpus

    @web.authenticated
    async def get(self) -> None:
        self.say(json.dumps(await self._gpus.look()).encode())
