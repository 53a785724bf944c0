"""Predictions against what users reported of real GPUs, and what is said at once where there is none."""

import pytest

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.predict import predict

CAPTION = {"batch_size": 1, "max_length": 20, "precision": "bf16-mixed", "freeze_language": True, "act_ckpt": True}

REPORTS = {
    # salesforce/LAVIS issue 147: out of memory on an RTX 3090, and freeze_vit cured it (their images have 364 pixels)
    "captions": (CAPTION, "out of memory"),
    "captions, vision frozen": (CAPTION | {"freeze_vision": True}, "fits"),
    # salesforce/LAVIS issue 200: only the Q-Former is trained, and a batch of 32 runs
    "the Q-Former alone": (
        {"batch_size": 32, "precision": "bf16-true", "freeze_language": True, "freeze_vision": True}, "fits",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "verdict"), REPORTS.values(), ids=REPORTS)
def test_a_users_report_is_what_is_predicted(overrides, verdict):
    gpu = "rtx3090ti-24gb"
    assert predict(resolve(Workspace.find(), "baseline", overrides, gpu).config, gpu).verdict == verdict


@pytest.mark.parametrize("verb", ["plan", "advise", "run"])
def test_a_model_of_another_family_is_told_what_labkit_plans_and_where_else_to_look(verb, capsys, ledger):
    assert main([verb, "baseline", "model_name=Qwen/Qwen2-VL-7B-Instruct", "use_qlora=true"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "BLIP-2 only" in err and "accelerate estimate-memory" in err
