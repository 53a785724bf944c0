"""Checks of the GPU: is it there, is it the one, can it do what the run needs, and who else holds it."""

import re
from dataclasses import dataclass

from labkit.config.gpus import CONTEXT_BYTES
from labkit.config.kernels import BUILDS, has_code, without_code
from labkit.memory.units import human_bytes
from labkit.runs.doctor.machine import Check, Machine, Needs

BF16_FROM = (8, 0)
"""Compute capability from which tensor cores have bf16."""

DRIVERS = {12: "570", 13: "580"}
"""Driver branches by the CUDA version they bring (NVIDIA's release notes of CUDA)."""

SHARE = 0.05
"""Share of a GPU's memory within which no prediction is relied on; so much may be missing or held by others."""

_FIELDS = "name,memory.total,memory.used,driver_version,compute_cap"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One GPU as nvidia-smi tells of it."""

    name: str
    total_bytes: int
    used_bytes: int
    driver: str
    capability: tuple[int, int] | None


def check_gpu(machine: Machine, needs: Needs) -> list[Check]:
    """All checks of the GPU; one that says so where none is needed."""
    if needs.device == "virtual":
        return [Check(name="gpu", level="green", found=f"{needs.profile} has a virtual GPU; no real one is needed")]
    seen, why_not = _read(machine)
    if not seen:
        return [_missing(machine, why_not)]
    return [
        _there(seen, needs),
        *_kernels(machine, seen),
        _bf16(seen, needs),
        check_driver(machine, seen[0].driver),
        _others(machine, seen, needs),
    ]


def _read(machine: Machine) -> tuple[list[_Seen], str]:
    worked, text = machine.output("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
    if not worked:
        return [], text
    seen = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == len(_FIELDS.split(",")) and parts[1].isdigit():
            capability = tuple(map(int, parts[4].split("."))) if re.fullmatch(r"\d+\.\d+", parts[4]) else None
            used = int(parts[2]) * 2**20 if parts[2].isdigit() else 0
            seen.append(_Seen(name=parts[0], total_bytes=int(parts[1]) * 2**20, used_bytes=used, driver=parts[3],
                              capability=capability))  # fmt: skip
    return seen, "nvidia-smi lists no GPU"


def _missing(machine: Machine, why_not: str) -> Check:
    lines = why_not.strip().splitlines() or ["nvidia-smi says nothing"]
    if machine.in_container:
        mend = "docker run --gpus all ...  # or 'apptainer exec --nv ...': a container sees no GPU by itself"
    elif machine.find("nvidia-smi") is None:
        mend = f"sudo apt install nvidia-driver-{_branch(machine)}-server && sudo reboot"
    else:
        mend = "sudo dmesg | grep -i nvrm | tail  # what the driver says; 'sudo reboot' after an update of it"
    return Check(name="gpu", level="red", found=f"no GPU can be seen: {lines[0]}", mend=mend)


def _there(seen: list[_Seen], needs: Needs) -> Check:
    first, wanted = seen[0], needs.gpu
    found = f"{len(seen)} x {first.name}, {human_bytes(first.total_bytes)}"
    devices = needs.config.devices if needs.config else 1
    if devices > len(seen):
        found += f"; the run has devices={devices}"
        return Check(name="gpu", level="red", found=found, mend=needs.run(f"devices={len(seen)}"))
    whole = None if wanted is None else wanted.usable_bytes + CONTEXT_BYTES
    if whole is not None and first.total_bytes < (1 - SHARE) * whole:
        found += f"; {needs.profile} is about {human_bytes(whole)}, so what fits there can run out of memory here"
        mend = f"labkit profiles make --gpu {first.total_bytes // 2**30}GiB  # a course for this GPU"
        return Check(name="gpu", level="red", found=found, mend=mend)
    if whole is not None and first.total_bytes > (1 + SHARE) * whole:
        found += f"; {needs.profile} is about {human_bytes(whole)}: runs that die there may fit here"
        return Check(name="gpu", level="amber", found=found,
                     mend=f"labkit profiles make --gpu {first.total_bytes // 2**30}GiB")  # fmt: skip
    return Check(name="gpu", level="green", found=found)


def _bf16(seen: list[_Seen], needs: Needs) -> Check:
    capability = seen[0].capability
    if capability is None:
        return Check(name="bf16", level="amber", found="nvidia-smi is too old to tell the compute capability",
                     mend="python -c 'import torch; print(torch.cuda.get_device_capability())'")  # fmt: skip
    found = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= BF16_FROM:
        return Check(name="bf16", level="green", found=f"{found} has bf16")
    found += f" has no bf16 ({BF16_FROM[0]}.{BF16_FROM[1]} is needed)"
    if needs.config is None:
        return Check(name="bf16", level="amber", found=found, mend=needs.run("precision=16-mixed"))
    if needs.config.use_qlora:
        return Check(name="bf16", level="red", found=f"{found}, and QLoRA multiplies in bf16",
                     mend=needs.run("use_qlora=false", "use_lora=true", "precision=16-mixed"))  # fmt: skip
    if needs.config.precision.startswith("bf16"):
        return Check(name="bf16", level="red", found=f"{found}, and the run has precision={needs.config.precision}",
                     mend=needs.run("precision=16-mixed"))  # fmt: skip
    return Check(name="bf16", level="green", found=f"{found}, and the run needs none")


def _kernels(machine: Machine, seen: list[_Seen]) -> list[Check]:
    """Whether the installed torch has code for each of the GPUs, whatever the precision; nothing where nobody knows."""
    architectures, torch = machine.architectures, machine.torch_version
    if not architectures or torch is None:
        return []
    for gpu in seen:
        build = f"torch {torch[0]} for CUDA {torch[1]}"
        reason = None if gpu.capability is None else without_code(architectures, gpu.capability, build)
        if reason is not None:
            older = gpu.capability < (7, 5) and has_code(BUILDS["12.6"], gpu.capability)
            version = torch[0].partition("+")[0]
            mend = f"pip install torch=={version} --index-url ...  # PyTorch's own index of CUDA 12.6 builds (cu126)"
            return [
                Check(
                    name="kernels",
                    level="red",
                    found=f"{gpu.name} has {reason}",
                    mend=mend if older else "use a GPU that is in this list, or a torch that is built for this one",
                )
            ]
    return [Check(name="kernels", level="green", found=f"torch {torch[0]} has code for {seen[0].name}")]


def check_driver(machine: Machine, driver: str) -> Check:
    """The driver against the CUDA that torch was built for."""
    torch = machine.torch_version
    if torch is None or torch[1] is None:
        found = "torch is not installed" if torch is None else f"torch {torch[0]} was built without CUDA"
        mend = "pip install --force-reinstall torch==2.13.0  # without an index for CPU builds in pip's settings"
        return Check(name="driver", level="red", found=f"{found}; driver {driver}", mend=mend)
    worked, text = machine.output("nvidia-smi")
    match = re.search(r"CUDA (?:\w+ )?Version:\s*(\d+)\.(\d+)", text) if worked else None
    if match is None:
        found = f"driver {driver}; it does not say which CUDA it can do (torch {torch[0]} has {torch[1]})"
        return Check(name="driver", level="amber", found=found,
                     mend="python -c 'import torch; torch.zeros(1, device=\"cuda\")'")  # fmt: skip
    can = f"{match.group(1)}.{match.group(2)}"
    found = f"driver {driver} for CUDA up to {can}, torch {torch[0]} for CUDA {torch[1]}"
    if int(match.group(1)) >= int(torch[1].partition(".")[0]):  # within a major version older drivers do
        return Check(name="driver", level="green", found=found)
    mend = f"sudo apt install nvidia-driver-{_branch(machine)}-server && sudo reboot"
    return Check(name="driver", level="red", found=f"{found}: the driver is too old", mend=mend)


def _others(machine: Machine, seen: list[_Seen], needs: Needs) -> Check:
    worked, text = machine.output(
        "nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"
    )
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if worked and line.count(",") >= 2]
    said = [f"process {row[0]} ({row[1]}) {row[-1]} MiB" for row in rows]
    used, total = seen[0].used_bytes, seen[0].total_bytes
    if not rows and used <= SHARE * total:
        return Check(name="others on the GPU", level="green", found=f"nobody; {human_bytes(used)} in use")
    found = f"{human_bytes(used)} in use, by {', '.join(said) or 'processes that nvidia-smi does not list here'}"
    mend = f"ps -o pid,user,etime,cmd -p {','.join(row[0] for row in rows)}  # then 'kill PID' what is yours"
    if not rows:
        mend = "nvidia-smi  # outside of this container, where all processes are listed"
    return Check(name="others on the GPU", level="red" if used > SHARE * total else "amber", found=found, mend=mend)


def _branch(machine: Machine) -> str:
    torch = machine.torch_version
    major = int(torch[1].partition(".")[0]) if torch and torch[1] else max(DRIVERS)
    return DRIVERS.get(major, DRIVERS[max(DRIVERS)])
