"""nvidia-smi: what it lists, and what CUDA_VISIBLE_DEVICES leaves of it to a process."""

import pytest
import smi

from labkit.memory import nvidia_smi
from labkit.memory.nvidia_smi import list_devices, names_in, visible_devices

GIB = 2**30


@pytest.fixture
def listed(tmp_path, monkeypatch):
    def make(*gpus, **options):
        smi.install(tmp_path, monkeypatch, *gpus, **options)
        return list_devices()[0]

    return make


@pytest.mark.slow
def test_gpus_are_listed_in_pci_order(listed):
    first, second = listed(smi.OLD, smi.H100)
    assert (first.index, first.name, first.total_bytes) == (0, "NVIDIA H100 NVL", 95830 * 2**20)
    assert (first.used_bytes, first.driver, first.capability) == (512 * 2**20, "580.95.05", (9, 0))
    assert (second.index, second.mig, second.is_part) == (1, False, False)


@pytest.mark.slow
def test_what_it_does_not_tell_is_none(listed):
    (gpu,) = listed(smi.H100.replace("512", "[N/A]").replace("9.0", "[N/A]"))
    assert (gpu.used_bytes, gpu.capability) == (None, None)


VISIBLE = {
    None: [0, 1],
    "0": [0],
    "1,0": [1, 0],
    "1 , 0": [1, 0],
    "1gpu2,0": [1, 0],  # CUDA reads numbers as strtoul does
    "7": [],
    "1,7,0": [1],  # what is no device ends the list
    "0,-1,1": [0],
    "0,0": [],  # as does one that is named twice, all of it
    "": [],
    "-1": [],
    "NoDevFiles": [],
    "GPU-8f1b3c44-0000-4000-8000-000000000000": [0],
    "GPU-8f1b77": [1],
    "GPU-8f1b77,GPU-8f1b3c": [1, 0],
    "GPU-8f1b": [],  # both begin like this
    "GPU-8f1b77,0": [1],
    "GPU-9": [],
    "MIG-dc34c2fd": [],
}


@pytest.mark.slow
@pytest.mark.parametrize(("visible", "indices"), VISIBLE.items())
def test_those_that_cuda_shows_come_in_its_order(listed, visible, indices):
    assert [device.index for device in visible_devices(listed(smi.H100, smi.OLD), visible)] == indices


@pytest.mark.parametrize(
    "visible", [value for value in VISIBLE if value is not None and not value.startswith("GPU-8f1b")]
)
def test_the_words_are_read_as_torch_reads_them(monkeypatch, visible):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    names = names_in(visible) if visible != "0,0" else []  # torch empties the list at once
    assert [str(name) for name in torch.cuda._parse_visible_devices()] == names


PARTS_SHOWN = {
    None: "MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4",  # the first: CUDA shows one part and no other device
    "0": "MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4",
    "1,0": "MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4",
    "GPU-b614723c": "MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4",
    "MIG-ec4c3916-65fa-5948-b9b5-9f21a2ddfcc0": "MIG-ec4c3916-65fa-5948-b9b5-9f21a2ddfcc0",
    "MIG-ec4c3916-65fa-5948-b9b5-9f21a2ddfcc0,MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4":
        "MIG-ec4c3916-65fa-5948-b9b5-9f21a2ddfcc0",
    "MIG-GPU-b614723c-0000-4000-8000-000000000002/9/0": "MIG-GPU-b614723c-0000-4000-8000-000000000002/9/0",
    "1": "GPU-8f1b77aa-0000-4000-8000-000000000001",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("visible", "uuid"), PARTS_SHOWN.items())
def test_of_parts_one_is_shown(listed, visible, uuid):
    (shown,) = visible_devices(listed(smi.CUT, smi.OLD, parts=smi.PARTS), visible)
    assert shown.uuid == uuid


@pytest.mark.slow
def test_a_part_has_its_own_size_and_the_rest_of_its_gpu(listed):
    (gpu,) = listed(smi.CUT, parts=smi.PARTS)
    assert [part.total_bytes // GIB for part in gpu.parts] == [40, 10, 20]
    first = gpu.parts[0]
    assert (first.name, first.is_part, first.used_bytes) == ("3g.40gb of NVIDIA A100-SXM4-80GB", True, None)
    assert (first.index, first.capability, first.driver) == (0, (8, 0), "580.95.05")


@pytest.mark.slow
def test_a_gpu_in_mig_mode_without_parts_is_not_shown(listed):
    assert visible_devices(listed(smi.CUT), None) == []
    assert visible_devices(listed(smi.CUT), "0") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 'No devices were found'; exit 6", "No devices were found"),
        ("printf '\\377\\376'", "lists no GPU"),
        ("echo a, line, that, is, none", "lists no GPU"),
        ("exec sleep 30", "did not answer within 0.2 s"),
    ],
)
def test_an_answer_that_is_none_is_told(tmp_path, monkeypatch, text, why):
    monkeypatch.setattr(nvidia_smi, "QUERY_TIMEOUT_S", 0.2)
    smi.install(tmp_path, monkeypatch, text=text)
    devices, said = list_devices()
    assert devices == []
    assert why in said


@pytest.mark.slow
def test_without_the_program_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_devices() == ([], "there is no nvidia-smi")
    (tmp_path / "nvidia-smi").write_text("no program")
    (tmp_path / "nvidia-smi").chmod(0o755)  # one that the system cannot start
    assert "cannot be started" in list_devices()[1]
