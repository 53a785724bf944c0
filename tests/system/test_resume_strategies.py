"""Runs on several ranks resume under every other strategy; ``tests/runs/ranks`` has ddp."""

import pytest
from pieces import SHORT, resumes_as_in_one_piece

ZERO = SHORT | {"precision": "bf16-true", "loss_average": "batches", "save_model": True}
STRATEGIES = {
    # of three, the order of whose sums counts
    "LoRA": SHORT | {"strategy": "ddp", "use_lora": True, "devices": 3, "num_train_samples": 24},
    "QLoRA": SHORT | {"strategy": "ddp", "use_qlora": True},
    "fsdp": SHORT | {"strategy": "fsdp"},
    "pipeline": SHORT | {"strategy": "pipeline", "batch_size": 8},
    "LoRA, pipeline": SHORT | {"strategy": "pipeline", "batch_size": 8, "use_lora": True, "save_model": True},
    "QLoRA, pipeline": SHORT | {"strategy": "pipeline", "batch_size": 8, "use_qlora": True},
    "ZeRO 2": ZERO | {"strategy": "deepspeed_stage_2"},
    "ZeRO 3": ZERO | {"strategy": "deepspeed_stage_3"},
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_resumes(ledger, name):
    resumes_as_in_one_piece(ledger, STRATEGIES[name])
