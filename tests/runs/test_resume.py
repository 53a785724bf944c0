"""A run that stopped resumes where it was, and ends as if it had not."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pieces import stopped_at
from support.wait import wait_for
from trainers import trainers

from labkit.cli import main
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.runs.resume import unfinished
from labkit.runs.runner import resume, run

pytestmark = pytest.mark.slow

SMALL = {
    "num_train_samples": 80, "val_fraction": 0.2, "batch_size": 8, "accumulate_grad_batches": 3, "dropout": 0.1,
    "lr_schedule": "linear", "warmup_steps": 2, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 100,
    "save_model": True,
}  # fmt: skip
"""Six optimizer steps in two epochs, each with a last smaller group and a validation."""


def weights(folder: Path) -> dict[str, str]:
    """Checksums of what a run has trained."""
    files = [*folder.glob("model/*.safetensors"), *folder.glob("adapter/*.safetensors")]
    assert files
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run in one piece, its ledger and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("whole")
        patch.setenv("LABKIT_RUNS", str(root))
        record = run("reduced_batch", SMALL)
        assert (record.status, len(record.losses)) == ("ok", 6)
        yield record, Ledger(root).find(record.id)


@pytest.mark.parametrize("step", [1, 3, 5])  # in an epoch, at its end after the validation, in the second
def test_a_run_that_is_resumed_ends_as_one_in_one_piece(whole, step):
    record, folder = whole
    copy = stopped_at(folder, step)
    events = []
    again = resume(copy, on_event=lambda event: events.append(event["event"]))
    assert events[0] == "resumed"
    assert (again.status, again.losses) == ("ok", record.losses)
    assert again.validation_losses == record.validation_losses
    assert (again.samples, again.memory.peak_bytes) == (record.samples, record.memory.peak_bytes)
    assert [(p.step, p.phase) for p in again.memory.phases] == [(p.step, p.phase) for p in record.memory.phases]
    assert weights(copy.path) == weights(folder.path)
    (attempt,) = again.attempts
    assert (attempt.status, attempt.resumed_at_step) == ("killed", step)
    assert copy.read() == again


@pytest.mark.parametrize(
    ("experiment", "values"),
    [
        ("xxl_adam8bit", {"num_train_samples": 32, "max_steps": 3, "num_workers": 2}),
        ("xxl_qlora", {"num_train_samples": 48, "batch_size": 8, "accumulate_grad_batches": 2, "max_steps": 3}),
        ("xxl_cpu_offload", {"num_train_samples": 48, "accumulate_grad_batches": 1, "max_steps": 3}),
    ],
)
def test_every_kind_of_optimizer_resumes(ledger, experiment, values):
    values |= {"enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 3, "save_model": True}
    record = run(experiment, values)
    assert (record.status, len(record.losses)) == ("ok", 3)
    folder = ledger.find(record.id)
    copy = stopped_at(folder, 2)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses)
    assert weights(copy.path) == weights(folder.path)


def test_the_same_command_resumes_and_fresh_starts_again(ledger):
    # steps enough that a watcher which reads late, on a busy machine, still finds it training
    values = SMALL | {"save_model": False, "accumulate_grad_batches": 1, "keep_checkpoints": 1}

    def kill_when_saved(event):
        if event["event"] == "progress" and event["step"] >= 2:  # told before it is saved; the first is by then
            # several steps may be read at once, and the first of them has killed it
            for pid in trainers(ledger.folders()[-1].path).values():
                os.kill(pid, signal.SIGKILL)

    killed = run("reduced_batch", values, on_event=kill_when_saved)
    assert killed.status == "killed"
    assert "is saved, and the same command resumes there" in killed.reason
    done = run("reduced_batch", values)
    assert (done.id, done.status, len(done.losses)) == (killed.id, "ok", 16)
    assert ledger.records() == [done]
    other = run("reduced_batch", values)  # the run is done, so this is another
    assert other.id != done.id
    assert other.losses == done.losses
    assert other.attempts == []


def test_fresh_leaves_what_stopped_as_it_is(ledger):
    values = {"num_train_samples": 32, "max_steps": 2, "enable_checkpointing": True, "save_every": 1}
    record = run("reduced_batch", values)
    stopped_at(ledger.find(record.id), 1)
    before = [folder.read() for folder in ledger.folders()]
    other = run("reduced_batch", values, fresh=True)
    assert len(ledger.records()) == 3
    assert other.attempts == []
    assert [folder.read() for folder in ledger.folders()][:2] == before


def test_ctrl_c_saves_the_step_in_progress(ledger):
    values = [
        "enable_checkpointing=true",
        "save_every=1000",
        "num_train_samples=512",
        "max_epochs=20",
        "report_every=999",
    ]
    command = subprocess.Popen(
        [sys.executable, "-m", "labkit.cli", "run", "reduced_batch", *values],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for(lambda: any("progress" in f.events.read_text() for f in ledger.folders() if f.events.exists()))
    (folder,) = ledger.folders()
    child = trainers(folder.path)[0]
    command.send_signal(signal.SIGINT)
    _, stderr = command.communicate(timeout=120)
    assert command.returncode == 130
    assert "Traceback" not in stderr
    record = folder.read()
    saved = json.loads(folder.newest_checkpoint().read_text())
    assert record.status == "killed"
    assert (
        record.reason == f"interrupted by Ctrl-C; step-{saved['step']:06} is saved, and the same command resumes there"
    )
    assert saved["step"] == len(record.losses)
    assert not Path(f"/proc/{child}").exists()
    assert not folder.is_watched


def test_sigterm_between_two_micro_batches_saves_the_step_in_progress(ledger):
    told = []

    def tell(event):
        if event["event"] == "progress" and not told:
            told.append(trainers(ledger.folders()[0].path)[0])
            os.kill(told[0], signal.SIGTERM)

    values = {"accumulate_grad_batches": 8, "batch_size": 8, "max_epochs": 50, "report_every": 999}
    record = run("reduced_batch", values | {"enable_checkpointing": True, "save_every": 1000}, on_event=tell)
    assert told
    assert record.status == "killed"
    assert record.reason == f"interrupted after step {len(record.losses)}, which is saved"
    assert json.loads(ledger.folders()[0].newest_checkpoint().read_text())["step"] == len(record.losses)


def test_a_half_written_line_and_a_half_written_step_cost_nothing(whole):
    record, folder = whole
    copy = stopped_at(folder, 2)
    with copy.events.open("a") as events:
        events.write('{"event": "progr')
    partial = copy.path / "checkpoints" / ".step-000003.partial"
    partial.mkdir()
    (partial / "state.ckpt").write_bytes(b"PK half")
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses)
    assert not partial.exists()


def test_only_the_newest_steps_are_kept(ledger):
    values = {"num_train_samples": 80, "batch_size": 8, "max_epochs": 1, "enable_checkpointing": True, "save_every": 2}
    record = run("reduced_batch", values | {"keep_checkpoints": 3})
    kept = sorted(path.name for path in (ledger.find(record.id).path / "checkpoints").iterdir())
    assert kept == ["step-000006", "step-000008", "step-000010"]


def test_a_damaged_step_is_named_and_the_one_before_it_serves(whole):
    record, folder = whole
    copy = stopped_at(folder, 4)
    damaged = copy.path / "checkpoints" / "step-000004" / "state.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    again = resume(copy)
    assert again.status == "failed"
    assert "step-000004 is damaged" in again.reason
    assert "delete it" in again.reason
    shutil.rmtree(damaged.parent)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses)
    assert [attempt.resumed_at_step for attempt in again.attempts] == [4, 3]


def test_what_cannot_be_resumed_says_why(whole, monkeypatch, capsys):
    record, folder = whole
    with pytest.raises(LedgerError, match="nothing left to do"):
        resume(folder)
    copy = stopped_at(folder, 1)
    shutil.rmtree(copy.path / "checkpoints")
    with pytest.raises(LedgerError, match="enable_checkpointing=true"):
        resume(copy)
    monkeypatch.setenv("LABKIT_RUNS", str(folder.path.parents[2]))
    assert main(["run", "--resume", record.id]) == 2
    assert "nothing left to do" in capsys.readouterr().err
    assert main(["run", "reduced_batch", "--resume", record.id]) == 2


def test_a_run_that_still_runs_cannot_be_resumed(ledger):
    tried = []

    def resume_it(event):
        if event["event"] == "start":
            with pytest.raises(LedgerError, match="still running"):
                resume(ledger.folders()[0])
            tried.append(event)

    record = run("reduced_batch", {"max_steps": 1, "num_train_samples": 32}, on_event=resume_it)
    assert tried
    assert record.status == "ok"


def test_the_newest_run_with_the_same_config_and_environment_is_resumed(whole, tmp_path, monkeypatch):
    record, folder = whole
    ledger = Ledger(tmp_path)
    resolved = resolve(Workspace.find(), "reduced_batch", SMALL)
    assert unfinished(ledger, resolved, {}) is None
    stopped = tmp_path / "tiny" / "reduced_batch" / record.id
    shutil.copytree(stopped_at(folder, 2).path, stopped)
    for name, change in (("29991231-000000-other", {"config_hash": "0"}), ("29991231-000001-newer", {"schema": 99})):
        shutil.copytree(stopped, stopped.with_name(name))
        config = json.loads((stopped / "config.json").read_text())
        config["record"] |= change
        stopped.with_name(name).joinpath("config.json").write_text(json.dumps(config))
    assert unfinished(ledger, resolved, {}).path == stopped
    assert unfinished(ledger, resolved, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}) is None
    other = resolve(Workspace.find(), "reduced_batch", SMALL | {"seed": 1})
    assert unfinished(ledger, other, {}) is None


@pytest.mark.parametrize("damage", ["", "[]", '{"step": 2}'])
def test_a_damaged_place_is_named_and_nothing_is_written(whole, damage):
    copy = stopped_at(whole[1], 2)
    copy.newest_checkpoint().write_text(damage)
    before = copy.events.read_bytes()
    with pytest.raises(LedgerError, match="step-000002 is damaged"):
        resume(copy)
    assert copy.events.read_bytes() == before


def test_a_config_of_another_version_is_refused_before_anything_is_written(whole):
    copy = stopped_at(whole[1], 2)
    request = json.loads(copy.config.read_text())
    request["record"]["config"]["of_tomorrow"] = 1
    copy.config.write_text(json.dumps(request))
    before = copy.events.read_bytes()
    with pytest.raises(ConfigError, match="of_tomorrow"):
        resume(copy)
    assert copy.events.read_bytes() == before


def test_each_attempt_has_its_own_time_and_its_own_log(whole):
    record, folder = whole
    copy = stopped_at(folder, 2)
    shutil.copy(folder.record, copy.record)
    ended = json.loads(copy.record.read_text()) | {"status": "killed", "wall_seconds": 1000.0}
    copy.record.write_text(json.dumps(ended))
    with copy.log.open("a") as log:
        log.write("OSError: [Errno 28] No space left on device\n")
    newest = copy.newest_checkpoint().parent / "state.ckpt"
    newest.write_bytes(b"no checkpoint")
    again = resume(copy)
    assert again.status == "failed"
    assert again.diagnosis.kind != "disk_full"
    assert again.attempts[0].wall_seconds == 1000.0
    assert again.wall_seconds > 1000.0
    shutil.rmtree(newest.parent)
    done = resume(copy)
    assert done.status == "ok"
    assert [round(a.wall_seconds) for a in done.attempts] == [1000, round(again.wall_seconds - 1000)]
    assert 0 < done.wall_seconds - again.wall_seconds < 500


def test_a_disk_without_room_for_checkpoints_is_said_before_the_run(whole, tmp_path):
    """A real full disk is in tests/system; here the room is asked for and not there."""
    from labkit.config.schema import RunConfig
    from labkit.train.disk_room import check_room
    from labkit.train.errors import CheckpointError

    _, folder = whole
    config = RunConfig(capacity_gib=1, enable_checkpointing=True, keep_checkpoints=5)
    free = shutil.disk_usage(tmp_path).free
    mine = tmp_path / "tiny" / "baseline" / "mine"
    shutil.copytree(folder.path, tmp_path / "tiny" / "other" / "run")
    mine.mkdir(parents=True)
    check_room(config, mine, free // 10, steps=100)
    with pytest.raises(CheckpointError) as error:
        check_room(config, mine, free // 3, steps=100)
    assert "keep_checkpoints=5" in str(error.value)
    assert str(tmp_path / "tiny" / "other" / "run" / "checkpoints") in str(error.value)
