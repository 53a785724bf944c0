"""Checks of the GPU: is it there, is it the right one, can it do what the run needs, and who else uses it.

Checked are the devices that ``CUDA_VISIBLE_DEVICES`` shows to a run, in their order.
"""

import re

from labkit.config.kernels import BUILDS, has_code, without_code
from labkit.help.doctor.machine import Check, Machine, Needs
from labkit.memory.nvidia_smi import Device, list_devices, names_in, visible_devices
from labkit.memory.units import human_bytes

BF16_FROM = (8, 0)
"""Compute capability from which tensor cores have bf16."""

DRIVERS = {12: "570", 13: "580"}
"""Driver branches by the CUDA version they bring (NVIDIA's release notes of CUDA)."""

SHARE = 0.05
"""Share of a GPU's memory within which no prediction is relied on; so much may be missing or held by others."""


def check_gpu(machine: Machine, needs: Needs) -> list[Check]:
    """All checks of the GPU; of one that the run does not need only whether torch could use it."""
    listed, why_not = list_devices(lambda *arguments: machine.output("nvidia-smi", *arguments))
    seen = visible_devices(listed, machine.environment.get("CUDA_VISIBLE_DEVICES"))
    if needs.simulated:
        unneeded = Check(name="gpu", level="green", found=f"{needs.profile} has a simulated GPU; no real one is needed")
        return [unneeded, *(_torch(machine, needs) if seen else [])]
    if not seen:
        return [_hidden(machine, listed) if listed else _missing(machine, why_not)]
    return [
        _there(machine, listed, seen, needs),
        *_torch(machine, needs),
        *_kernels(machine, seen),
        _bf16(seen, needs),
        check_driver(machine, seen[0].driver),
        *_others(machine, seen[0]),
    ]


def _hidden(machine: Machine, listed: list[Device]) -> Check:
    """GPUs that nvidia-smi lists and CUDA does not show."""
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES")
    there = ", ".join(f"{device.index} {device.name}" for device in listed)
    if any(device.mig for device in listed) and not any(device.parts for device in listed):
        found = f"{there}: in MIG mode without a part, which CUDA does not show"
        fix = f"sudo nvidia-smi -i {listed[0].index} -mig 0  # the whole GPU; or 'sudo nvidia-smi mig -lgip' for parts"
    elif names_in(visible or ""):
        found = f"CUDA_VISIBLE_DEVICES={visible!r} names none that is here ({there})"
        fix = f"export CUDA_VISIBLE_DEVICES={listed[0].index}  # 'nvidia-smi -L' lists them, with the parts of MIG"
    else:
        found = f"CUDA_VISIBLE_DEVICES={visible!r} hides {there}"
        fix = "unset CUDA_VISIBLE_DEVICES  # under Slurm a job that asked for no GPU has it so: '#SBATCH --gres=gpu:1'"
    return Check(name="gpu", level="red", found=found, fix=fix)


_WHEN_TORCH_CANNOT = (
    ("too old", "sudo apt install nvidia-driver-{branch}-server && sudo reboot"),
    ("Error 802", "sudo systemctl start nvidia-fabricmanager  # 'status' says why it does not run"),
    ("Error 803", "sudo reboot  # the driver was updated, and the old module is still loaded"),
    ("Error 804", "unset LD_LIBRARY_PATH  # a 'compat' libcuda comes before the driver's own"),
    ("no NVIDIA driver", "ldconfig -p | grep libcuda  # the driver's library is not found; docker run --gpus all -e "
                         "NVIDIA_DRIVER_CAPABILITIES=compute,utility ..."),
    ("unknown error", "sudo nvidia-modprobe -u -c=0  # makes /dev/nvidia-uvm; if it stays so, sudo reboot"),
    ("busy or unavailable", "nvidia-smi  # who holds it; 'sudo nvidia-smi -c 0' ends exclusive mode"),
    ("out of memory", "nvidia-smi  # who holds it"),
)  # fmt: skip
"""What to do by torch's own words (torch 2.13, c10/cuda and torch/cuda)."""


def _torch(machine: Machine, needs: Needs) -> list[Check]:
    """What CUDA says to torch itself: NVML, and so nvidia-smi, answers for drivers that torch cannot use.

    Nothing for a torch that is not for CUDA, which the driver's check says where one is needed.
    """
    torch = machine.torch_version
    if torch is None or torch[1] is None:
        return []
    reason = machine.torch_says.get("reason")
    if reason is None:
        return [Check(name="torch on the GPU", level="green", found=f"torch {torch[0]} can use it")]
    level = "amber" if needs.simulated else "red"
    fix = next((fix for words, fix in _WHEN_TORCH_CANNOT if words in reason), "sudo dmesg | grep -i nvrm | tail")
    return [Check(name="torch on the GPU", level=level, found=reason, fix=fix.format(branch=_branch(machine)))]


def _missing(machine: Machine, why_not: str) -> Check:
    lines = why_not.strip().splitlines() or ["nvidia-smi says nothing"]
    if machine.in_container:
        fix = "docker run --gpus all ...  # or 'apptainer exec --nv ...': a container sees no GPU by itself"
    elif machine.find("nvidia-smi") is None:
        fix = f"sudo apt install nvidia-driver-{_branch(machine)}-server && sudo reboot"
    else:
        fix = "sudo dmesg | grep -i nvrm | tail  # what the driver says; 'sudo reboot' after an update of it"
    return Check(name="gpu", level="red", found=f"no GPU can be seen: {lines[0]}", fix=fix)


def _there(machine: Machine, listed: list[Device], seen: list[Device], needs: Needs) -> Check:
    first, wanted = seen[0], needs.gpu
    found = f"{len(seen)} x {first.name}, {human_bytes(first.total_bytes)}"
    parts = [part for device in listed for part in device.parts]
    chosen = machine.environment.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-")
    if parts[1:] and not chosen:
        found += f" (no part is chosen of the {len(parts)} that there are, and CUDA takes the first)"
    devices = needs.config.devices if needs.config else 1
    if devices > len(seen):
        found += f"; the run has devices={devices}"
        return Check(name="gpu", level="red", found=found, fix=needs.run(f"devices={len(seen)}"))
    whole = None if wanted is None else wanted.usable_bytes + wanted.room_bytes
    if whole is not None and first.total_bytes < (1 - SHARE) * whole:
        found += f"; {needs.profile} is about {human_bytes(whole)}, so what fits there can run out of memory here"
        fix = f"labkit profiles make --gpu {first.total_bytes // 2**30}GiB  # a course for this GPU"
        return Check(name="gpu", level="red", found=found, fix=fix)
    if whole is not None and first.total_bytes > (1 + SHARE) * whole:
        found += f"; {needs.profile} is about {human_bytes(whole)}: runs that die there may fit here"
        return Check(name="gpu", level="amber", found=found,
                     fix=f"labkit profiles make --gpu {first.total_bytes // 2**30}GiB")  # fmt: skip
    if parts[1:] and not chosen:
        fix = f"export CUDA_VISIBLE_DEVICES={first.uuid}  # or another one's UUID, as 'nvidia-smi -L' lists them"
        return Check(name="gpu", level="amber", found=found, fix=fix)
    return Check(name="gpu", level="green", found=found)


def _bf16(seen: list[Device], needs: Needs) -> Check:
    capability = seen[0].capability
    if capability is None:
        return Check(name="bf16", level="amber", found="nvidia-smi is too old to tell the compute capability",
                     fix="python -c 'import torch; print(torch.cuda.get_device_capability())'")  # fmt: skip
    found = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= BF16_FROM:
        return Check(name="bf16", level="green", found=f"{found} has bf16")
    found += f" has no bf16 ({BF16_FROM[0]}.{BF16_FROM[1]} is needed)"
    if needs.config is None:
        return Check(name="bf16", level="amber", found=found, fix=needs.run("precision=16-mixed"))
    if needs.config.use_qlora:
        return Check(name="bf16", level="red", found=f"{found}, and QLoRA multiplies in bf16",
                     fix=needs.run("use_qlora=false", "use_lora=true", "precision=16-mixed"))  # fmt: skip
    if needs.config.dtypes.bf16:
        return Check(name="bf16", level="red", found=f"{found}, and the run has precision={needs.config.precision}",
                     fix=needs.run("precision=16-mixed"))  # fmt: skip
    return Check(name="bf16", level="green", found=f"{found}, and the run needs none")


def _kernels(machine: Machine, seen: list[Device]) -> list[Check]:
    """Whether the installed torch has code for each of the GPUs, whatever the precision; nothing where that is not
    known."""
    architectures, torch = machine.architectures, machine.torch_version
    if not architectures or torch is None:
        return []
    for gpu in seen:
        build = f"torch {torch[0]} for CUDA {torch[1]}"
        if gpu.capability is None:
            continue
        reason = without_code(architectures, gpu.capability, build)
        if reason is not None:
            older = gpu.capability < (7, 5) and has_code(BUILDS["12.6"], gpu.capability)
            version = torch[0].partition("+")[0]
            fix = f"pip install torch=={version} --index-url ...  # PyTorch's own index of CUDA 12.6 builds (cu126)"
            return [
                Check(
                    name="kernels",
                    level="red",
                    found=f"{gpu.name} has {reason}",
                    fix=fix if older else "use a GPU that is in this list, or a torch that is built for this one",
                )
            ]
    return [Check(name="kernels", level="green", found=f"torch {torch[0]} has code for {seen[0].name}")]


def check_driver(machine: Machine, driver: str) -> Check:
    """The driver against the CUDA that torch was built for."""
    torch = machine.torch_version
    if torch is None or torch[1] is None:
        found = "torch is not installed" if torch is None else f"torch {torch[0]} was built without CUDA"
        fix = "pip install --force-reinstall torch==2.13.0  # without an index for CPU builds in pip's settings"
        return Check(name="driver", level="red", found=f"{found}; driver {driver}", fix=fix)
    worked, text = machine.output("nvidia-smi")
    match = re.search(r"CUDA (?:\w+ )?Version:\s*(\d+)\.(\d+)", text) if worked else None
    if match is None:
        found = f"driver {driver}; it does not say which CUDA it can do (torch {torch[0]} has {torch[1]})"
        return Check(name="driver", level="amber", found=found,
                     fix="python -c 'import torch; torch.zeros(1, device=\"cuda\")'")  # fmt: skip
    can = f"{match.group(1)}.{match.group(2)}"
    found = f"driver {driver} for CUDA up to {can}, torch {torch[0]} for CUDA {torch[1]}"
    if int(match.group(1)) >= int(torch[1].partition(".")[0]):  # within a major version older drivers do
        return Check(name="driver", level="green", found=found)
    fix = f"sudo apt install nvidia-driver-{_branch(machine)}-server && sudo reboot"
    return Check(name="driver", level="red", found=f"{found}: the driver is too old", fix=fix)


def _others(machine: Machine, gpu: Device) -> list[Check]:
    """Who else holds the first GPU; nothing for a part of one, of which nvidia-smi does not tell."""
    if gpu.is_part:
        return []
    name, used, total = "others on the GPU", gpu.used_bytes or 0, gpu.total_bytes
    worked, text = machine.output(
        "nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"
    )
    listed = [[part.strip() for part in line.split(",")] for line in text.splitlines() if worked]
    rows = [row for row in listed if len(row) >= 4 and row[0] == gpu.uuid]
    said = [f"process {row[1]} ({row[2]}) {row[-1]} MiB" for row in rows]
    if not rows and used <= SHARE * total:
        return [Check(name=name, level="green", found=f"no other process; {human_bytes(used)} in use")]
    found = f"{human_bytes(used)} in use, by {', '.join(said) or 'processes that nvidia-smi does not list here'}"
    fix = f"ps -o pid,user,etime,cmd -p {','.join(row[1] for row in rows)}  # then 'kill PID' what is yours"
    if not rows:
        fix = "nvidia-smi  # outside of this container, where all processes are listed"
    return [Check(name=name, level="red" if used > SHARE * total else "amber", found=found, fix=fix)]


def _branch(machine: Machine) -> str:
    torch = machine.torch_version
    major = int(torch[1].partition(".")[0]) if torch and torch[1] else max(DRIVERS)
    return DRIVERS.get(major, DRIVERS[max(DRIVERS)])
