"""One student, three processes, ``up``, ``down``, ``extend`` and ``collect`` in any order and at any moment: never two
leases, never lost work. The seeds say which order; the services' own speed is part of it, and no seed repeats that.

Two seeds, so that all tests end in time; RIG_SEEDS=10 is ten.
"""

import contextlib
import io
import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest
from conftest import VM
from rig.remains import remains

from provisioning import booking, chameleon, cli, servers

PROCESSES, CALLS = 3, 3
SEEDS = range(int(os.environ.get("RIG_SEEDS") or 2))
VERBS = {"up": 5, "collect": 3, "down": 2, "extend": 2}
"""How often each is drawn: without ``up`` there is nothing to lose."""
WRITE_EVERY_S = 0.3


def worker(calls, results) -> None:
    """A process that runs commands as they come, with what a terminal would show."""
    while (call := calls.get()) is not None:
        pause_s, arguments = call
        threading.Event().wait(pause_s)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            code = cli.main(arguments)
        results.put((arguments[0], code, shown.getvalue()))


@pytest.fixture(scope="module")
def workers():
    """Processes that live for all seeds: importing the clients takes longer than most calls."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    queues = [context.Queue() for _ in range(PROCESSES)]
    running = [context.Process(target=worker, args=(queue, results), daemon=True) for queue in queues]
    for process in running:
        process.start()
    yield queues, results
    for queue in queues:
        queue.put(None)
    for process in running:
        process.join(30)
        process.kill()


class Writer(threading.Thread):
    """A student who saves a new file every moment, as long as a lab runs on the node."""

    def __init__(self, plane) -> None:
        super().__init__(daemon=True)
        self.plane, self.over = plane, threading.Event()
        self.written: dict[str, str] = {}

    def run(self) -> None:
        while not self.over.wait(WRITE_EVERY_S):
            for home in (self.plane.nodes.folder / "homes").glob("*"):
                lab, workspace = home / ".docker-state" / "container", home / "workspace"
                if lab.exists() and workspace.is_dir() and self._is_on(home.name):
                    name = f"note-{len(self.written):04}.txt"
                    with contextlib.suppress(OSError):  # the lab was stopped between two lines
                        partial = workspace / f".{name}"
                        partial.write_text(name)
                        partial.rename(workspace / name)
                        self.written[name] = home.name

    def _is_on(self, server_id: str) -> bool:
        asked = f"select count(*) from nova_cell1.instances where uuid = '{server_id}' and deleted = 0"
        return self.plane.database.run(f"{asked} and vm_state = 'active' and task_state is null") == ["1"]


def lost(plane, writer: Writer, folder: Path) -> list[str]:
    """Files that are neither on a node that lives nor at home."""
    home = {path.name for path in folder.rglob("note-*.txt")}
    alive = {server.id for server in plane.admin.compute.servers(all_projects=True)}
    return [name for name, server in writer.written.items() if name not in home and server not in alive]


@pytest.mark.parametrize("seed", SEEDS)
def test_never_two_leases_and_never_lost_work(plane, book, workers, seed):
    draw, netid = random.Random(seed), f"mixed{seed}"
    made = book(netid)
    queues, results = workers
    verbs = [draw.choices([*VERBS], [*VERBS.values()], k=CALLS) for _ in queues]
    verbs[0][0] = "up"
    print(f"seed {seed}: {verbs}")
    for queue, chosen in zip(queues, verbs, strict=True):
        for verb in chosen:
            more = {"extend": ["--by", "5m"]}.get(verb, [])
            queue.put((draw.uniform(0, 2), [verb, netid, "--node", VM, *more]))
    writer = Writer(plane)
    writer.start()
    try:
        ended = [results.get(timeout=300) for _ in range(PROCESSES * CALLS)]
    finally:
        writer.over.set()
        writer.join()
    for verb, code, text in ended:
        assert "defect of this program" not in text and "Traceback" not in text, (verb, text)
        assert code in (0, 1), (verb, text)
    counted = {kind: len(names) for kind, names in remains(plane).items()}
    assert all(count == 1 for count in counted.values()), (counted, ended)
    assert lost(plane, writer, made.folder) == [], ended
    # whatever state it is in, one more run completes it, and all goes
    assert chameleon.up(made) is not None
    counted = {kind: len(names) for kind, names in remains(plane).items()}
    assert counted == {kind: 1 for kind in ("servers", "volumes", "addresses", "groups", "keys", "leases")}
    assert servers.find(made) is not None
    chameleon.collect(made)
    chameleon.teardown(made)
    assert remains(plane) == {}
    assert lost(plane, writer, made.folder) == []
    assert booking.home() in made.folder.parents
