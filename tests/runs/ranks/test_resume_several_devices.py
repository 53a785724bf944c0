"""A run on two devices that stopped goes on where it was, and ends as if it had not."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainers import trainers

from labkit.runs.records import Ledger, RunFolder
from labkit.runs.runner import resume, run

SAVING = {"devices": 2, "batch_size": 4, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 100}
DDP = SAVING | {
    "strategy": "ddp", "num_train_samples": 80, "val_fraction": 0.2, "accumulate_grad_batches": 3, "dropout": 0.1,
    "lr_schedule": "linear", "warmup_steps": 2, "max_epochs": 3, "save_model": True,
}  # fmt: skip
"""Nine optimizer steps in three epochs, each with a last smaller group and a validation."""

SHORT = SAVING | {"num_train_samples": 16, "num_workers": 0, "max_epochs": 2, "dropout": 0.1}
"""Four optimizer steps, two of them in the first epoch."""

ZERO = SHORT | {"precision": "bf16-true", "loss_average": "batches", "save_model": True}
OTHERS = {
    # of three, the order of whose sums counts
    "LoRA": SHORT | {"strategy": "ddp", "use_lora": True, "devices": 3, "num_train_samples": 24},
    "QLoRA": SHORT | {"strategy": "ddp", "use_qlora": True},
    "fsdp": SHORT | {"strategy": "fsdp"},
    "layer_split": SHORT | {"strategy": "layer_split", "batch_size": 8},
    "ZeRO 2": ZERO | {"strategy": "deepspeed_stage_2"},
    "ZeRO 3": ZERO | {"strategy": "deepspeed_stage_3"},
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run has trained, in one file."""
    (file,) = [*folder.glob("model/*.safetensors"), *folder.glob("adapter/*.safetensors")]
    return load_file(file)


def state(folder: Path, step: int) -> list[dict]:
    """What each rank has saved behind a step: weights, optimizer, random state. ZeRO has it in files of its own."""
    files = sorted((folder / "checkpoints" / f"step-{step:06}").glob("*.ckpt"))
    return [torch.load(file, weights_only=True) for file in files if file.is_file()]


def differences(one, other, path: str = "") -> list[str]:
    """Where two trees of tensors and values are not the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [path]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [path]
        return [found for i in range(len(one)) for found in differences(one[i], other[i], f"{path}.{i}")]
    return [] if one == other else [path]


def stopped_at(folder: RunFolder, step: int) -> RunFolder:
    """A copy of a run as a kill behind ``step`` would have left it."""
    copy = folder.path.with_name(f"{folder.path.name}-{step}")
    shutil.copytree(folder.path, copy)
    for saved in (copy / "checkpoints").glob("step-*"):
        if saved.name > f"step-{step:06}":
            shutil.rmtree(saved)
    for made in ("model", "adapter"):
        shutil.rmtree(copy / made, ignore_errors=True)
    (copy / "record.json").unlink()
    return RunFolder(copy)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run in one piece, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("whole")
        patch.setenv("LABKIT_RUNS", str(root))
        record = run("reduced_batch", DDP)
        assert (record.status, len(record.losses)) == ("ok", 9), record.reason
        yield record, Ledger(root).find(record.id)


class Hit:
    """Do something to the run behind a step, when this attempt has come so far."""

    def __init__(self, do, steps: int = 1) -> None:
        self._do, self._steps, self._began, self.done = do, steps, 0, False

    def __call__(self, event) -> None:
        if event["event"] == "resumed":
            self._began = event["step"]
        if "folder" in event:
            self._folder = Path(event["folder"])
        if event["event"] == "progress" and event["step"] >= self._began + self._steps and not self.done:
            self.done = True
            self._do(self._folder)


def ctrl_c(folder: Path) -> None:
    raise KeyboardInterrupt


def rank_0_alone_is_told(folder: Path) -> None:
    os.kill(trainers(folder)[0], signal.SIGTERM)


def rank_1_is_killed(folder: Path) -> None:
    os.kill(trainers(folder)[1], signal.SIGKILL)


def test_a_run_that_is_stopped_in_every_way_ends_as_one_in_one_piece(whole, ledger):
    record, folder = whole
    with pytest.raises(KeyboardInterrupt):
        run("reduced_batch", DDP, on_event=Hit(ctrl_c))
    (mine,) = ledger.folders()
    first = mine.read()
    reached = len(first.losses)
    assert (first.status, first.exit_code, reached >= 1) == ("killed", 0, True)
    assert first.reason == (f"interrupted by Ctrl-C; step-{reached:06} is saved, and the same command goes on there")
    assert mine.saved_step().parent.name == f"step-{reached:06}"
    assert [rank["status"] for rank in first.ranks] == ["killed"]  # it has come to its end by itself

    second = run("reduced_batch", DDP, on_event=Hit(rank_0_alone_is_told))
    assert second.status == "killed", second.reason
    assert second.reason == f"interrupted behind step {len(second.losses)}, which is saved"
    assert len(second.losses) > reached
    assert [rank["status"] for rank in second.ranks] == ["killed"]

    third = run("reduced_batch", DDP, on_event=Hit(rank_1_is_killed, steps=2))
    assert (third.status, third.exit_code, third.ended_by_rank) == ("killed", -signal.SIGKILL, 1)
    assert third.reason.startswith("rank 1 was killed by signal 9 (SIGKILL)")
    assert third.reason.endswith("is saved, and the same command goes on there")

    last = run("reduced_batch", DDP)
    assert last.id == first.id
    assert (last.status, last.ended_by_rank) == ("ok", None), last.reason
    assert last.losses == record.losses
    assert last.validation_losses == record.validation_losses
    assert last.samples == record.samples
    assert last.report.peak_bytes == pytest.approx(record.report.peak_bytes, rel=0.001)
    assert [attempt["status"] for attempt in last.attempts] == ["killed"] * 3
    assert last.attempts[0]["resumed_at_step"] == reached
    assert last.attempts[1]["resumed_at_step"] == len(second.losses)
    assert differences(weights(mine.path), weights(folder.path)) == []
    assert differences(state(mine.path, 9), state(folder.path, 9)) == []
    of_rank_1, of_rank_0 = (saved["random_state"]["torch"] for saved in state(mine.path, 9))
    assert not torch.equal(of_rank_1, of_rank_0)  # each drops its own
    (of_one_piece,), (of_pieces,) = record.ranks, last.ranks
    assert of_pieces["status"] == "ok"
    for one, other in ((record.memory, last.memory), (of_one_piece["memory"], of_pieces["memory"])):
        at = [(phase["step"], phase["phase"]) for phase in one["phases"]]
        assert at == [(phase["step"], phase["phase"]) for phase in other["phases"]]


def test_a_damaged_part_of_a_rank_is_named_and_the_step_before_it_serves(whole):
    record, folder = whole
    copy = stopped_at(folder, 4)  # in the second epoch
    damaged = copy.path / "checkpoints" / "step-000004" / "random.rank1.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = resume(copy)
    assert (again.status, again.ended_by_rank) == ("failed", 1)
    assert again.reason.startswith(f"rank 1: {damaged.parent} is damaged (")
    assert again.reason.endswith("delete it to go on from the step before it.")
    assert len(again.reason.splitlines()) == 1
    shutil.rmtree(damaged.parent)
    again = resume(copy)  # from the end of the first epoch, behind its validation
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    assert again.validation_losses == record.validation_losses
    assert differences(weights(copy.path), weights(folder.path)) == []


@pytest.mark.parametrize("name", OTHERS)
def test_every_strategy_goes_on(ledger, name):
    record = run("reduced_batch", OTHERS[name])
    assert (record.status, len(record.losses)) == ("ok", 4), record.reason
    folder = ledger.find(record.id)
    copy = stopped_at(folder, 1)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    found, expected = state(copy.path, 4), state(folder.path, 4)
    if OTHERS[name].get("save_model"):
        found, expected = weights(copy.path), weights(folder.path)
    assert len(expected) > 1
    assert differences(found, expected) == []
