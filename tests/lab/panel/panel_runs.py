"""Runs as they lie on disk, made line by line."""

import json

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.memory.categories import CATEGORIES

TOKEN = "only-for-this-test"
CREATED = "2026-01-01T00:00:00+00:00"
BYTES = dict.fromkeys(CATEGORIES, 2**20)


def line(kind, **values):
    """One event as the child writes it."""
    return json.dumps({"event": kind, "time": 1.0} | values) + "\n"


def start(steps=10, **values):
    facts = {"source": "simulated GPU", "capacity_bytes": 100 * 2**20, "device": "CPU", "versions": {}, "model": {}}
    return line("start", steps=steps, **facts | values)


def phase(step, name="after_forward", peak=BYTES, micro_step=0):
    return line("phase", phase=name, step=step, micro_step=micro_step, end=BYTES, peak=peak, highest=peak)


def progress(step, *losses, train_seconds=1.0):
    return line("progress", step=step, losses=list(losses), samples=step, train_seconds=train_seconds)


def result(status="ok", **values):
    return line("result", status=status, **values)


def resumed(step):
    ended = {"status": "killed", "reason": None, "exit_code": None, "died_in": None, "wall_seconds": 1.0}
    return line("resumed", step=step, samples=step, train_seconds=1.0, validation_losses=[], ended=ended)


class Runs:
    """The runs of one ledger."""

    def __init__(self, root):
        self.root = root
        self._config = resolve(Workspace.find(), "reduced_batch", None, "tiny").config

    def add(self, id, *lines, profile="tiny", experiment="reduced_batch", root=None, **values):
        """The folder of a run that no one watches and that has no record yet."""
        folder = (root or self.root) / profile / experiment / id
        folder.mkdir(parents=True)
        record = self.record(id, profile=profile, experiment=experiment, **values)
        (folder / "config.json").write_text(json.dumps({"record": record.to_dict()}))
        (folder / "events.jsonl").write_text("".join(lines))
        return RunFolder(folder)

    def record(self, id, **values):
        facts = {
            "id": id, "experiment": "reduced_batch", "profile": "tiny", "status": "running", "overrides": {},
            "config": self._config.to_dict(), "config_hash": self._config.hash, "created": CREATED,
        }  # fmt: skip
        return Record(**facts | values)
