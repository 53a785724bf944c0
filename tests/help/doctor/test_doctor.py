"""The doctor finds what is wrong with a machine. Each amber and red is provoked once, on a machine made of files,
commands that print what the real ones do, disks of a few MiB and a hub on loopback."""

import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit.config.gpus import find_gpu
from labkit.config.kernels import BUILDS
from labkit.config.layers import resolve
from labkit.config.versions import version_of
from labkit.config.workspace import Workspace
from labkit.help.doctor import libraries
from labkit.help.doctor.examine import examine, worst
from labkit.help.doctor.gpu import check_gpu
from labkit.help.doctor.host import (
    check_caches,
    check_compiler,
    check_disk,
    check_memory,
    check_shared_memory,
    swap_commands,
)
from labkit.help.doctor.libraries import check_extras, check_hub, check_versions
from labkit.help.doctor.machine import Machine, Needs

GIB = 2**30
ROOT = Path(__file__).parents[3]

# what "nvidia-smi" prints above its table, of driver branch 550 and, with other numbers, of 580
H100 = "0, GPU-11, NVIDIA H100 NVL, 95830, 4, 580.95.05, 9.0, Disabled"
HEADER = "| NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}     |"


def command(folder: Path, name: str, text: str) -> None:
    """A program in ``folder``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def a_machine(tmp_path):
    """Makes machines: each keyword replaces a part of one that is in order."""

    def make(
        *, gpus=(H100,), parts="", cuda="13.0", apps=(), smi=None, torch="13.0", says=None,
        available_gib=300, total_gib=512, swap_gib=0, mounts="/dev/vda / ext4 rw 0 0\n", environment=None,
        timeout_s=10.0, **commands,
    ) -> Machine:  # fmt: skip
        bin, root, site = tmp_path / "bin", tmp_path / "root", tmp_path / "torch"
        listed = "\n".join(gpus)
        said = "\n".join(apps)
        command(bin, "nvidia-smi", smi or (
            f'case "$1" in --query-gpu*) echo "{listed}";; --query-compute*) printf "{said}";; -L) printf "{parts}";; '
            f'*) echo "{HEADER.format(driver="580.95.05", cuda=cuda)}";; esac'
        ))  # fmt: skip
        if smi == "gone":
            (bin / "nvidia-smi").unlink()
        command(bin, "c++", "true")
        # what torch itself says, of a process that imports it
        found = json.dumps({"reason": says, "gpu": None, "architectures": BUILDS.get(torch, ())})
        command(bin, "python", f"echo a warning; echo '{found}'")
        for name, text in commands.items():
            command(bin, name, text)
        for folder in ("proc", "dev/shm"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "proc/meminfo").write_text(
            f"MemTotal: {total_gib * 2**20} kB\nMemAvailable: {int(available_gib * 2**20)} kB\n"
            f"SwapTotal: {swap_gib * 2**20} kB\nSwapFree: {swap_gib * 2**20} kB\n"
        )
        (root / "proc/mounts").write_text(mounts)
        (root / "proc/swaps").write_text("Filename Type Size Used Priority\n")
        site.mkdir(exist_ok=True)
        built = "None" if torch is None else f"'{torch}'"
        (site / "version.py").write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {built}\n")
        values = {"PATH": str(bin), "HOME": str(tmp_path / "home")} | (environment or {})
        return Machine(
            root=root, environment=values, torch_folder=site, python=str(bin / "python"), timeout_s=timeout_s,
            torch_timeout_s=timeout_s,
        )  # fmt: skip

    return make


def needs(experiment=None, profile="h100-94gb", overrides=None, **values) -> Needs:
    gpu = find_gpu(profile) if profile != "tiny" else None
    if experiment is None:
        return Needs(profile=profile, device="cuda" if gpu else "simulated", gpu=gpu, **values)
    config = resolve(Workspace.find(), experiment, overrides, profile).config
    typed = tuple(f"{key}={value}" for key, value in (overrides or {}).items())
    return Needs(profile=profile, device=config.device, gpu=gpu, experiment=experiment, config=config, typed=typed,
                 **values)  # fmt: skip


def only(checks, name):
    (found,) = [check for check in checks if check.name == name]
    return found


# -- GPU


GREEN = ("gpu", "torch on the GPU", "kernels", "bf16", "driver", "others on the GPU")


@pytest.mark.slow
def test_a_machine_in_order_is_green(a_machine):
    checks = check_gpu(a_machine(), needs("bf16_true"))
    assert [(c.name, c.level) for c in checks] == [(n, "green") for n in GREEN]
    assert check_gpu(a_machine(smi="gone"), needs(profile="tiny"))[0].level == "green"


V100 = "0, GPU-12, Tesla V100-PCIE-32GB, 32768, 4, 580.95.05, 7.0, [N/A]"
A100 = "1, GPU-13, NVIDIA A100 80GB PCIe, 81920, 4, 580.95.05, 8.0, Disabled"
FULL = H100.replace("95830, 4,", "95830, 40960,")
GPU_FAULTS = {
    "no nvidia-smi": (dict(smi="gone"), {}, "gpu", "red", "sudo apt install nvidia-driver-580-server"),
    "no driver": (dict(smi="echo 'NVIDIA-SMI has failed because it couldn'; exit 9"), {}, "gpu", "red", "dmesg"),
    "nvidia-smi hangs": (dict(smi="exec /bin/sleep 60", timeout_s=0.5), {}, "gpu", "red", "dmesg"),
    "no GPU": (dict(gpus=()), {}, "gpu", "red", "dmesg"),
    "too few": ({}, dict(experiment="bf16_true", overrides={"devices": 4, "strategy": "ddp"}), "gpu", "red",
                "labkit run bf16_true strategy=ddp devices=1 --profile h100-94gb"),
    "a smaller one": (dict(gpus=[A100]), {}, "gpu", "red", "labkit profiles make --gpu 80GiB"),
    "a larger one": ({}, dict(profile="a100-80gb"), "gpu", "amber", "labkit profiles make --gpu 93GiB"),
    "no code for it": (dict(gpus=[V100]), dict(profile="v100-32gb"), "kernels", "red", "--index-url"),
    "no code for it, whatever the precision": (
        dict(gpus=[V100]), dict(experiment="bf16_true", overrides={"precision": "16-mixed"}, profile="v100-32gb"),
        "kernels", "red", "cu126",
    ),
    "newer than all that torch has": (dict(gpus=[H100.replace("9.0", "12.0")], torch="12.6"), {}, "kernels",
                                      "red", "a torch that is built for this one"),
    "no bf16": (dict(gpus=[V100]), dict(profile="v100-32gb"), "bf16", "amber", "precision=16-mixed"),
    "no bf16, and it is needed": (dict(gpus=[V100]), dict(experiment="bf16_true", profile="v100-32gb"), "bf16", "red",
                                  "labkit run bf16_true precision=16-mixed --profile v100-32gb"),
    "no bf16 for QLoRA": (dict(gpus=[V100]), dict(experiment="xxl_qlora", profile="v100-32gb"), "bf16", "red",
                          "use_qlora=false use_lora=true"),
    "an nvidia-smi that is too old": (dict(gpus=[H100.replace("9.0", "[N/A]")]), {}, "bf16", "amber",
                                      "get_device_capability"),
    "an old driver": (dict(cuda="12.8"), {}, "driver", "red", "nvidia-driver-580-server"),
    "an older torch than driver": (dict(cuda="11.8", torch="12.8"), {}, "driver", "red", "nvidia-driver-570-server"),
    "torch without CUDA": (dict(torch=None), {}, "driver", "red", "pip install --force-reinstall torch==2.13.0"),
    "a driver that says no CUDA": (dict(cuda="N/A"), {}, "driver", "amber", "torch.zeros"),
    "a small process": (dict(apps=["GPU-11, 4242, python, 300\\n"]), {}, "others on the GPU", "amber",
                        "ps -o pid,user,etime,cmd -p 4242"),
    "a large process": (
        dict(gpus=[FULL], apps=["GPU-11, 4242, python, 40000\\n", "GPU-11, 7, x, 900\\n"]),
        {}, "others on the GPU", "red", "-p 4242,7",
    ),
    "one on another GPU": (dict(gpus=[FULL, A100], apps=["GPU-13, 4242, python, 300\\n"]), {}, "others on the GPU",
                           "red", "outside of this container"),
    "one that a container hides": (dict(gpus=[FULL]), {},
                                   "others on the GPU", "red", "outside of this container"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "need", "name", "level", "fix"), GPU_FAULTS.values(), ids=GPU_FAULTS)
def test_a_fault_of_the_gpu_is_found_with_what_fixes_it(a_machine, machine, need, name, level, fix):
    found = only(check_gpu(a_machine(**machine), needs(**need)), name)
    assert found.level == level
    assert fix in found.fix


def test_in_a_container_without_the_gpu_the_container_is_to_be_started_otherwise(a_machine):
    machine = a_machine(smi="gone")
    (machine.root / ".dockerenv").touch()
    assert check_gpu(machine, needs())[0].fix.startswith("docker run --gpus all")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "fix"),
    [
        ("torch 2.13 cannot use it: The NVIDIA driver on your system is too old (found version 12080)",
         "sudo apt install nvidia-driver-580-server && sudo reboot"),
        ("... Error 802: system not yet initialized", "sudo systemctl start nvidia-fabricmanager"),
        ("... Error 803: system has unsupported display driver", "sudo reboot"),
        ("... Found no NVIDIA driver on your system", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("... CUDA unknown error - this may be due to", "sudo nvidia-modprobe -u -c=0"),
        ("... all CUDA-capable device(s) is/are busy or unavailable", "nvidia-smi -c 0"),
        ("... something new", "dmesg"),
    ],
)  # fmt: skip
def test_a_gpu_that_nvidia_smi_lists_and_torch_cannot_use(a_machine, says, fix):
    found = only(check_gpu(a_machine(says=says), needs("bf16_true")), "torch on the GPU")
    assert (found.level, found.found) == ("red", says)
    assert fix in found.fix
    # the simulated GPU does without it
    found = only(check_gpu(a_machine(says=says), needs(profile="tiny")), "torch on the GPU")
    assert (found.level, found.found) == ("amber", says)


@pytest.mark.slow
def test_a_torch_that_hangs_or_does_not_start_is_told(a_machine):
    found = only(check_gpu(a_machine(python="exec /bin/sleep 60", timeout_s=1.0), needs()), "torch on the GPU")
    assert (found.level, "torch did not answer within 1 s" in found.found) == ("red", True)
    found = only(check_gpu(a_machine(python="echo ImportError: no libcudart >&2; exit 1"), needs()), "torch on the GPU")
    assert (found.level, found.found) == ("red", "ImportError: no libcudart")


@pytest.mark.slow
def test_the_doctor_asks_torch_in_a_process_of_its_own():
    code = "import sys; from labkit.verbs.doctor import main; from labkit.help.doctor.machine import Machine\n"
    code += "print(Machine().torch_says['reason']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    reason, loaded = done.stdout.splitlines()
    assert "GPU" in reason or reason == "None"
    assert loaded == "False"


# -- which GPU

CUT = "0, GPU-14, NVIDIA A100-SXM4-80GB, 81920, 100, 580.95.05, 8.0, Enabled"
PARTS = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-14)
  MIG 3g.40gb     Device  0: (UUID: MIG-aa)
  MIG 2g.20gb     Device  1: (UUID: MIG-bb)
"""


@pytest.mark.slow
def test_the_gpu_that_is_chosen_is_judged(a_machine):
    def judged(visible, profile="h100-94gb"):
        machine = a_machine(gpus=[H100, A100], environment={"CUDA_VISIBLE_DEVICES": visible})
        return only(check_gpu(machine, needs(profile=profile)), "gpu")

    assert judged("0").level == "green"
    assert judged("0").found.startswith("1 x NVIDIA H100 NVL")
    assert judged("1,0").found.startswith("2 x NVIDIA A100 80GB PCIe")
    assert judged("1").level == "red"
    assert judged("1", "a100-80gb").level == "green"
    assert judged("GPU-13", "a100-80gb").level == "green"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "found", "fix"),
    [
        ("", "CUDA_VISIBLE_DEVICES='' hides 0 NVIDIA H100 NVL", "unset CUDA_VISIBLE_DEVICES"),
        ("-1", "hides", "unset CUDA_VISIBLE_DEVICES"),
        ("4", "CUDA_VISIBLE_DEVICES='4' names none that is here", "export CUDA_VISIBLE_DEVICES=0"),
        ("MIG-1", "names none that is here", "export CUDA_VISIBLE_DEVICES=0"),
    ],
)
def test_a_gpu_that_is_hidden_is_said_to_be(a_machine, visible, found, fix):
    (check,) = check_gpu(a_machine(environment={"CUDA_VISIBLE_DEVICES": visible}), needs())
    assert (check.level, found in check.found, fix in check.fix) == ("red", True, True)


@pytest.mark.slow
def test_a_part_of_a_gpu_is_judged_by_its_own_size(a_machine):
    machine = a_machine(gpus=[CUT], parts=PARTS, environment={"CUDA_VISIBLE_DEVICES": "MIG-bb"})
    checks = check_gpu(machine, needs(profile="a100-80gb"))
    found = only(checks, "gpu")
    assert found.found.startswith("1 x 2g.20gb of NVIDIA A100-SXM4-80GB, 20.00 GiB")
    assert (found.level, "labkit profiles make --gpu 20GiB" in found.fix) == ("red", True)
    assert only(check_gpu(machine, dataclasses.replace(needs(profile="a100-80gb"), gpu=None)), "gpu").level == "green"
    assert [check.name for check in checks if check.name == "others on the GPU"] == []


@pytest.mark.slow
def test_a_gpu_in_parts_of_which_none_is_chosen_says_so(a_machine):
    need = dataclasses.replace(needs(profile="a100-80gb"), gpu=None)
    found = only(check_gpu(a_machine(gpus=[CUT], parts=PARTS), need), "gpu")
    assert (found.level, "no part is chosen of the 2" in found.found) == ("amber", True)
    assert found.fix.startswith("export CUDA_VISIBLE_DEVICES=MIG-aa")
    alone = PARTS[: PARTS.index("  MIG 2g")]
    assert only(check_gpu(a_machine(gpus=[CUT], parts=alone), need), "gpu").level == "green"
    (none,) = check_gpu(a_machine(gpus=[CUT]), need)
    assert (none.level, "in MIG mode without a part" in none.found) == ("red", True)


# -- host memory


def test_host_memory_against_offload_gives_swap_of_the_size_that_is_missing(a_machine, monkeypatch):
    need = needs("xxl_cpu_offload", host_bytes=228 * GIB)
    assert check_memory(a_machine(available_gib=233), need).level == "green"
    swapping = check_memory(a_machine(available_gib=200, swap_gib=64), need)
    assert (swapping.level, "slow" in swapping.found) == ("amber", True)
    full = check_memory(a_machine(available_gib=200, swap_gib=22), need)
    assert full.level == "red"
    assert full.fix.startswith("sudo fallocate -l 11G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile "
                                "&& sudo swapon /swapfile")  # fmt: skip


def test_swap_that_no_disk_has_room_for_is_not_proposed(a_machine):
    found = check_memory(a_machine(available_gib=8), needs("xxl_cpu_offload", host_bytes=10**6 * GIB))
    assert found.level == "red"
    assert "no room" in found.found
    assert found.fix.startswith("labkit advise xxl_cpu_offload --gpu h100-94gb")


def test_loader_workers_count(a_machine):
    need = needs("bf16_true", overrides={"num_workers": 16})
    found = check_memory(a_machine(available_gib=6, swap_gib=8), need)
    assert (found.level, "loader workers (16)" in found.found) == ("amber", True)
    assert found.fix == "labkit run bf16_true num_workers=0 --profile h100-94gb"
    assert check_memory(a_machine(available_gib=6), needs("bf16_true", overrides={"num_workers": 0})).level == "green"


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_the_control_group_counts_and_swap_does_not_help(a_machine, version):
    machine = a_machine(swap_gib=100)
    if version == 1:
        (machine.root / "proc/self").mkdir()
        (machine.root / "proc/self/cgroup").write_text("4:memory:/docker/abc\n0::/\n")
        group = machine.root / "sys/fs/cgroup/memory/docker/abc"
        files = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
                 "memory.limit_in_bytes": f"{2 * GIB}\n", "memory.usage_in_bytes": f"{GIB}\n"}  # fmt: skip
    else:
        group = machine.root / "sys/fs/cgroup"
        files = {"memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n", "memory.max": f"{2 * GIB}\n",
                 "memory.current": f"{GIB}\n"}  # fmt: skip
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name).write_text(text)
    found = check_memory(machine, needs())
    assert (found.level, "1.00 GiB free of 2.00 GiB, which is this control group's limit" in found.found) == (
        "red",
        True,
    )
    assert "--memory=5g" in found.fix


def test_memory_that_cannot_be_read_is_amber(a_machine):
    machine = a_machine()
    (machine.root / "proc/meminfo").unlink()
    assert check_memory(machine, needs()).level == "amber"


def test_swap_goes_to_a_file_that_is_not_taken(a_machine):
    machine = a_machine()
    (machine.root / "proc/swaps").write_text("Filename Type\n/swapfile file 1 0 -2\n")
    assert "/swapfile2" in swap_commands(machine, 4)


# -- disks


@pytest.fixture
def mounted():
    """Puts a disk of some MiB at a folder."""
    folders = []

    def mount(folder: Path, size_mib: int, options: str = "rw") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,{options}", "tmpfs", str(folder)])
        if done.returncode:
            pytest.skip("needs the right to mount")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_shared_memory_against_the_batches_of_the_workers(a_machine, mounted):
    machine = a_machine()
    mounted(machine.root / "dev/shm", 64)  # as Docker gives it
    # 3 batches a worker of 3 x 224 x 224 floats a sample
    found = check_shared_memory(machine, needs("reduced_batch", overrides={"num_workers": 8}))
    assert (found.level, found.fix) == ("red", "sudo mount -o remount,size=8G /dev/shm")
    half = needs("reduced_batch", overrides={"num_workers": 1, "batch_size": 24})
    assert check_shared_memory(machine, half).level == "amber"
    few = needs("reduced_batch", overrides={"num_workers": 1, "batch_size": 4})
    assert check_shared_memory(machine, few).level == "green"
    none = needs("reduced_batch", overrides={"num_workers": 0})
    assert check_shared_memory(machine, none).level == "green"
    assert check_shared_memory(machine, needs()).level == "amber"
    (machine.root / ".dockerenv").touch()
    assert check_shared_memory(machine, needs()).fix.startswith("docker run --shm-size=8g")


def test_a_machine_without_shared_memory_runs_without_workers(a_machine):
    machine = a_machine()
    (machine.root / "dev/shm").rmdir()
    found = check_shared_memory(machine, needs("reduced_batch"))
    assert (found.level, found.fix) == ("amber", "labkit run reduced_batch num_workers=0 --profile h100-94gb")


@pytest.mark.slow
@pytest.mark.parametrize(("size_mib", "level"), [(100, "red"), (1024, "amber"), (4096, "green")])
def test_a_disk_that_is_small(a_machine, mounted, tmp_path, size_mib, level):
    disk = mounted(tmp_path / "disk", size_mib)
    found = check_disk(a_machine(), needs(), disk / "runs")
    assert found.level == level
    assert (f"df -h {disk}" in found.fix) == (level != "green")


@pytest.mark.slow
def test_checkpoints_count(a_machine, mounted, tmp_path):
    disk = mounted(tmp_path / "disk", 4096)
    found = check_disk(a_machine(), needs("reduced_batch", saved_bytes=80 * GIB), disk / "runs")
    assert (found.level, "80.00 GiB (predicted)" in found.found) == ("red", True)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(a_machine, mounted, tmp_path):
    found = check_disk(a_machine(), needs(), mounted(tmp_path / "disk", 4096, "ro") / "runs")
    assert (found.level, found.fix) == ("red", "export LABKIT_RUNS=$HOME/runs")


@pytest.mark.parametrize(
    ("mounts", "variable"),
    [
        ("server:/home {home} nfs4 rw 0 0\n", "HF_HOME"),
        ("/dev/sdb {home} ext4 rw,usrquota 0 0\n", "TRITON_CACHE_DIR"),
        ("/dev/sdb {home} xfs rw,prjquota 0 0\n", "TORCH_HOME"),
    ],
)
def test_caches_on_a_network_disk_or_under_a_quota(a_machine, tmp_path, mounts, variable):
    home = tmp_path / "home"
    home.mkdir()
    text = "/dev/vda / ext4 rw 0 0\n/dev/sdc /tmp/other nfs rw 0 0\n" + mounts.format(home=home)
    found = check_caches(a_machine(mounts=text))
    assert (found.level, f"{variable}=FOLDER/{variable.lower()}" in found.fix) == ("amber", True)
    assert "TMPDIR" not in found.found
    moved = dict.fromkeys(
        ("HF_HOME", "HF_DATASETS_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"), str(tmp_path / "project")
    )
    assert check_caches(a_machine(mounts=text, environment=moved)).level == "green"


def test_xfs_without_quota_is_no_quota(a_machine):
    assert check_caches(a_machine(mounts="/dev/vda / xfs rw,noquota 0 0\n")).level == "green"


@pytest.mark.slow
def test_a_quota_that_is_nearly_used_up(a_machine):
    said = "echo 'Disk quotas for user student (uid 1000):'; echo '/home 9500000* 10000000 10000000 1 0 0 0'; exit 1"
    found = check_caches(a_machine(quota=said))
    assert (found.level, "/home" in found.found) == ("red", True)
    assert check_caches(a_machine(quota="echo '/home 1000 10000000 10000000 1 0 0 0'")).level == "green"


def test_the_compiler_is_asked_for_by_the_cpu_optimizer(a_machine):
    machine = a_machine()
    assert check_compiler(machine, needs()).level == "green"
    Path(machine.environment["PATH"], "c++").unlink()
    assert check_compiler(machine, needs()).level == "amber"
    assert check_compiler(machine, needs("bf16_true")).level == "green"
    found = check_compiler(machine, needs("xxl_cpu_offload"))
    assert (found.level, found.fix) == ("red", "sudo apt install g++ python3-dev")


# -- libraries and hub


def test_versions_against_the_pins(tmp_path):
    pins = tmp_path / "requirements.txt"
    assert check_versions().level == "green"  # those of this checkout
    pins.write_text("torch==1.0\nnumpy==1.0\n")
    found = check_versions(pins)
    assert (found.level, "torch 2" in found.found) == ("amber", True)
    pins.write_text("torch==1.0\nnothing-of-this-name==1.0\n")
    found = check_versions(pins)
    assert (found.level, found.fix) == ("red", f"{sys.executable} -m pip install -r {pins}")


def test_the_lock_of_an_image_is_named_by_a_variable(tmp_path, monkeypatch):
    pins = tmp_path / "pins.txt"
    pins.write_text("pytest==1.0\n")
    monkeypatch.setenv("LABKIT_LOCK", str(pins))
    found = check_versions()
    assert (found.level, found.found.startswith("not as tested: pytest ")) == ("amber", True)
    assert str(pins) in found.fix


def test_where_there_is_no_checkout_the_pins_are_those_that_pip_has_kept(tmp_path, monkeypatch):
    here = version_of("numpy")
    required = [f"numpy=={here}", 'nothing-of-this-name==1.0 ; extra == "dev"']
    monkeypatch.setattr(libraries.metadata, "requires", {"labkit": required}.get)
    found = check_versions(tmp_path / "none")
    assert (found.level, found.found) == ("green", "1 package as pinned")
    required[0] = "numpy==1.0"
    found = check_versions(tmp_path / "none")
    assert (found.level, found.fix) == ("amber", f"{sys.executable} -m pip install numpy==1.0")

    def unknown(name):
        raise libraries.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(libraries.metadata, "requires", unknown)
    assert check_versions(tmp_path / "none").level == "amber"


def test_ranges_are_compared_as_ranges_and_an_extra_only_where_it_is_installed(tmp_path, monkeypatch):
    required = ["numpy>=1.0", "torch>=2.0", "PyYAML>=5", 'PyYAML>=5 ; extra == "chi"']
    required += ['labkit[gpu] ; extra == "course"', 'nothing-of-this-name>=1.0 ; extra == "gpu"']
    monkeypatch.setattr(libraries.metadata, "requires", {"labkit": required}.get)
    found = check_versions(tmp_path / "none")
    assert (found.level, found.found.partition(" labkit")[0]) == ("green", "3 packages in the ranges of")
    required.append('datasets>=900 ; extra == "gpu"')
    found = check_versions(tmp_path / "none")
    assert (found.level, found.fix) == ("amber", f"{sys.executable} -m pip install 'datasets>=900'")
    assert "not >=900" in found.found
    required.append("nothing-of-this-name>=1.0")
    found = check_versions(tmp_path / "none")
    assert (found.level, found.found) == ("red", "not installed: nothing-of-this-name >=1.0")


def test_an_experiment_that_lacks_a_library_is_red_with_what_installs_it(monkeypatch):
    assert check_extras(needs("xxl_cpu_offload")) == []
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    (found,) = check_extras(needs("xxl_cpu_offload"))
    assert (found.level, found.fix) == ("red", "pip install 'labkit[gpu]'")
    assert found.found.endswith("deepspeed is not installed")
    assert check_extras(needs("bf16_true")) == check_extras(needs()) == []


@pytest.mark.slow
def test_an_installed_labkit_is_compared_with_its_own_pins(tmp_path):
    # as in the image: the package lies in site-packages, with no requirements.txt above it
    shutil.copytree(ROOT / "labkit", tmp_path / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    info = tmp_path / "labkit-0.1.0.dist-info"
    info.mkdir()
    pins = [f"Requires-Dist: {line}" for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    info.joinpath("METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: labkit", "Version: 0.1.0", *pins]))
    code = "from labkit.help.doctor import libraries as l; print(l.__file__, l.check_versions().found)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert done.stdout.strip().endswith(f"{len(pins)} packages as pinned")


@pytest.fixture
def hub():
    """A hub on loopback: answers the status that its ``plan`` has, and keeps what it was asked."""

    class Hub(http.server.BaseHTTPRequestHandler):
        plan, asked = (200, {}), []

        def do_GET(self):
            Hub.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(Hub.plan[0])
            if Hub.plan[0] == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(json.dumps(Hub.plan[1]).encode())

        def log_message(self, *_):
            pass

    Hub.asked = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield Hub
    server.shutdown()
    server.server_close()


TOKEN = "hf_" + "a1B2" * 8
MODEL = "Salesforce/blip2-opt-2.7b"


@pytest.mark.slow
def test_the_hub_and_a_token_that_it_accepts(a_machine, hub):
    machine = a_machine(environment={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN})
    checks = check_hub(machine, needs("reduced_batch"))
    assert [(c.name, c.level) for c in checks] == [("weights", "amber"), ("hub", "green"), ("token", "green")]
    assert only(checks, "weights").fix == f"labkit fetch {MODEL}"
    assert hub.asked == [(f"/api/models/{MODEL}", f"Bearer {TOKEN}")]
    assert TOKEN not in str(checks)


@pytest.mark.slow
def test_weights_that_are_here(a_machine, hub, tmp_path):
    folder = tmp_path / "hf/hub" / f"models--{MODEL.replace('/', '--')}/snapshots/abc"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    here = {"HF_HOME": str(tmp_path / "hf")}
    checks = check_hub(a_machine(environment=here | {"HF_ENDPOINT": hub.endpoint}), needs("reduced_batch"))
    assert {c.level for c in checks} == {"green"}
    off = check_hub(a_machine(environment=here | {"HF_HUB_OFFLINE": "1"}), needs("reduced_batch"))
    assert {c.level for c in off} == {"green"}
    assert check_hub(a_machine(), needs("reduced_batch", profile="tiny"))[0].level == "green"


@pytest.mark.slow
def test_a_hub_that_is_switched_off_or_out_of_reach(a_machine, hub):
    off = check_hub(a_machine(environment={"HF_HUB_OFFLINE": "1"}), needs("reduced_batch"))
    assert (only(off, "hub").level, only(off, "hub").fix) == ("amber", f"HF_HUB_OFFLINE=0 labkit fetch {MODEL}")
    gone = a_machine(environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert only(check_hub(gone, needs("reduced_batch")), "hub").level == "red"
    assert only(check_hub(gone, needs()), "hub").level == "amber"
    assert only(check_hub(gone, needs(profile="tiny")), "hub").level == "green"
    wrong = a_machine(environment={"HF_ENDPOINT": "no address", "HF_TOKEN": TOKEN})
    checks = check_hub(wrong, needs("reduced_batch"))
    assert (only(checks, "hub").level, only(checks, "token").level) == ("red", "amber")


@pytest.mark.slow
def test_a_token_that_is_missing_or_not_accepted(a_machine, hub, tmp_path):
    environment = {"HF_ENDPOINT": hub.endpoint}
    hub.plan = (401, None)
    assert only(check_hub(a_machine(environment=environment), needs("reduced_batch")), "token").level == "red"
    hub.plan = (200, {"gated": "manual"})
    found = only(check_hub(a_machine(environment=environment), needs("reduced_batch")), "token")
    assert (found.level, found.fix) == ("red", "hf auth login")
    (tmp_path / "token").write_text(TOKEN)
    hub.plan = (401, None)
    checks = check_hub(a_machine(environment=environment | {"HF_HOME": str(tmp_path)}), needs())
    assert (only(checks, "token").level, TOKEN in str(checks)) == ("red", False)
    assert hub.asked[-1] == ("/api/whoami-v2", f"Bearer {TOKEN}")


@pytest.mark.slow
def test_a_token_is_not_carried_to_where_a_redirect_leads(a_machine, hub):
    hub.plan = (302, None)
    check_hub(a_machine(environment={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN}), needs())
    assert [path for path, _ in hub.asked] == ["/api/whoami-v2"]


# -- all of it


def test_all_checks_of_a_machine_have_a_level_and_the_bad_ones_a_command(a_machine, tmp_path):
    machine = a_machine(smi="gone", available_gib=1, environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    checks = examine(machine, needs("xxl_cpu_offload", host_bytes=GIB), tmp_path / "runs")
    assert worst(checks) == "red"
    assert all(check.fix for check in checks if check.level != "green")
    assert json.loads(json.dumps([check.to_dict() for check in checks]))[0]["name"] == "gpu"


def test_this_machine_is_ready_for_tiny(tmp_path):
    checks = examine(Machine(environment=os.environ | {"HF_HUB_OFFLINE": "1"}), needs(profile="tiny"), tmp_path)
    assert worst(checks) != "red", [check for check in checks if check.level == "red"]
