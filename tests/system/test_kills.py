"""kill -9 anywhere: the same command goes on, and the run ends as one that nobody killed. About three minutes."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit.ledger.ledger import Ledger
from labkit.runs.processes import processes_of

VALUES = [
    "num_train_samples=160", "val_fraction=0.2", "batch_size=8", "accumulate_grad_batches=2", "dropout=0.1",
    "lr_schedule=linear", "warmup_steps=2", "enable_checkpointing=true", "save_every=2", "save_model=true",
    "report_every=3",
]  # fmt: skip
COMMAND = [sys.executable, "-m", "labkit.cli", "run", "reduced_batch", *VALUES, "--json"]
AT_ONCE = 2
WAIT_S = 180

KILL_IN_FSYNC = """
import os, signal, sys
import labkit.ledger.whole_file as whole_file
from labkit.cli import main

calls = 0
def kill(number):  # while the file is written, and before it has its name
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)

class Os:
    def __getattr__(self, name):
        return kill if name == "fsync" else getattr(os, name)

whole_file.os = Os()
sys.exit(main(sys.argv[1:]))
"""
"""The command, whose process is killed in the middle of its first or second file: config.json and record.json."""

PLACES = (
    [f"phase {name}" for name in ("before_forward", "after_forward", "after_backward", "after_optimizer_step")]
    + ["saving"] * 4 + ["config.json", "record.json"] + ["any time"] * 10
)  # fmt: skip


def environment(root: Path) -> dict[str, str]:
    return os.environ | {"LABKIT_RUNS": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody kills: its record, the checksum of its weights and how long it took."""
    root = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    done = subprocess.run(COMMAND, env=environment(root), capture_output=True, text=True, check=True, timeout=WAIT_S)
    record = json.loads(done.stdout)
    return record, weights(Ledger(root).find(record["id"]).path), time.monotonic() - started


def kill_once(root: Path, place: str, draw: random.Random, duration_s: float) -> bool:
    """Start the command and kill it, or its child, at ``place``; whether it was alive to be killed."""
    command = COMMAND
    if place.endswith(".json"):
        call = 1 if place == "config.json" else 2
        command = [sys.executable, "-c", KILL_IN_FSYNC.format(call=call), *COMMAND[3:]]
    process = subprocess.Popen(command, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_S
    after_s = draw.uniform(0.05, 1.0) * duration_s
    victim = draw.choice(["child", "watcher"])
    saves = draw.randint(1, 3)
    if place == "any time":
        time.sleep(after_s)
    seen: set[str] = set()
    while process.poll() is None and not place.endswith(".json") and place != "any time":
        assert time.monotonic() < deadline
        if place == "saving":
            seen |= {path.name for path in root.glob("*/*/*/checkpoints/.*.partial")}
            if len(seen) == saves:
                break
        else:
            texts = [path.read_text() for path in root.glob("*/*/*/events.jsonl")]
            if any(f'"phase": "{place.split()[1]}", "step": 3' in text for text in texts):
                break
        time.sleep(0.001)
    alive = process.poll() is None
    if not place.endswith(".json") and alive:
        folders = Ledger(root).folders()
        found = processes_of(folders[-1].path, "labkit.train.fit") if victim == "child" and folders else []
        os.kill(found[0] if found else process.pid, signal.SIGKILL)
    process.wait(WAIT_S)
    return place.endswith(".json") or alive


@pytest.fixture(scope="module")
def killed(whole, tmp_path_factory):
    """A ledger a kill, and what each of its runs ended with when the same command was given again."""
    duration_s = whole[2]

    def one(number: int) -> tuple[str, Ledger, bool, dict, str]:
        root = tmp_path_factory.mktemp(f"killed{number}")
        hit = kill_once(root, PLACES[number], random.Random(number), duration_s)
        before = [record.status for record in Ledger(root).records()]
        # a child may be ending still, and a random time may be behind the run's end
        assert all(status in ("killed", "running", "ok") for status in before), before
        again = subprocess.run(COMMAND, env=environment(root), capture_output=True, text=True, timeout=WAIT_S)
        assert again.returncode == 0, again.stderr
        record = json.loads(again.stdout)
        return PLACES[number], Ledger(root), hit, record, weights(Ledger(root).find(record["id"]).path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(len(PLACES))))


@pytest.mark.parametrize("number", range(len(PLACES)), ids=[f"{i} {place}" for i, place in enumerate(PLACES)])
def test_a_killed_run_goes_on_to_the_same_end(whole, killed, number):
    reference, checksum, _ = whole
    place, ledger, hit, record, found = killed[number]
    assert hit or place == "any time"
    assert record["status"] == "ok"
    assert record["losses"] == reference["losses"]
    assert record["validation_losses"] == reference["validation_losses"]
    assert record["samples"] == reference["samples"]
    assert found == checksum


def test_no_record_is_lost_or_half_read(killed):
    resumed = 0
    for _, ledger, _, record, _ in killed:
        skipped = []
        folders, records = ledger.folders(), ledger.records(on_skipped=skipped.append)
        assert skipped == []
        assert [folder.path.name for folder in folders] == [r.id for r in records]
        assert record["id"] in [r.id for r in records]
        assert all(not folder.is_watched for folder in folders)
        assert all(r.status in ("ok", "killed") for r in records)
        resumed += bool(record["attempts"])
    assert resumed >= len(PLACES) // 2  # the others had saved nothing yet, and began again
