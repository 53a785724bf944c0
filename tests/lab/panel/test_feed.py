"""Who reads what, and where: files in threads, each run once for all panels, Jupyter's own thread never."""

import asyncio
import json
import threading

import pytest
from panel_runs import Runs, progress, start

from labkit.lab.panel import feed as feeds
from labkit.lab.panel.feed import Feed
from labkit.lab.panel.watched import Watched

RUN = ("tiny", "reduced_batch", "a")
WAIT_S = 10
pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def made(tmp_path):
    return Runs(tmp_path / "runs")


class Held:
    """Reading that begins and does not end before it may; which threads read, and how often."""

    def __init__(self, monkeypatch):
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.threads, self.count, self.at_once, self.most_at_once = set(), 0, 0, 0
        self._lock = threading.Lock()
        real = Watched.read

        def read(run):
            with self._lock:
                self.count += 1
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            self.threads.add(threading.get_ident())
            self.begun.set()
            assert self.may_end.wait(WAIT_S)
            with self._lock:
                self.at_once -= 1
            return real(run)

        monkeypatch.setattr(Watched, "read", read)


def test_twenty_panels_share_one_reading_and_jupyters_thread_runs_on(made, monkeypatch):
    made.add("a", start(), progress(1, 1.0))
    held = Held(monkeypatch)

    async def ask():
        feed = Feed(made.root)
        panels = [asyncio.create_task(feed.of(RUN, 0)) for _ in range(20)]
        while not held.begun.is_set():
            await asyncio.sleep(0.01)
        panels[3].cancel()  # a page is closed
        assert json.loads(await feed.newest())[0]["id"] == "a"  # while the reading runs
        held.may_end.set()
        return await asyncio.gather(*panels, return_exceptions=True)

    found = asyncio.run(ask())
    assert held.count == 1
    assert held.threads.isdisjoint({threading.get_ident()})
    assert isinstance(found.pop(3), asyncio.CancelledError)
    assert len(set(found)) == 1 and json.loads(found[0])["losses"]["mean"] == [1.0]


def test_so_many_files_are_read_at_once_and_no_more(made, monkeypatch):
    names = [f"run{number}" for number in range(3 * feeds.READERS)]
    for name in names:
        made.add(name, start())
    held = Held(monkeypatch)

    async def ask():
        feed = Feed(made.root)
        panels = [asyncio.create_task(feed.of((*RUN[:2], name), 0)) for name in names]
        while held.count < feeds.READERS:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        held.may_end.set()
        return await asyncio.gather(*panels)

    assert all(asyncio.run(ask()))
    assert (held.count, held.most_at_once) == (len(names), feeds.READERS)


def test_an_answer_that_was_seen_is_not_given_again(made):
    folder = made.add("a", start(), progress(1, 1.0))

    async def ask():
        feed = Feed(made.root)
        first = json.loads(await feed.of(RUN, 0))
        again = json.loads(await feed.of(RUN, first["next"]))
        with folder.events.open("a") as file:
            file.write(progress(2, 2.0))
        return first, again, json.loads(await feed.of(RUN, first["next"]))

    first, again, later = asyncio.run(ask())
    assert again == {"next": first["next"], "more": False}
    assert later["losses"]["mean"] == [1.0, 2.0] and later["next"] != first["next"]


def test_a_run_that_vanished_is_none_and_one_that_is_there_again_is_told_whole(made):
    folder = made.add("a", start(), progress(1, 1.0))

    async def ask():
        feed = Feed(made.root)
        first = json.loads(await feed.of(RUN, 0))
        folder.path.rename(folder.path.with_name("away"))
        gone = await feed.of(RUN, first["next"])
        folder.path.with_name("away").rename(folder.path)
        return gone, json.loads(await feed.of(RUN, first["next"]))

    gone, back = asyncio.run(ask())
    assert gone is None
    assert back["losses"]["mean"] == [1.0]


def test_the_answers_of_so_many_runs_are_kept_and_no_more(made, monkeypatch):
    monkeypatch.setattr(feeds, "KEPT", 2)
    for name in "abcd":
        made.add(name, start())

    async def ask():
        feed = Feed(made.root)
        for name in "abcdad":
            assert await feed.of((*RUN[:2], name), 0)
        return [run[-1] for run in feed._watched]

    assert asyncio.run(ask()) == ["a", "d"]
