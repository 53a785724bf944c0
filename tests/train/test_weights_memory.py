"""Host memory while a checkpoint of 1 GB is loaded: one copy in the run's dtype, and little more.

Counted in a fresh process, from just before the load to its end: anonymous memory (the heap, which is what a process
owns) and the whole resident set (with pages of mapped files), each over what the process had before.
"""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from folders import write_large

LOAD = """
import json, sys, threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from labkit.config.schema import RunConfig
from labkit.train.weights import load_model
folder, precision, qlora = sys.argv[1:]
if qlora == "qlora":
    import bitsandbytes, labkit.train.quantized

def memory():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous = int(fields["RssAnon"].split()[0]) * 1024
    return anonymous, anonymous + int(fields["RssFile"].split()[0]) * 1024

before, peaks, done = memory(), [0, 0], threading.Event()
def sample():
    while not done.wait(0.002):
        peaks[:] = map(max, peaks, memory())
watcher = threading.Thread(target=sample)
watcher.start()
config = RunConfig(model_name=folder, precision=precision, capacity_gib=16, use_qlora=qlora == "qlora")
model = load_model(config, Path(folder), "cpu")
done.set()
watcher.join()
parameters = list(model.parameters())
storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters}
print(json.dumps({
    "anonymous": peaks[0] - before[0], "total": peaks[1] - before[1],
    "parameters": sum(p.numel() for p in parameters), "storages": sum(storages.values()),
    "own": all(p.untyped_storage().nbytes() == p.nbytes for p in parameters),
    "dtypes": sorted({str(p.dtype) for p in parameters}),
}))
"""


def measure(folder, precision, qlora="full"):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), precision, qlora], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_dtype", "shards", "precision"),
    [(torch.bfloat16, 1, "bf16-true"), (torch.float32, 3, "bf16-true")],
    ids=["bf16 file", "fp32 file in 3 shards"],
)
def test_loading_one_gigabyte_takes_one_copy_in_the_dtype_of_the_run(tmp_path, file_dtype, shards, precision):
    folder = tmp_path / "large"
    try:
        parameters = write_large(folder, file_dtype, 10**9, shards)
        found = measure(folder, precision)
    finally:
        shutil.rmtree(folder)
    copy = parameters * 2
    assert found["parameters"] == parameters
    assert found["dtypes"] == ["torch.bfloat16"]
    assert (found["storages"], found["own"]) == (copy, True)
    assert copy <= found["anonymous"] + 2**20 < 1.2 * copy
    assert found["total"] < 1.2 * copy
