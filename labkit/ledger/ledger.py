"""The ledger: all runs below one folder, a folder a run."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.config.layers import Resolved
from labkit.ledger.errors import LedgerError
from labkit.ledger.lock import new_lock, old_lock
from labkit.ledger.parts import Fallback
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.whole_file import write_whole


class Ledger:
    """All runs below one folder: ``<profile>/<experiment>/<id>/``.

        ledger = Ledger(Workspace.find().runs)
        [record.peak_bytes for record in ledger.records("tiny", "baseline")]

    A folder that is not there is a ledger without runs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def open_run(
        self, resolved: Resolved, overrides: dict[str, Any], extra: dict[str, Any], fallback: Fallback | None = None
    ) -> Generator[RunFolder]:
        """Make a new run's folder and keep it locked while the context lasts.

        The folder gets its name when its ``config.json`` is whole. Raises ``LedgerError`` when it cannot be made.
        """
        parent = self.root / resolved.profile.name / resolved.experiment.name
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        record = Record(
            id=run_id, experiment=resolved.experiment.name, profile=resolved.profile.name, status="running",
            overrides=overrides, config=resolved.config.to_dict(), config_hash=resolved.config.hash,
            created=now.isoformat(timespec="seconds"),
            expected=resolved.expected, fallback=fallback,
            job=os.environ.get("SLURM_JOB_ID"),
        )  # fmt: skip
        hidden = parent / f".{run_id}"
        with contextlib.ExitStack() as stack:
            try:
                hidden.mkdir(parents=True)
                lock = stack.enter_context(new_lock(hidden))
                request = {"config": record.config, "origins": resolved.origins, "record": record.to_dict(), **extra}
                write_whole(hidden / "config.json", request)
                folder = RunFolder(hidden.rename(parent / run_id))
                folder.lock = lock.fileno()
            except OSError as error:
                shutil.rmtree(hidden, ignore_errors=True)
                raise LedgerError(
                    f"the run's folder {parent} cannot be written: {error.strerror}. "
                    "Set LABKIT_RUNS to a folder that can."
                ) from None
            yield folder

    @contextlib.contextmanager
    def reopen(self, folder: RunFolder) -> Generator[Record]:
        """Lock a run that is over, to resume it; its record. Raises ``LedgerError`` while it still runs."""
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(old_lock(folder.path))
            except BlockingIOError:
                raise LedgerError(
                    f"the run {folder.path.name} is still running; wait for its end, or stop it."
                ) from None
            except OSError as error:
                raise LedgerError(f"the run's folder {folder.path} cannot be written: {error.strerror}.") from None
            record = folder.read_ended()
            folder.lock = lock.fileno()
            yield record
            folder.lock = None

    def folders(self, profile: str | None = None, experiment: str | None = None) -> list[RunFolder]:
        """Folders where runs lie, oldest first; a damaged one is among them, and says so when it is read."""
        found = [
            run
            for profiles in _entries(self.root, profile)
            for experiments in _entries(profiles, experiment)
            for run in _entries(experiments)
        ]
        return [RunFolder(Path(path)) for path in sorted(found, key=lambda path: path.rpartition("/")[2])]

    def records(
        self,
        profile: str | None = None,
        experiment: str | None = None,
        on_skipped: Callable[[LedgerError], None] = lambda error: None,
    ) -> list[Record]:
        """Records, oldest first, of runs that ended and that are running.

        ``on_skipped`` is called with the error of each folder that cannot be read: which, why, and what to do.
        """
        found = []
        for folder in self.folders(profile, experiment):
            try:
                found.append(folder.read())
            except LedgerError as error:
                on_skipped(error)
        return found

    def find(self, run_id: str) -> RunFolder:
        """The run whose id is, or else begins with, ``run_id``; ``LedgerError`` when none or several do."""
        found = [folder for folder in self.folders() if folder.path.name.startswith(run_id)]
        found = [folder for folder in found if folder.path.name == run_id] or found
        if len(found) != 1:
            said = "no run" if not found else f"{len(found)} runs"
            raise LedgerError(f"{said} in {self.root} with an id that begins with '{run_id}'; see 'labkit compare'.")
        return found[0]


def _entries(folder: Path | str, name: str | None = None) -> list[str]:
    """Folders in a folder, without hidden ones; a link that leads nowhere counts, since a folder was meant."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.path
                for entry in entries
                if name in (None, entry.name)
                and not entry.name.startswith(".")
                and (entry.is_symlink() or entry.is_dir())
            ]
    except OSError:
        return []
