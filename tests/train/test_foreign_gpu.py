"""A GPU that the installed torch has no code for is refused before anything is built, whatever the precision."""

import pytest
import torch

from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.train.events import EventWriter
from labkit.train.fit import fit
from labkit.train.gpu import refuse_foreign_gpu


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of a capability, and a torch that is built for some architectures."""

    def make(capability, architectures):
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")

    return make


def started(folder, precision="32-true"):
    config = resolve(Workspace.find(), "reduced_batch", {"device": "cuda", "precision": precision}, "tiny").config
    with EventWriter(folder / "events.jsonl") as events:
        fit(folder, config, folder, events)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-true"])
def test_a_gpu_without_code_is_refused_by_its_capability(gpu, tmp_path, precision):
    gpu((7, 0), ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"])
    with pytest.raises(ConfigError, match=r"Some GPU has compute capability 7\.0: torch .* has no code for it"):
        started(tmp_path, precision)


@pytest.mark.parametrize(("capability", "architectures"), [((8, 6), ["sm_80"]), ((12, 0), ["sm_80", "compute_90"])])
def test_a_gpu_that_runs_older_code_or_ptx_is_used(gpu, capability, architectures):
    gpu(capability, architectures)
    assert refuse_foreign_gpu() is None
