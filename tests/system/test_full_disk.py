"""A disk that fills up under a run: a real one, which is small. Needs root, for the mount. About half a minute."""

import contextlib
import shutil
import subprocess

import pytest

from labkit.ledger.ledger import Ledger
from labkit.runs.runner import run

VALUES = {
    "num_train_samples": 512, "batch_size": 8, "max_epochs": 1, "enable_checkpointing": True, "save_every": 2,
    "keep_checkpoints": 1,
}  # fmt: skip
MIB = 2**20


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Mounts a disk of so many MiB and lets the runs go there."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(size_mib: int) -> Ledger:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        monkeypatch.setenv("LABKIT_RUNS", str(folder / "runs"))
        return Ledger(folder / "runs")

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_too_small_a_disk_is_refused_before_the_first_step(disk):
    disk(80)  # a checkpoint has 46 MiB, and one more is written beside it
    record = run("reduced_batch", VALUES)
    assert record.status == "failed"
    assert "keep_checkpoints=1" in record.reason
    assert "91.31 MiB" in record.reason
    assert record.losses == []


def test_a_disk_that_fills_up_meanwhile_ends_the_run_and_keeps_what_was_saved(disk):
    ledger = disk(130)
    filler = ledger.root.parent / "filler"

    def fill(event):
        """At every step: the one that looks while two checkpoints are there finds less room than stays free."""
        if event["event"] == "progress" and event["step"] >= 3:
            room = shutil.disk_usage(filler.parent).free - 20 * MIB
            with contextlib.suppress(OSError), filler.open("ab") as file:  # a save may have been quicker
                file.write(b"x" * max(0, room))

    record = run("reduced_batch", VALUES, on_event=fill)
    assert record.status == "failed"
    assert "could not be saved" in record.reason
    assert "The checkpoints before it are kept" in record.reason
    assert record.diagnosis.kind == "disk_full"
    folder = ledger.find(record.id)
    step = folder.newest_checkpoint()
    assert step is not None
    assert not list(step.parents[1].glob(".*"))
    filler.unlink()
    again = run("reduced_batch", VALUES)
    assert (again.id, again.status) == (record.id, "ok")
    assert len(again.losses) == 64
    assert again.attempts[0].status == "failed"
