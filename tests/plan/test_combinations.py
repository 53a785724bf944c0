"""Combinations of keys that no experiment has: predicted, run on the simulated GPU, and compared."""

import pytest

from labkit.ledger.predicted import prediction_rows
from labkit.runs.runner import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("experiment", "typed"),
    [
        ("reduced_batch", {"precision": "bf16-mixed", "act_ckpt": "true"}),
        ("xxl_qlora", {"precision": "bf16-true", "double_quant": "true"}),
        ("xxl_sgd", {"freeze_vision": "true", "dropout": "0", "optim": "adamw", "capacity_gib": "1"}),
        ("reduced_batch", {"optim_impl": "fused", "max_length": "5"}),
        ("reduced_batch", {"optim_impl": "for-loop", "use_lora": "true", "precision": "bf16-mixed"}),
    ],
    ids=str,
)
def test_every_phase_is_the_measured_one(experiment, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    record = run(experiment, typed | {"max_steps": "2"})
    assert record.status == "ok", record.reason
    rows = prediction_rows(record)
    assert {(row["step"], row["phase"]) for row in rows} >= {(1, "after_forward"), (1, "after_optimizer_step")}
    for row in rows:
        if row["what"] in ("peak", "end") or row["measured_bytes"] > 2**20:
            assert abs(row["error"]) < 0.02, row
