"""A checkpoint never runs code, under every strategy of several devices; ``tests/runs`` has those of one."""

import pytest
from pieces import SHORT
from planted import plants_in_every_file
from test_resume_strategies import STRATEGIES

ONE = {"num_train_samples": 48, "max_steps": 3, "num_workers": 0, "accumulate_grad_batches": 1,
           "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 3}  # fmt: skip
CASES = {
    "8-bit state": ("xxl_adam8bit", ONE),
    "ddp": ("reduced_batch", SHORT | {"strategy": "ddp"}),
    "ZeRO 3 with offload": ("xxl_cpu_offload", ONE | {"strategy": "deepspeed_stage_3_offload"}),
    **{name: ("reduced_batch", values) for name, values in STRATEGIES.items() if name != "LoRA"},
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_is_planted_runs(ledger, name):
    experiment, values = CASES[name]
    refused = plants_in_every_file(ledger, experiment, values | {"max_steps": 3})
    states = {files: said for files, said in refused.items() if files[0].endswith((".ckpt", ".pt"))}
    assert sum(map(len, states)) >= values.get("devices", 1)
    for files, said in states.items():
        named = [file.rpartition("/")[2] for file in files]
        assert any(f"{name} asks for posix.system, which is not data" in said for name in named), (files, said)
        assert len(said.splitlines()) == 1
