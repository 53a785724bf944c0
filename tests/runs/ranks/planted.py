"""Plant what would run: a pickle in each file of a checkpoint, one kind after the other, and see that none does."""

import hashlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from pieces import stopped_at

from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import RunFolder
from labkit.runs.runner import resume, run


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self._command = f"touch {marker}"

    def __reduce__(self) -> tuple:
        return os.system, (self._command,)


def pickled(marker: Path) -> bytes:
    """As torch writes it, with what a state has around it."""
    file = io.BytesIO()
    torch.save({"state_dict": {}, "random_state": Touch(marker)}, file)
    return file.getvalue()


def plants_in_every_file(ledger: Ledger, experiment: str, values: dict[str, Any]) -> dict[tuple[str, ...], str]:
    """Run, and resume from a checkpoint with each of its files planted; what each attempt was refused with, by files.

    The files of one kind are planted at once: each rank reads its own. Asserts that nothing ran, that the rest of the
    run is as it was, and that the checkpoint before serves in the end.
    """
    record = run(experiment, values)
    assert record.status == "ok", record.reason
    folder = ledger.find(record.id)
    saved = folder.path / "checkpoints" / "step-000002"
    files = sorted(path.relative_to(saved) for path in saved.rglob("*") if path.is_file())
    marker = ledger.root / "marker"
    refused = {}
    copy = stopped_at(folder, 2)
    step = copy.path / "checkpoints" / saved.name
    for script in step.rglob("*.py"):  # DeepSpeed copies two of its own to where it saves
        script.write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    files = [name for name in files if name.suffix != ".py"]
    kinds: dict[str, list[Path]] = {}
    for name in files:
        kinds.setdefault(re.sub(r"\d+", "N", str(name)), []).append(name)
    for names in kinds.values():
        whole = {name: (step / name).read_bytes() for name in names}
        for name in names:
            (step / name).write_bytes(pickled(marker))
        refused[tuple(map(str, names))] = _error_line(copy, names[0])
        assert not marker.exists(), names
        for name, content in whole.items():
            (step / name).write_bytes(content)
    shutil.rmtree(step)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    assert not marker.exists()
    return refused


def _error_line(copy: RunFolder, name: Path) -> str:
    """What an attempt ends with."""
    before, told = _content(copy.path), copy.events.read_bytes()
    try:
        record = resume(copy)
    except LedgerError as error:  # before anything is written
        assert (_content(copy.path), copy.events.read_bytes()) == (before, told)
        return str(error)
    assert record.status == "failed", (name, record.status, record.reason)
    assert copy.read() == record
    assert _content(copy.path) == before
    assert copy.events.read_bytes().startswith(told)
    return record.reason


def _content(folder: Path) -> dict[str, str]:
    """Checksums of what an attempt has no business to change."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("events", "log", "record.json", "lock"))
    }
