"""Feed: answers for panels. Files are read in a few threads, for Jupyter serves notebooks in its own."""

import asyncio
import functools
import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from labkit.lab.panel.names import find_run, newest
from labkit.lab.panel.watched import Said, Watched

READERS = 4
KEPT = 32
"""Runs whose answer is kept; one that was asked for longest ago makes room."""


class Feed:
    """The runs of a ledger that panels look at. All that ask for one while it is read share what is read."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="labkit-panel")
        self._watched: OrderedDict[tuple[str, ...], Watched] = OrderedDict()
        self._reading: dict[tuple[str, ...], asyncio.Future] = {}

    async def has(self, *run: str) -> bool:
        """Whether there is such a run."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, find_run, self._runs, *run) is not None

    async def stop(self, *run: str) -> bool:
        """Request a stop of a run; False where there is no such run. Raises ``LedgerError`` for one that is over."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._stop, run)

    async def newest(self) -> bytes:
        """The newest runs, as JSON."""
        return await self._shared((), lambda: json.dumps(newest(self._runs)).encode())

    async def of(self, run: tuple[str, ...], seen: int) -> bytes | None:
        """How a run stands, as JSON; None without such a run.

        ``next`` is the number to ask with as ``seen``: where nothing has changed since, the answer has nothing else.
        ``more`` says that there is more to read already.
        """
        found = await self._shared(run, functools.partial(self._read, run, self._watched.get(run)))
        if found is None:
            self._watched.pop(run, None)
            return None
        watched, said = found
        self._watched[run] = watched
        self._watched.move_to_end(run)
        if len(self._watched) > KEPT:
            self._watched.popitem(last=False)
        if said.number == seen:
            return json.dumps({"next": seen, "more": said.more}).encode()
        return said.answer

    def _stop(self, run: tuple[str, ...]) -> bool:
        folder = find_run(self._runs, *run)
        if folder is not None:
            folder.request_stop()
        return folder is not None

    def _read(self, run: tuple[str, ...], watched: Watched | None) -> tuple[Watched, Said] | None:
        folder = find_run(self._runs, *run)
        if folder is None:
            return None
        watched = watched or Watched(folder)
        return watched, watched.read()

    async def _shared(self, key: tuple[str, ...], read: Callable[[], Any]) -> Any:
        """What ``read`` gives in a thread. One call at a time for each key, and others who ask meanwhile share it."""
        if key not in self._reading:
            self._reading[key] = asyncio.get_running_loop().run_in_executor(self._pool, read)
            self._reading[key].add_done_callback(lambda _: self._reading.pop(key))
        return await asyncio.shield(self._reading[key])  # a page that is closed does not end another's reading
