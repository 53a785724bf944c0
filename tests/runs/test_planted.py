"""A checkpoint never runs code: what is planted in any of its files is refused by name.

On one device; tests/system/test_planted_strategies.py has the strategies of several.
"""

import json
import os

import pytest
from pieces import stopped_at
from planted import plants_in_every_file

from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.runs.runner import resume, run

pytestmark = pytest.mark.slow

SHORT = {"num_train_samples": 48, "max_steps": 3, "num_workers": 0, "enable_checkpointing": True, "save_every": 1,
         "keep_checkpoints": 3}  # fmt: skip
ZERO = SHORT | {
    "strategy": "deepspeed_stage_2_offload", "optim": "deepspeed_cpu", "precision": "bf16-true",
    "loss_average": "batches",
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "files"),
    [
        (SHORT, {"state.ckpt"}),
        (ZERO, {"mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"}),
    ],
)
def test_nothing_that_is_planted_runs(ledger, values, files):
    refused = plants_in_every_file(ledger, "reduced_batch", values)
    for (name,), said in refused.items():
        assert "step-000002 is damaged (" in said
        assert said.endswith("; delete it to resume from the step before it.")
        assert len(said.splitlines()) == 1
        if name.rpartition("/")[2] in files:
            assert f"{name.rpartition('/')[2]} asks for posix.system, which is not data" in said
    assert files <= {name.rpartition("/")[2] for (name,) in refused}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run on one device with three checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("whole")
        patch.setenv("LABKIT_RUNS", str(root))
        yield Ledger(root).find(run("reduced_batch", SHORT).id)


@pytest.mark.parametrize(
    "change",
    [
        {"step": float("nan")}, {"step": 1}, {"step": -2}, {"step": 2.0}, {"step": True}, {"step": "2"},
        {"epoch": 1e300}, {"batch": 2**80}, {"samples": None}, {"train_seconds": float("inf")}, {"train_seconds": -1},
        {"validation_losses": {}}, {"validation_losses": ["1"]}, {"validation_losses": [10**400]}, {"more": 1},
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_refused_before_anything_is_written(whole, change):
    copy = stopped_at(whole, 2)
    place = copy.newest_checkpoint()
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    before = copy.events.read_bytes()
    with pytest.raises(LedgerError, match=r"step-000002 is damaged \(place.json.*delete it"):
        resume(copy)
    assert copy.events.read_bytes() == before


def test_a_place_that_is_a_pipe_stops_no_one(whole):
    copy = stopped_at(whole, 2)
    place = copy.newest_checkpoint()
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(LedgerError, match=r"place.json is a pipe"):
        resume(copy)


def test_folders_with_other_names_are_no_steps(whole):
    copy = stopped_at(whole, 2)
    for name in ("step-last", "step-", "step--3", "step-9" * 40, "step-\u0663"):
        (copy.path / "checkpoints" / name).mkdir()
        (copy.path / "checkpoints" / name / "place.json").write_text("{}")
    assert copy.newest_checkpoint().parent.name == "step-000002"
    assert resume(copy).status == "ok"


def test_losses_that_were_not_finite_are_gone_on_with(whole):
    copy = stopped_at(whole, 2)
    place = copy.newest_checkpoint()
    place.write_text(json.dumps(json.loads(place.read_text()) | {"validation_losses": [float("nan"), None, 1.5]}))
    record = resume(copy)
    assert (record.status, record.validation_losses) == ("ok", [None, None, 1.5])


@pytest.mark.parametrize("state", ["a folder", "a pipe"])
def test_a_state_that_is_no_file_is_refused_at_once(whole, state):
    copy = stopped_at(whole, 2)
    file = copy.newest_checkpoint().with_name("state.ckpt")
    file.unlink()
    file.mkdir() if state == "a folder" else os.mkfifo(file)
    record = resume(copy)
    assert record.status == "failed"
    assert f"step-000002 is damaged ({file} is {state}, where a regular file is needed)" in record.reason
