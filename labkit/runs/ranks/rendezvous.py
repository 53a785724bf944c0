"""The rendezvous of ranks that a launcher has started: rank 0 leaves a message, and each other rank takes it once."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from labkit.ledger.errors import LedgerError
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class Message:
    """What rank 0 has said: the run, the checkpoint to resume from, and a mark that no other message has."""

    run: RunFolder
    saved: Path | None
    mark: str


class Rendezvous:
    """A folder that all ranks of a launch find by its name; earlier launches may have used it too.

    Rank 0 calls ``open`` before it locks a run and ``leave_message`` after it; so a message belongs to this launch if
    the run that it names is being watched, and the message is unchanged after that check.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._message = folder / "message.json"

    def open(self) -> None:
        """As rank 0: take back what an earlier launch has left."""
        self._message.unlink(missing_ok=True)

    def leave_message(self, run: RunFolder, saved: Path | None) -> None:
        """As rank 0: say where the run is, and from which checkpoint it resumes.

        Raises ``LedgerError`` when that cannot be written.
        """
        mark = secrets.token_hex(8)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._message, {"run": str(run.path), "saved": str(saved) if saved else None, "mark": mark})
        except OSError as error:
            raise LedgerError(
                f"{self._message} cannot be written: {error.strerror}; the other ranks look there."
            ) from None
        for claim in self._folder.glob("*.rank*"):  # of messages that cannot be read any more
            if not claim.name.startswith(mark):
                claim.unlink(missing_ok=True)

    def take_message(self, rank: int) -> Message | None:
        """As another rank: the message, which is this rank's from now on; None while there is none for it."""
        message = self._read()
        if message is None or not message.run.is_watched:
            return None
        again = self._read()
        if again is None or again.mark != message.mark:
            return None
        try:
            self._claim(message.mark, rank).touch(exist_ok=False)
        except FileExistsError:  # another process has this rank's place already
            return None
        return message

    def is_open(self) -> bool:
        """Whether rank 0 has left a message."""
        return self._read() is not None

    def have_arrived(self, ranks: int) -> bool:
        """Whether all ranks after the first have taken the message that is there now."""
        message = self._read()
        return message is not None and all(self._claim(message.mark, rank).exists() for rank in range(1, ranks))

    def _read(self) -> Message | None:
        try:
            said = json.loads(self._message.read_text(encoding="utf-8"))
            saved = Path(said["saved"]) if said["saved"] else None
            return Message(run=RunFolder(Path(said["run"])), saved=saved, mark=str(said["mark"]))
        except (OSError, ValueError, KeyError, TypeError):  # not there yet
            return None

    def _claim(self, mark: str, rank: int) -> Path:
        return self._folder / f"{mark}.rank{rank}"
