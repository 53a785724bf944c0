"""Ranks that a launcher has started: torchrun, on the script of the workspace as it is."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.wait import wait_for
from trainers import trainers

from labkit.cli import main
from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import RunFolder
from labkit.runs.ranks import launched as launched_module
from labkit.runs.ranks.launched import Launched
from labkit.runs.ranks.watch import free_port
from labkit.runs.runner import run

WAIT_S = 120.0
AS_TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}


def start_torchrun(*values: str, port: int | None = None) -> subprocess.Popen:
    """The script under torchrun in a session of its own; with a ``port`` each launch has the same name."""
    script = Workspace.find().root / "finetune.py"
    meets = ["--master-port", str(port)] if port else ["--standalone"]
    command = [str(Path(sys.executable).with_name("torchrun")), *meets, "--nproc-per-node", "2", str(script)]
    return subprocess.Popen(
        [*command, "reduced_batch", "devices=2", "strategy=ddp", "batch_size=4", *values, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


@pytest.mark.slow
def test_torchrun_makes_one_run_of_its_processes(ledger):
    launcher = start_torchrun("max_steps=1")
    out, err = launcher.communicate(timeout=2 * WAIT_S)
    assert launcher.returncode == 0, err
    (record,) = ledger.records()
    assert json.loads(out)["id"] == record.id  # told once, by the first rank
    assert (record.status, record.samples, len(record.losses)) == ("ok", 8, 1)
    assert [rank.status for rank in record.ranks] == ["ok"]
    assert record.ranks[0].peak_bytes == pytest.approx(record.peak_bytes, rel=0.01)


@pytest.mark.slow
def test_a_rank_of_torchrun_that_is_killed_is_in_the_record(ledger):
    def has_stepped() -> bool:
        events = [folder.events for folder in ledger.folders()]
        return bool(events) and events[0].exists() and '"step": 1' in events[0].read_text()

    with start_torchrun("max_steps=1000000", "max_epochs=1000000") as launcher:
        try:
            wait_for(lambda: has_stepped() or launcher.poll() is not None, WAIT_S)
            assert launcher.poll() is None
            folders = ledger.folders()
            os.kill(trainers(folders[0].path)[1], signal.SIGKILL)
            launcher.communicate(timeout=2 * WAIT_S)
        finally:
            launcher.terminate()
    assert launcher.returncode != 0
    (record,) = ledger.records()
    assert (record.status, record.ended_by_rank) == ("killed", 1)
    assert record.reason.startswith("rank 1 was killed by signal 9 (SIGKILL)")
    wait_for(lambda: not trainers(folders[0].path), WAIT_S)


@pytest.mark.slow
def test_the_same_launch_resumes_where_it_stopped(ledger):
    values = ["num_train_samples=64", "max_epochs=2", "num_workers=0", "enable_checkpointing=true", "save_every=1"]
    port = free_port()

    def wait_for_step(step: int, launcher: subprocess.Popen) -> Path:
        def there() -> list[RunFolder]:
            assert launcher.poll() is None
            return [f for f in ledger.folders() if (place := f.newest_checkpoint()) and step_of(place) >= step]

        return wait_for(there, WAIT_S)[0].path

    def step_of(place: Path) -> int:
        return int(place.parent.name.removeprefix("step-"))

    first = start_torchrun(*values, port=port)
    folder = wait_for_step(2, first)
    # rank 0 alone is told
    os.kill(watchers_of_launch(first.pid)[0], signal.SIGINT)
    first.communicate(timeout=WAIT_S)
    (record,) = ledger.records()
    reached = len(record.losses)
    assert record.status == "killed"
    assert record.reason.startswith(f"interrupted by Ctrl-C; step-{reached:06} is saved")
    assert [rank.status for rank in record.ranks] == ["killed"]

    second = start_torchrun(*values, port=port)
    wait_for_step(reached + 2, second)
    for pid in (*watchers_of_launch(second.pid).values(), second.pid):
        os.kill(pid, signal.SIGKILL)
    second.communicate(timeout=WAIT_S)

    third = start_torchrun(*values, port=port)
    out, err = third.communicate(timeout=2 * WAIT_S)
    assert third.returncode == 0, err
    (done,) = ledger.records()
    assert (done.id, done.status, done.reason) == (folder.name, "ok", None)
    assert json.loads(out)["id"] == done.id
    assert done.attempts[0].resumed_at_step == reached
    assert done.attempts[1].resumed_at_step >= reached + 2
    assert [rank.status for rank in done.ranks] == ["ok"]
    assert len(done.losses) == 16


def watchers_of_launch(launcher: int) -> dict[int, int]:
    """The processes of the script by rank: children of torchrun."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == launcher:
                found |= {int(n.removeprefix(b"RANK=")): int(entry.name) for n in names if n.startswith(b"RANK=")}
    return found


@pytest.mark.slow
def test_a_run_that_is_skipped_keeps_no_one_waiting(ledger, tmp_path, monkeypatch):
    workspace = tmp_path / "workspace"
    shutil.copytree(Workspace.find().root / "configs", workspace / "configs")
    shutil.copy(Workspace.find().root / "finetune.py", workspace)
    skips = "values: {device: simulated, capacity_gib: 0.1}\nskip: {reduced_batch: no such machine}\n"
    (workspace / "profiles").mkdir()
    (workspace / "profiles" / "tiny.yaml").write_text(skips)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(workspace))
    launcher = start_torchrun()
    out, err = launcher.communicate(timeout=WAIT_S)
    assert launcher.returncode == 0, err  # a rank that has waited in vain says so
    (record,) = ledger.records()
    assert (json.loads(out)["id"], record.status) == (record.id, "skipped")


def test_what_a_launcher_says_is_found(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Launched.find() is None
    for name, value in AS_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = Launched.find()
    assert (found.rank, found.world_size) == (1, 2)
    monkeypatch.setenv("MASTER_PORT", "29502")
    assert Launched.find().rendezvous != found.rendezvous
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert Launched.find() is None
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE='many'"):
        Launched.find()


def test_a_rank_of_one_that_is_a_task_of_several_is_refused_by_name(monkeypatch, capsys):
    for name, value in (AS_TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert Launched.find() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ConfigError, match="one of 2 tasks of a Slurm step: 2 runs of MEMBER 1/1"):
        Launched.find()
    assert main(["run", "reduced_batch"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: WORLD_SIZE=1") and error.count("\n") == 1
    monkeypatch.delenv("SLURM_STEP_ID")  # of the batch script, which is no task
    assert Launched.find() is None


def test_a_task_of_slurm_says_which_it_is(monkeypatch, capsys):
    for name in AS_TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0",
            "SLURM_JOB_ID": "7"}  # fmt: skip
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "reduced_batch", "--show-config"]) == 0
    assert capsys.readouterr().err == "MEMBER: 2/2\n"


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


@pytest.fixture
def launched(monkeypatch):
    """Rank 1 of a launch, which does not wait long."""
    monkeypatch.setattr(launched_module, "RENDEZVOUS_S", 0.3)
    for name, value in AS_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    return Launched.find()


def not_met(launched, ledger) -> None:
    with pytest.raises(LedgerError, match="LABKIT_RUNS"):
        launched._meet(ledger)


@pytest.mark.slow
def test_an_earlier_launch_of_the_same_name_is_not_followed(tmp_path, launched, watched):
    ledger = Ledger(tmp_path)
    folder = RunFolder(tmp_path / "tiny" / "reduced_batch" / "y")
    folder.path.mkdir()
    launched.leave_message(ledger, folder, None)
    not_met(launched, ledger)  # no one watches it
    launched.leave_message(ledger, watched, None)
    assert launched._meet(ledger).run.path == watched.path
    not_met(launched, ledger)  # another process has this rank's place already
    launched.leave_message(ledger, watched, None)
    launched.open(ledger)  # the next launch begins, perhaps with the same run
    not_met(launched, ledger)
