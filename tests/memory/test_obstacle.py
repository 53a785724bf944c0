"""Why torch cannot use a GPU: asked of CUDA itself, told with the GPU that is there, the driver and the next step."""

import json
import os

import pytest
import smi
import torch

from labkit.memory import obstacle
from labkit.memory.obstacle import find_obstacle

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: ..."
)
UNKNOWN = (
    "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable "
    "CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
)
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from\n"
    "http://www.nvidia.com/Download/index.aspx"
)
NONE = "No CUDA GPUs are available"


@pytest.fixture
def torch_says(monkeypatch):
    """A torch that is built for CUDA and cannot begin with it; NVML says that all is well."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    def make(said=None, cuda="13.0", count=1, at="init", kind=RuntimeError):
        def refuse(*_):
            raise kind(said)

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H100 NVL")
        for name in ("init", "set_device"):
            monkeypatch.setattr(torch.cuda, name, refuse if said and at == name else lambda *_: None)

    return make


@pytest.fixture
def smi_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(obstacle, "DRIVER_LISTS", tmp_path / "none")
    return lambda *gpus, **options: smi.install(tmp_path, monkeypatch, *gpus, **options)


@pytest.fixture
def no_smi(tmp_path, monkeypatch):
    monkeypatch.setattr(obstacle, "DRIVER_LISTS", tmp_path / "gpus")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "gpus"


@pytest.mark.slow
@pytest.mark.parametrize("said", [OLD_DRIVER, UNKNOWN, NO_DRIVER, NONE, "Unexpected error ... Error 802: system not"])
def test_a_gpu_that_torch_cannot_use_is_named_with_torchs_own_reason(torch_says, smi_lists, said):
    torch_says(said)
    smi_lists(smi.H100)
    found = find_obstacle()
    assert found.gpu == "NVIDIA H100 NVL"
    words = f"torch {torch.__version__} cannot use NVIDIA H100 NVL (driver 580.95.05): "
    assert found.reason == words + said.splitlines()[0].rstrip(".")
    assert not found.without_cuda and not found.full


def test_what_works_is_no_obstacle(torch_says, monkeypatch):
    torch_says()
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    assert find_obstacle() is None
    assert find_obstacle(0) is None
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_an_order_of_ones_own_is_kept(torch_says, monkeypatch):
    torch_says()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    find_obstacle()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.parametrize("said", [NO_DRIVER, NONE])
def test_without_a_gpu_there_is_none(torch_says, no_smi, said):
    torch_says(said)
    assert find_obstacle() == obstacle.Obstacle(reason="PyTorch sees no CUDA GPU here")


def test_a_gpu_that_a_container_was_not_given_is_none_and_said(torch_says, no_smi):
    torch_says(NO_DRIVER)
    (no_smi / "0000:01:00.0").mkdir(parents=True)
    found = find_obstacle()
    assert found.gpu is None
    assert "this container or job was not given" in found.reason


@pytest.mark.parametrize("said", [OLD_DRIVER, UNKNOWN])
def test_a_driver_that_refuses_is_there_without_nvidia_smi(torch_says, no_smi, said):
    torch_says(said)
    assert find_obstacle().gpu == "the GPU"


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_are_none(torch_says, smi_lists, monkeypatch, visible):
    torch_says(NONE)
    smi_lists(smi.H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_obstacle()
    assert (found.gpu, found.reason) == (None, f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU")


@pytest.mark.slow
def test_a_value_that_names_no_gpu_of_those_here_is_a_mistake(torch_says, smi_lists, monkeypatch):
    torch_says(NONE)
    smi_lists(smi.H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = find_obstacle()
    assert found.gpu
    assert found.reason == "CUDA_VISIBLE_DEVICES='3' names no GPU that is here (0 NVIDIA H100 NVL)"


@pytest.mark.slow
def test_the_second_gpu_is_named_where_it_is_chosen(torch_says, smi_lists, monkeypatch):
    torch_says(OLD_DRIVER)
    smi_lists(smi.H100, smi.OLD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert find_obstacle().gpu == "Tesla V100-PCIE-32GB"


@pytest.mark.slow
def test_a_torch_for_cpus_beside_a_gpu_is_said_to_be_one(torch_says, smi_lists, no_smi, monkeypatch):
    torch_says("Torch not compiled with CUDA enabled", cuda=None, kind=AssertionError)
    assert find_obstacle() == obstacle.Obstacle(reason="PyTorch sees no CUDA GPU here", without_cuda=True)
    smi_lists(smi.H100)
    found = find_obstacle()
    assert (found.gpu, found.without_cuda) == ("NVIDIA H100 NVL", True)
    assert found.reason == f"torch {torch.__version__} is a build without CUDA, which cannot use NVIDIA H100 NVL"


@pytest.mark.slow
def test_a_gpu_that_cannot_be_taken(torch_says, smi_lists):
    smi_lists(smi.H100)
    torch_says("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nmore", at="set_device")
    assert find_obstacle() is None
    found = find_obstacle(0)
    assert found.reason.endswith(": CUDA error: CUDA-capable device(s) is/are busy or unavailable")
    assert not found.full
    torch_says("CUDA error: out of memory\nmore", at="set_device", kind=torch.AcceleratorError)
    assert find_obstacle(0).full


def test_a_rank_without_a_gpu_of_its_own(torch_says):
    torch_says(count=2)
    assert find_obstacle(1) is None
    assert find_obstacle(2).reason == "GPU 2 (they count from 0) is asked for, and PyTorch sees 2 here"


@pytest.mark.slow
def test_an_error_in_a_call_that_waited_for_cuda(torch_says, smi_lists):
    torch_says(
        "CUDA call failed lazily at initialization with error: x\n\ntrace", kind=torch.cuda.DeferredCudaCallError
    )
    smi_lists(smi.H100)
    assert find_obstacle().reason.endswith("CUDA call failed lazily at initialization with error: x")


@pytest.mark.slow
def test_it_is_printed_for_who_does_not_import_torch(torch_says, smi_lists, monkeypatch, capsys):
    torch_says(OLD_DRIVER)
    smi_lists(smi.H100)
    obstacle.main()
    found = json.loads(capsys.readouterr().out)
    assert "is too old (found version 12080)" in found["reason"]
    torch_says()
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    obstacle.main()
    assert json.loads(capsys.readouterr().out) == {"reason": None, "gpu": None, "architectures": ["sm_90"]}
