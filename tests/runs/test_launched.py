"""Ranks that somebody else has started: torchrun, on the script of the workspace as it is."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.runs import launched as launched_module
from labkit.runs.launched import Launched
from labkit.runs.records import Ledger, LedgerError
from labkit.runs.runner import run

WAIT_S = 120.0
AS_TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}


def start_torchrun(*values: str) -> subprocess.Popen:
    script = Workspace.find().root / "finetune.py"
    command = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", str(script)]
    return subprocess.Popen(
        [*command, "reduced_batch", "devices=2", "strategy=ddp", "batch_size=4", *values, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


def trainers(folder: Path) -> dict[bytes, int]:
    """The training process of each rank of a run, without its loader workers, which are younger."""
    found: dict[bytes, int] = {}
    for entry in sorted((e for e in Path("/proc").iterdir() if e.name.isdigit()), key=lambda e: -int(e.name)):
        try:
            line, names = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in line and b"labkit.train.fit" in line:
            found |= {name: int(entry.name) for name in names if name.startswith(b"RANK=")}
    return found


def test_torchrun_makes_one_run_of_its_processes(ledger):
    launcher = start_torchrun("max_steps=1")
    out, err = launcher.communicate(timeout=2 * WAIT_S)
    assert launcher.returncode == 0, err
    (record,) = ledger.records()
    assert json.loads(out)["id"] == record.id  # told once, by the first rank
    assert (record.status, record.samples, len(record.losses)) == ("ok", 8, 1)
    assert [rank["status"] for rank in record.ranks] == ["ok"]
    assert record.ranks[0]["peak_bytes"] == pytest.approx(record.peak_bytes, rel=0.01)


def test_a_rank_of_torchrun_that_is_killed_is_in_the_record(ledger):
    def has_stepped() -> bool:
        events = [folder.events for folder in ledger.folders()]
        return bool(events) and events[0].exists() and '"step": 1' in events[0].read_text()

    with start_torchrun("max_steps=1000000", "max_epochs=1000000") as launcher:
        try:
            deadline = time.monotonic() + WAIT_S
            while not has_stepped():
                assert time.monotonic() < deadline and launcher.poll() is None
                time.sleep(0.2)
            folders = ledger.folders()
            os.kill(trainers(folders[0].path)[b"RANK=1"], signal.SIGKILL)
            launcher.communicate(timeout=2 * WAIT_S)
        finally:
            launcher.terminate()
    assert launcher.returncode != 0
    (record,) = ledger.records()
    assert (record.status, record.ended_by_rank) == ("killed", 1)
    assert record.reason.startswith("rank 1 was killed by signal 9 (SIGKILL)")
    deadline = time.monotonic() + WAIT_S
    while trainers(folders[0].path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_launcher_says_is_found(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Launched.find() is None
    for name, value in AS_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = Launched.find()
    assert (found.rank, found.world_size) == (1, 2)
    monkeypatch.setenv("MASTER_PORT", "29502")
    assert Launched.find().meeting != found.meeting
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Launched.find() is None
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert Launched.find() is None


@pytest.mark.parametrize("values", [{}, {"devices": 4, "strategy": "ddp"}])
def test_another_number_of_devices_than_of_processes_is_refused(ledger, monkeypatch, values):
    for name, value in AS_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="WORLD_SIZE=2"):
        run("reduced_batch", values)
    assert not ledger.root.exists()


def test_several_nodes_need_a_launcher(ledger):
    with pytest.raises(ConfigError, match="num_nodes=2 needs a launcher.*torchrun --nnodes 2"):
        run("reduced_batch", {"num_nodes": 2, "strategy": "ddp"})


def test_an_earlier_launch_of_the_same_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(launched_module, "MEETING_S", 0.5)
    for name, value in AS_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    launched, ledger = Launched.find(), Ledger(tmp_path)
    with pytest.raises(LedgerError, match="LABKIT_RUNS"):
        launched._meet(ledger)
    folder = tmp_path / "tiny" / "reduced_batch" / "x"
    folder.mkdir(parents=True)
    word = tmp_path / ".launched" / f"{launched.meeting}.json"
    word.parent.mkdir()
    word.write_text(json.dumps({"folder": str(folder)}))
    with pytest.raises(LedgerError):  # nobody watches it
        launched._meet(ledger)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert launched._meet(ledger).path == folder
        (folder / "log.rank1.txt").touch()
        with pytest.raises(LedgerError):  # somebody has this rank's place already
            launched._meet(ledger)
