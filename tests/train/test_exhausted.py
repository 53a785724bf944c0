"""Out of memory is ``oom`` in whichever words, wherever it strikes; what only looks like it stays a failure."""

import pytest
import torch
from lightning.pytorch.strategies import Strategy
from transformers import Blip2ForConditionalGeneration

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.diagnose import GPU_MEMORY, diagnose
from labkit.ledger.parts import DiedIn
from labkit.ledger.records import Record
from labkit.memory import exhaustion
from labkit.train import fit as fitting
from labkit.train.adapters import load_adapter
from labkit.train.events import EventWriter
from labkit.train.fit import fit
from labkit.train.module import CaptionModule
from labkit.train.weights import find_weights, load_model

AMBIGUOUS = [
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasGemmEx`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "Unable to find a valid cuDNN algorithm to run convolution",
]
HANDLE = AMBIGUOUS[0]
CODE = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"


@pytest.fixture
def carried_out(tmp_path):
    def make():
        workspace = Workspace.find()
        config = resolve(
            workspace, "reduced_batch", {"max_steps": 2, "batch_size": 4, "num_train_samples": 8}, "tiny"
        ).config
        with EventWriter(tmp_path / "events.jsonl") as events:
            return fit(tmp_path, config, workspace.data, events)

    return make


@pytest.fixture
def gpu_is_full(monkeypatch):
    """Says whether the GPU is full; it is not any more once the trainer has cleaned up."""
    full = [False]
    monkeypatch.setattr(exhaustion, "_is_full", lambda: full[0])
    teardown = Strategy.teardown

    def cleaned_up(self):
        full[0] = False
        teardown(self)

    monkeypatch.setattr(Strategy, "teardown", cleaned_up)
    return lambda value: full.__setitem__(0, value)


@pytest.fixture
def fails_in(monkeypatch):
    """Let the run fail where it builds the model, or in the forward of its second step."""

    def make(place, error):
        if place == "load_model":
            return monkeypatch.setattr(fitting, "_build", lambda *_: (_ for _ in ()).throw(error))
        step = CaptionModule.training_step

        def training_step(self, *arguments):
            if self.trainer.global_step == 1:
                raise error
            return step(self, *arguments)

        return monkeypatch.setattr(CaptionModule, "training_step", training_step)

    return make


PLACES = {"load_model": 0, "forward": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "step"), PLACES.items())
@pytest.mark.parametrize("error", [torch.AcceleratorError(CODE), RuntimeError(HANDLE)], ids=["code", "handle"])
def test_a_full_gpu_is_out_of_memory_with_its_place(carried_out, fails_in, gpu_is_full, place, step, error):
    gpu_is_full(True)
    fails_in(place, error)
    result = carried_out()
    assert result["status"] == "oom"
    assert result["died_in"] == {"step": step, "micro_step": 0, "phase": place}
    assert result["reason"] == str(error)
    record = recorded(result)
    assert diagnose(record, f"RuntimeError: {error}\n").kind in GPU_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_same_words_on_a_gpu_that_has_room_are_a_failure(carried_out, fails_in, gpu_is_full, place):
    fails_in(place, RuntimeError(HANDLE))
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_NOT_INITIALIZED"):
        carried_out()  # main tells the watcher


def recorded(result):
    config = resolve(Workspace.find(), "reduced_batch", {}, "h100-94gb").config
    return Record(
        id="20260102-150405-abcd", experiment="reduced_batch", profile="h100-94gb", config=config.to_dict(),
        overrides={}, config_hash=config.hash, created="2026-01-02T15:04+00:00", status=result["status"],
        reason=result["reason"], died_in=DiedIn(**result["died_in"]) if result.get("died_in") else None,
    )  # fmt: skip


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_the_diagnosis_of_a_failure_does_not_say_that_the_gpu_was_full(text):
    log = f"RuntimeError: {text}\n"
    assert diagnose(recorded({"status": "failed", "reason": text}), log).kind not in GPU_MEMORY
    assert diagnose(recorded({"status": "oom", "reason": text}), log).kind in GPU_MEMORY


def test_a_full_gpu_says_nothing_about_an_adapter(tmp_path, monkeypatch):
    import peft

    monkeypatch.setattr("labkit.train.adapters._read_adapter", lambda folder: ({}, {}))

    def full(*_):
        raise torch.AcceleratorError(CODE)

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", full)
    with pytest.raises(torch.AcceleratorError):
        load_adapter(torch.nn.Linear(1, 1), tmp_path, "tiny/x")


def test_a_full_gpu_says_nothing_about_a_checkpoint(monkeypatch):
    config = resolve(Workspace.find(), "reduced_batch", {"model_name": "tiny/blip2-opt-base"}, "tiny").config

    def full(*_, **__):
        raise torch.AcceleratorError(CODE)

    monkeypatch.setattr(Blip2ForConditionalGeneration, "from_pretrained", full)
    with pytest.raises(torch.AcceleratorError):
        load_model(config, find_weights("tiny/blip2-opt-base"), "cpu")
