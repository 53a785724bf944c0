"""Checks of the host: memory and swap, shared memory, disk, caches on file systems with a quota, the compiler."""

import math
import os
import re
import shutil
from pathlib import Path

from labkit.config.workspace import Workspace
from labkit.help.doctor.machine import Check, Machine, Needs
from labkit.memory.host import HostMemory
from labkit.memory.units import human_bytes

GIB = 2**30

PROCESS_BYTES, CUDA_PROCESS_BYTES = 1 * GIB, 4 * GIB
"""Host memory of a training process before it does anything. On a CPU its imports take 0.43 GiB (torch 2.13, measured);
what the CUDA context and its libraries take is assumed."""

WORKER_BYTES = GIB // 4
"""Host memory of one loader worker; assumed. It is a fork that shares most of what it sees."""

BATCHES_A_WORKER = 3
"""Batches of one worker in shared memory: two fetched ahead, one in use."""

SPARE_BYTES = 2 * GIB
"""What should stay free on a disk."""

NETWORK = re.compile(r"nfs\d?|lustre|gpfs|beegfs|ceph|cifs|smb\w*|panfs|afs|9p|pvfs2|orangefs|glusterfs|fuse\..+")
"""File systems of networks, which most often have quotas and are slow with many small files."""

CACHES = {
    "HF_HOME": ".cache/huggingface", "HF_DATASETS_CACHE": ".cache/huggingface/datasets", "TORCH_HOME": ".cache/torch",
    "TRITON_CACHE_DIR": ".triton/cache", "XDG_CACHE_HOME": ".cache", "TMPDIR": "/tmp",
}  # fmt: skip
"""Variables that say where libraries keep files, and where these lie without."""


def check_memory(machine: Machine, needs: Needs) -> Check:
    """Host RAM and swap against what the run will take there."""
    host = HostMemory.read(machine.root)
    if host.available_bytes is None or host.total_bytes is None:
        return Check(name="host memory", level="amber", found="/proc/meminfo cannot be read", fix="free -g")
    free, total, swap, limited = host.available_bytes, host.total_bytes, host.swap_free_bytes or 0, False
    if host.limit_bytes is not None and host.limit_free_bytes is not None and host.limit_free_bytes < free:
        free, total, swap, limited = host.limit_free_bytes, host.limit_bytes, 0, True
    need, parts = _host_need(needs)
    found = f"{human_bytes(free)} free of {human_bytes(total)}"
    found += ", which is this control group's limit" if limited else f", swap {human_bytes(swap)} free"
    found += f"; needed about {human_bytes(need)} ({parts})"
    if need <= free:
        return Check(name="host memory", level="green", found=found)
    missing = math.ceil(1.1 * (need - free - swap) / GIB)
    if limited:
        size = math.ceil(1.1 * need / GIB)
        return Check(name="host memory", level="red", found=found,
                     fix=f"docker run --memory={size}g ...  # under Slurm: #SBATCH --mem={size}G")  # fmt: skip
    if need <= free + swap:
        fix = needs.run("num_workers=0") if needs.config and needs.config.num_workers else _largest()
        return Check(name="host memory", level="amber", found=f"{found}: it will swap, which is slow", fix=fix)
    if shutil.disk_usage(machine.root).free < (missing + 1) * GIB:
        found += f"; the disk has no room for {missing} GiB of swap"
        fix = f"labkit advise {needs.experiment or 'EXPERIMENT'} --gpu {needs.profile}  # or a machine with more memory"
        return Check(name="host memory", level="red", found=found, fix=fix)
    return Check(name="host memory", level="red", found=found, fix=swap_commands(machine, missing))


def _host_need(needs: Needs) -> tuple[int, str]:
    config = needs.config
    workers, on_gpu = config.num_workers if config else 0, not needs.simulated
    rows = {
        "process, assumed": CUDA_PROCESS_BYTES if on_gpu else PROCESS_BYTES,
        "offload, predicted": needs.host_bytes if on_gpu else 0,
        "the simulated GPU": (config.capacity_bytes or 0) + needs.host_bytes if config and not on_gpu else 0,
        f"loader workers ({workers}), assumed": workers * WORKER_BYTES,
    }
    return sum(rows.values()), ", ".join(f"{name} {human_bytes(n)}" for name, n in rows.items() if n >= 2**20)


def swap_commands(machine: Machine, size_gib: int) -> str:
    """The commands that add swap of a size, as one line to type."""
    taken = machine.text("proc/swaps")
    name = next(name for name in ("/swapfile", *(f"/swapfile{i}" for i in range(2, 100))) if f"{name} " not in taken)
    return (
        f"sudo fallocate -l {size_gib}G {name} && sudo chmod 600 {name} && sudo mkswap {name} && sudo swapon {name}"
        f"  # {size_gib} GiB of disk; needs a machine of your own"
    )


def _largest() -> str:
    return "ps -eo pid,user,rss,cmd --sort=-rss | head  # what holds the memory"


def check_shared_memory(machine: Machine, needs: Needs) -> Check:
    """/dev/shm against the batches that loader workers keep there."""
    config = needs.config
    place = machine.root / "dev/shm"
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return Check(name="shared memory", level="amber", found=f"there is no {place}", fix=needs.run("num_workers=0"))
    found = f"{human_bytes(free)} free"
    if config is None or config.num_workers == 0:
        level = "green" if free >= GIB or config is not None else "amber"
        found += "; not needed without loader workers" if config else ""
        return Check(name="shared memory", level=level, found=found, fix="" if level == "green" else _more(machine))
    px = config.architecture.image_px
    batch_bytes = config.batch_size * (3 * px * px * 4 + 3 * config.max_length * 8)
    need = config.num_workers * BATCHES_A_WORKER * batch_bytes * (2 if config.val_fraction else 1)
    found += f"; needed for batches {human_bytes(need)} (computed, num_workers={config.num_workers})"
    if need > free:
        return Check(name="shared memory", level="red", found=found, fix=_more(machine, need))
    if need > free / 2:
        return Check(name="shared memory", level="amber", found=found, fix=_more(machine, need))
    return Check(name="shared memory", level="green", found=found)


def _more(machine: Machine, need: int = 0) -> str:
    size = max(8, math.ceil(2 * need / GIB))
    if machine.in_container:
        return f"docker run --shm-size={size}g ...  # it is set when a container starts"
    return f"sudo mount -o remount,size={size}G /dev/shm"


def check_disk(machine: Machine, needs: Needs, runs: Path) -> Check:
    """Room where runs and checkpoints are written."""
    place = _existing(runs)
    free = shutil.disk_usage(place).free
    found = f"{human_bytes(free)} free in {place}"
    found += f"; needed about {human_bytes(needs.saved_bytes)} (predicted)" if needs.saved_bytes else ""
    fix = f"df -h {place} && du -sh {runs}/*/*/* | sort -h | tail  # or LABKIT_RUNS=/another/disk/runs"
    if not os.access(place, os.W_OK):
        return Check(name="disk", level="red", found=f"{place} cannot be written", fix="export LABKIT_RUNS=$HOME/runs")
    if free < needs.saved_bytes + SPARE_BYTES // 4:
        return Check(name="disk", level="red", found=found, fix=fix)
    if free < needs.saved_bytes + SPARE_BYTES:
        return Check(name="disk", level="amber", found=found, fix=fix)
    return Check(name="disk", level="green", found=found)


def check_caches(machine: Machine) -> Check:
    """Caches of libraries on network file systems or under a quota."""
    home = Path(machine.environment.get("HOME") or "/")
    bad = {}
    for variable, default in CACHES.items():
        path = Path(machine.environment.get(variable) or home / default)
        kind, options, mount = _file_system(machine, path)
        if NETWORK.fullmatch(kind) or re.search(r"\b(usr|grp|prj|user|group|project)?quota\b|usrjquota", options):
            bad[variable] = f"{path} ({kind} on {mount})"
    if over := _over_quota(machine):
        found = f"your quota on {over} is nearly used up"
        fix = _elsewhere(bad or CACHES)
        return Check(name="caches", level="red", found=found, fix=fix)
    if bad:
        said = ", ".join(f"{variable} is {place}" for variable, place in bad.items())
        return Check(name="caches", level="amber", found=f"on a network disk or under a quota: {said}",
                     fix=_elsewhere(bad))  # fmt: skip
    return Check(name="caches", level="green", found="none on a network disk or under a quota")


def _elsewhere(variables: dict[str, str]) -> str:
    pairs = " ".join(f"{variable}=FOLDER/{variable.lower()}" for variable in variables)
    return f"export {pairs}  # a FOLDER of your project, on a disk without a small quota"


def _file_system(machine: Machine, path: Path) -> tuple[str, str, str]:
    """Kind, options and place of the file system that a path lies on."""
    real = str(_existing(path).resolve())
    best = ("", "", "")
    for line in machine.text("proc/mounts").splitlines():
        parts = line.split()
        if len(parts) >= 4:
            mount = re.sub(r"\\(\d{3})", lambda m: chr(int(m.group(1), 8)), parts[1])
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best[2]):
                best = (parts[2], parts[3], mount)
    return best


def _over_quota(machine: Machine) -> str | None:
    """The file system of which more than nine tenths of a quota are used, as ``quota`` tells."""
    worked, text = machine.output("quota", "-w", "-p")
    worked = worked or ":" in text  # its exit code is 1 where a limit is passed
    for line in text.splitlines() if worked else []:
        parts = line.split()
        if len(parts) >= 4 and re.fullmatch(r"\d+\*?", parts[1]) and parts[2].isdigit() and parts[3].isdigit():
            limit = int(parts[3]) or int(parts[2])
            if limit and int(parts[1].rstrip("*")) > 0.9 * limit:
                return parts[0]
    return None


def check_compiler(machine: Machine, needs: Needs) -> Check:
    """The C++ compiler, which DeepSpeed's CPU optimizer is built with at its first use."""
    compiler = machine.environment.get("CXX", "c++")
    path = machine.find(compiler)
    wanted = needs.config is not None and needs.config.optim == "deepspeed_cpu"
    if path is not None:
        return Check(name="compiler", level="green", found=path)
    found = f"no C++ compiler ({compiler}); " + (
        "optim=deepspeed_cpu needs one" if wanted else "only optim=deepspeed_cpu needs one"
    )
    fix = "sudo apt install g++ python3-dev"
    asked = needs.config is not None and not wanted
    return Check(name="compiler", level="red" if wanted else "green" if asked else "amber", found=found, fix=fix)


def runs_folder() -> Path:
    """Where runs are written."""
    return Workspace.find().runs


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
