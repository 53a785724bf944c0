"""Every way a run can end, and what is left of it."""

import json
import os
import signal
import subprocess
import sys

import datasets
import pytest
from PIL import Image
from support.wait import wait_for

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.log_file import read_log
from labkit.ledger.errors import LedgerError
from labkit.runs import runner
from labkit.runs.processes import processes_of
from labkit.runs.runner import _stop, run

ONE_STEP = {"max_steps": 1, "num_train_samples": 32}
WAIT_S = 60.0


def start_command(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "labkit.cli", "run", "reduced_batch", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell that starts the tests in the background lets them ignore Ctrl-C, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_is_readable_while_it_runs_and_recorded_after(ledger):
    seen = []

    def look(event):
        (record,) = ledger.records("tiny", "reduced_batch")
        seen.append((event["event"], record.status))
        if event["event"] == "progress":
            assert record.losses == [] or record.losses[0] > 0
            assert record.memory.peak_bytes == record.peak_bytes > 0

    record = run("reduced_batch", ONE_STEP, on_event=look)
    assert {kind for kind, _ in seen} >= {"start", "phase", "progress", "result"}
    assert {status for _, status in seen} == {"running"}
    assert record.status == "ok"
    assert ledger.records() == [record]
    assert record.exit_code == 0
    assert record.expected is None
    assert record.as_expected is None  # a value was typed, so nothing is promised
    assert len(record.losses) == 1
    folder = ledger.find(record.id)
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "config.json", "events.jsonl", "lock", "log.txt", "record.json",
    ]  # fmt: skip
    assert not folder.is_watched


@pytest.mark.slow
def test_a_child_that_is_killed_is_recorded_as_killed(ledger):
    def kill_at_start(event):
        if event["event"] == "start":
            (folder,) = ledger.folders()
            os.kill(processes_of(folder.path, "labkit.train.fit")[0], signal.SIGKILL)

    record = run("reduced_batch", on_event=kill_at_start)
    assert (record.status, record.exit_code) == ("killed", -signal.SIGKILL)
    assert "host memory" in record.reason
    assert ledger.records() == [record]
    assert record.model.parameters > 0  # what was known before is kept


@pytest.mark.slow
def test_a_watcher_that_fails_leaves_no_run_that_runs_for_ever(ledger):
    def fail_at_start(event):
        if event["event"] == "start":
            raise BrokenPipeError("no one reads")

    with pytest.raises(BrokenPipeError):
        run("reduced_batch", on_event=fail_at_start)
    (record,) = ledger.records()
    assert (record.status, record.model.parameters > 0) == ("killed", True)
    assert "BrokenPipeError" in record.reason
    assert processes_of(ledger.folders()[0].path) == []


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_said_in_valid_json(ledger):
    record = run("reduced_batch", ONE_STEP | {"lr": 1e30, "max_steps": 3, "batch_size": 8})
    assert record.losses[-1] is None
    text = ledger.find(record.id).record.read_text()
    assert json.loads(text, parse_constant=pytest.fail)["losses"][-1] is None


@pytest.mark.slow
def test_samples_of_a_last_smaller_group_are_counted_as_they_are(ledger):
    values = {"num_train_samples": 40, "batch_size": 8, "accumulate_grad_batches": 3, "max_epochs": 1}
    record = run("reduced_batch", values)
    assert (len(record.losses), record.samples) == (2, 40)


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_stopped(ledger):
    record = run("reduced_batch", timeout_s=1.0)
    assert record.status == "timeout"
    assert "1 s" in record.reason
    (folder,) = ledger.folders()
    assert processes_of(folder.path) == []


@pytest.mark.slow
def test_cuda_without_a_gpu_is_skipped_with_the_next_step(ledger):
    record = run("reduced_batch", {"device": "cuda"})
    assert record.status == "skipped"
    assert "--profile tiny" in record.reason
    assert record.memory is None


@pytest.mark.slow
def test_a_data_set_that_cannot_be_used_fails_in_one_line(ledger, tmp_path):
    datasets.Dataset.from_dict({"picture": ["x"], "text": ["y"]}).save_to_disk(str(tmp_path / "wrong"))
    record = run("reduced_batch", {"dataset": str(tmp_path / "wrong")})
    assert record.status == "failed"
    assert "'image'" in record.reason
    assert "\n" not in record.reason


@pytest.mark.slow
def test_the_reason_of_a_run_that_failed_begins_with_the_cause_in_its_log(ledger, tmp_path, monkeypatch):
    datasets.Dataset.from_dict({"picture": ["x"], "text": ["y"]}).save_to_disk(str(tmp_path / "wrong"))
    cause = "OSError: [Errno 28] No space left on device"
    monkeypatch.setattr(runner, "read_log", lambda path, start: f"{cause}\n{read_log(path, start)}")
    record = run("reduced_batch", {"dataset": str(tmp_path / "wrong")})
    assert record.status == "failed"
    assert record.reason.startswith(f"{cause} (last error: ") and "'image'" in record.reason
    assert ledger.find(record.id).read().reason == record.reason


@pytest.mark.slow
def test_a_damaged_image_fails_in_one_line(ledger, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(32):
        Image.new("RGB", (64, 64), "red").save(folder / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": "red"}) for i in range(32)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:60])
    record = run("reduced_batch", {"dataset": str(folder)})
    assert record.status == "failed"
    assert record.reason.startswith("row ")
    assert "\n" not in record.reason


@pytest.mark.slow
def test_a_data_set_that_breaks_off_fails_in_one_line(ledger, tmp_path):
    folder = tmp_path / "broken"
    images = [Image.new("RGB", (64, 64), "red")] * 40
    rows = {"image": images, "text": ["red"] * 40}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    (data,) = folder.glob("*.arrow")
    data.write_bytes(data.read_bytes()[:100])
    record = run("reduced_batch", {"dataset": str(folder)})
    assert record.status == "failed"
    assert str(folder) in record.reason


def test_nothing_is_written_for_a_config_that_cannot_work(ledger):
    for overrides in ({"capacity_gib": 0}, {"model_name": "Salesforce/blip2"}, {"dataset": "nowhere"}):
        with pytest.raises(ConfigError) as error:
            run("reduced_batch", overrides)
        assert next(iter(overrides)) in str(error.value)
    assert not ledger.root.exists()


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(LedgerError, match="LABKIT_RUNS"):
        run("reduced_batch")


@pytest.mark.slow
def test_too_little_memory_for_the_model_alone_is_out_of_memory_while_loading(ledger):
    record = run("reduced_batch", {"capacity_gib": 0.005})
    assert (record.status, record.died_in.phase) == ("oom", "load_model")
    assert record.out_of_memory.capacity_bytes == int(0.005 * 2**30)


@pytest.mark.slow
def test_ctrl_c_records_the_run_and_leaves_no_process(ledger):
    command = start_command()
    wait_for(lambda: ledger.folders() and ledger.folders()[0].events.exists())
    command.send_signal(signal.SIGINT)
    _, stderr = command.communicate(timeout=WAIT_S)
    assert command.returncode == 130
    assert "Traceback" not in stderr
    (record,) = ledger.records()
    assert (record.status, record.reason) == ("killed", "interrupted by Ctrl-C")
    (folder,) = ledger.folders()
    assert processes_of(folder.path) == []


@pytest.mark.slow
def test_a_child_ends_with_the_process_that_watches_it(ledger):
    command = start_command("max_epochs=10000", "report_every=9999")  # far from its own end
    wait_for(lambda: ledger.folders() and ledger.folders()[0].events.exists())
    (folder,) = ledger.folders()
    assert folder.is_watched
    command.kill()
    command.communicate(timeout=WAIT_S)
    try:
        wait_for(lambda: processes_of(folder.path) == [])
    finally:
        for pid in processes_of(folder.path):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not folder.is_watched)  # a process that ends has closed one file after the other
    record = folder.read()
    assert record.status == "killed"
    assert "no record" in record.reason
    assert record.config["batch_size"] == 16
    assert not folder.record.exists()


@pytest.mark.slow
def test_all_that_a_child_has_started_ends_with_it(tmp_path):
    """As loader workers do that are in the middle of something when the training process is gone."""
    code = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'input()', *sys.argv[1:]])\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: len(processes_of(tmp_path)) == 2)
    keeps_it_open = os.dup(child.stdin.fileno())  # so that nothing ends because its input does
    try:
        _stop(child, signal.SIGTERM, WAIT_S)
        wait_for(lambda: processes_of(tmp_path) == [])
    finally:
        os.close(keeps_it_open)


@pytest.mark.slow
def test_the_script_and_the_command_are_the_same_run(ledger):
    workspace = Workspace.find()
    values = ["batch_size=8", "max_steps=1", "num_train_samples=32"]
    script = [sys.executable, str(workspace.root / "finetune.py"), "configs/reduced_batch.yaml"]
    command = [sys.executable, "-m", "labkit.cli", "run", "reduced_batch"]
    for line in (script, command):
        done = subprocess.run([*line, *values, "--json"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["status"] == "ok"
    one, other = ledger.records("tiny", "reduced_batch")
    assert one.config_hash == other.config_hash
    assert one.losses == other.losses
    assert one.memory == other.memory


@pytest.mark.slow
def test_save_model_and_checkpoints_are_written_when_asked(ledger):
    record = run(
        "reduced_batch",
        ONE_STEP | {"save_model": True, "enable_checkpointing": True, "save_every": 1, "val_fraction": 0.25,
                    "batch_size": 8, "max_steps": 3},
    )  # fmt: skip
    assert record.status == "ok"
    assert len(record.validation_losses) >= 1
    folder = ledger.find(record.id).path
    assert (folder / "model" / "model.safetensors").exists()
    assert list((folder / "checkpoints").glob("step-*/state.ckpt"))
    load = (
        "import sys; from transformers import Blip2ForConditionalGeneration as M, Blip2Processor as P;"
        "m = M.from_pretrained(sys.argv[1]); p = P.from_pretrained(sys.argv[1]);"
        "print(sum(x.numel() for x in m.parameters()), p.num_query_tokens, 'labkit' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", load, str(folder / "model")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(record.model.parameters), "8", "False"]
