"""A run on two devices that stopped resumes where it was, and ends as if it had not.

Under ddp; tests/system/test_resume_strategies.py has the other strategies.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from pieces import SAVING, differences, state, stopped_at, weights
from trainers import trainers

from labkit.ledger.ledger import Ledger
from labkit.runs.runner import resume, run

DDP = SAVING | {
    "strategy": "ddp", "num_train_samples": 80, "val_fraction": 0.2, "accumulate_grad_batches": 3, "dropout": 0.1,
    "lr_schedule": "linear", "warmup_steps": 2, "max_epochs": 3, "save_model": True,
}  # fmt: skip
"""Nine optimizer steps in three epochs, each with a last smaller group and a validation."""


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
    """Do something to the run after a step, when this attempt has come so far."""

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


@pytest.mark.slow
def test_a_run_that_is_stopped_in_every_way_ends_as_one_in_one_piece(whole, ledger):
    record, folder = whole
    with pytest.raises(KeyboardInterrupt):
        run("reduced_batch", DDP, on_event=Hit(ctrl_c))
    (mine,) = ledger.folders()
    first = mine.read()
    reached = len(first.losses)
    assert (first.status, first.exit_code, reached >= 1) == ("killed", 0, True)
    assert first.reason == (f"interrupted by Ctrl-C; step-{reached:06} is saved, and the same command resumes there")
    assert mine.newest_checkpoint().parent.name == f"step-{reached:06}"
    assert [rank.status for rank in first.ranks] == ["killed"]  # it has come to its end by itself

    second = run("reduced_batch", DDP, on_event=Hit(rank_0_alone_is_told))
    assert second.status == "killed", second.reason
    assert second.reason == f"interrupted after step {len(second.losses)}, which is saved"
    assert len(second.losses) > reached
    assert [rank.status for rank in second.ranks] == ["killed"]

    third = run("reduced_batch", DDP, on_event=Hit(rank_1_is_killed, steps=2))
    assert (third.status, third.exit_code, third.ended_by_rank) == ("killed", -signal.SIGKILL, 1)
    assert third.reason.startswith("rank 1 was killed by signal 9 (SIGKILL)")
    assert third.reason.endswith("is saved, and the same command resumes there")

    last = run("reduced_batch", DDP)
    assert last.id == first.id
    assert (last.status, last.ended_by_rank) == ("ok", None), last.reason
    assert last.losses == record.losses
    assert last.validation_losses == record.validation_losses
    assert last.samples == record.samples
    assert last.memory.peak_bytes == pytest.approx(record.memory.peak_bytes, rel=0.001)
    assert [attempt.status for attempt in last.attempts] == ["killed"] * 3
    assert last.attempts[0].resumed_at_step == reached
    assert last.attempts[1].resumed_at_step == len(second.losses)
    assert differences(weights(mine.path), weights(folder.path)) == []
    assert differences(state(mine.path, 9), state(folder.path, 9)) == []
    of_rank_1, of_rank_0 = (saved["random_state"]["torch"] for saved in state(mine.path, 9))
    assert not torch.equal(of_rank_1, of_rank_0)  # each drops its own
    (of_one_piece,), (of_pieces,) = record.ranks, last.ranks
    assert of_pieces.status == "ok"
    for one, other in ((record.memory, last.memory), (of_one_piece.memory, of_pieces.memory)):
        at = [(phase.step, phase.phase) for phase in one.phases]
        assert at == [(phase.step, phase.phase) for phase in other.phases]


@pytest.mark.slow
def test_a_damaged_part_of_a_rank_is_named_and_the_step_before_it_serves(whole):
    record, folder = whole
    copy = stopped_at(folder, 4)  # in the second epoch
    damaged = copy.path / "checkpoints" / "step-000004" / "random.rank1.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = resume(copy)
    assert (again.status, again.ended_by_rank) == ("failed", 1)
    assert again.reason.startswith(f"rank 1: {damaged.parent} is damaged (")
    assert again.reason.endswith("delete it to resume from the step before it.")
    assert len(again.reason.splitlines()) == 1
    shutil.rmtree(damaged.parent)
    again = resume(copy)  # from the end of the first epoch, after its validation
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    assert again.validation_losses == record.validation_losses
    assert differences(weights(copy.path), weights(folder.path)) == []
