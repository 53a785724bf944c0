"""Out of memory in every phase, from one notebook kernel: told where and by what, and the next run works."""

import json

import pytest

pytestmark = pytest.mark.slow

CELLS = """
import gc, json
from labkit import run
from labkit.memory.capture import MemoryCapture
from labkit.memory.tracker import Tracker, SimulatedOutOfMemoryError

def peaks(size):
    # the run with memory enough, and what it needs: nothing, the model, and each phase of its first step
    values = {"max_steps": 1, "num_train_samples": size, "batch_size": size}
    whole = run("reduced_batch", values | {"capacity_gib": 4})
    phases = [p for p in whole.memory.phases if p.step == 0]
    return values, whole, [0, phases[0].peak_bytes - phases[0].end["inputs"], *(p.peak_bytes for p in phases)]

# the optimizer step's peak is the highest with 32 samples; 64 are larger than what making the model leaves behind
runs = {size: peaks(size) for size in (32, 64)}
found = []
for number, size in enumerate((32, 64, 32, 32, 32)):
    values, whole, steps = runs[size]
    low, high = steps[number], steps[number + 1]
    # above what the phase before needs and below what this one does
    record = run("reduced_batch", values | {"capacity_gib": (low + 0.8 * (high - low)) / 2**30})
    said = record.to_dict()
    found.append([said["status"], said["died_in"], said["out_of_memory"]["held"], said["diagnosis"]])
    after = run("reduced_batch", values | {"capacity_gib": 4})
    found[-1].append([after.status, after.losses == whole.losses])
print("FOUND" + json.dumps(found))
---
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

class Large(BoringModel):
    def training_step(self, batch, batch_idx):
        torch.zeros(2**28)
        return super().training_step(batch, batch_idx)

tracker = Tracker(capacity_bytes=2**20)
try:
    with tracker:
        Trainer(callbacks=[MemoryCapture(tracker)], max_steps=1, accelerator="cpu", logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False).fit(Large())
    died = False
except SimulatedOutOfMemoryError:
    died = True
gc.collect()
print("LEFT" + json.dumps([died, tracker.allocated_bytes]))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the cells print, run one after another in a kernel of Jupyter's own."""
    from jupyter_client.manager import start_new_kernel

    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("kernel")))
        manager, client = start_new_kernel(kernel_name="python3")
        try:
            for cell in CELLS.split("---\n"):
                reply = client.execute_interactive(
                    cell, timeout=600, output_hook=lambda message: lines.append(message["content"].get("text", ""))
                )
                assert reply["content"]["status"] == "ok", reply["content"].get("traceback")
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return "".join(lines)


def after(word: str, printed: str):
    return json.loads(printed.split(word, 1)[1].splitlines()[0])


PLACES = [
    ("load_model", {"parameters"}),
    ("load_batch", {"parameters"}),
    ("forward", {"activations", "parameters"}),
    ("backward", {"activations", "parameters"}),
    ("optimizer_step", {"optimizer_gpu", "parameters", "gradients"}),
]


@pytest.mark.parametrize("number", range(len(PLACES)), ids=[place for place, _ in PLACES])
def test_where_it_died_and_what_held_the_memory(printed, number):
    place, holders = PLACES[number]
    status, died_in, held, diagnosis, next_run = after("FOUND", printed)[number]
    assert status == "oom"
    assert died_in["phase"] == place
    assert died_in["step"] == 0
    assert max(held, key=held.get) in holders
    assert diagnosis["kind"] == "simulated_gpu_full"
    assert diagnosis["next_steps"]
    assert next_run == ["ok", True]


def test_nothing_stays_allocated_after_an_out_of_memory_in_the_kernel_itself(printed):
    assert after("LEFT", printed) == [True, 0]
