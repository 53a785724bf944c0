"""nvidia-smi: the GPUs it lists, the parts that MIG cuts them into, and those that CUDA shows to a process."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

QUERY_TIMEOUT_S = 10.0

FIELDS = "index,uuid,name,memory.total,memory.used,driver_version,compute_cap,mig.mode.current"
"""What is asked of each GPU, in this order."""

Ask = Callable[..., tuple[bool, str]]
"""Calls nvidia-smi with arguments: whether it worked, and what it printed or why it did not."""

_GPU = re.compile(r"GPU (\d+):")
_PART = re.compile(r"\s+MIG (?P<profile>\S*?(?P<gib>\d+)gb\S*)\s+Device\s+\d+: \(UUID: (?P<uuid>[^)\s]+)\)")
_NUMBER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or a part of one. ``used_bytes`` is None where nvidia-smi does not tell, as of a part.

    ``index`` is nvidia-smi's, in PCI order. ``parts`` are those of a GPU in MIG mode (``mig``), empty where it has
    none. A part's ``total_bytes`` is what its name says, ``3g.20gb`` for 20 GiB; CUDA shows a little less.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    used_bytes: int | None
    driver: str
    capability: tuple[int, int] | None
    mig: bool = False
    parts: tuple["Device", ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a GPU."""
        return self.uuid.startswith("MIG-")


def ask_nvidia_smi(*arguments: str) -> tuple[bool, str]:
    """Call ``nvidia-smi``; False with the reason where there is none, or it does not answer in ten seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False, "there is no nvidia-smi"
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=QUERY_TIMEOUT_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"nvidia-smi did not answer within {QUERY_TIMEOUT_S:g} s"
    except OSError as error:
        return False, f"nvidia-smi cannot be started: {error.strerror}"
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def list_devices(ask: Ask = ask_nvidia_smi) -> tuple[list[Device], str]:
    """Every GPU of this machine with its parts, in PCI order, and why there is none where the list is empty."""
    worked, text = ask(f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")
    if not worked:
        return [], text
    devices = sorted((d for line in text.splitlines() if (d := _device(line))), key=lambda device: device.index)
    if any(device.mig for device in devices):
        parts = _parts(ask, devices)
        devices = [replace(device, parts=tuple(parts.get(device.index, ()))) for device in devices]
    return devices, "nvidia-smi lists no GPU"


def visible_devices(devices: list[Device], visible: str | None) -> list[Device]:
    """Those of ``devices`` that CUDA shows, in its order, under ``CUDA_VISIBLE_DEVICES=visible`` and PCI order.

    As the CUDA C++ Programming Guide has it: numbers or UUIDs, which may be cut where they stay unique; what is no
    device ends the list, and one that is named twice empties it. With MIG it is one part alone: that which is named,
    else the first of those GPUs that have parts (NVIDIA's MIG User Guide, "CUDA device enumeration").
    """
    if visible is not None and visible.startswith("MIG-"):
        name = visible.partition(",")[0].strip()
        return [part for device in devices for part in device.parts if part.uuid == name]
    shown = devices if visible is None else []
    for name in names_in(visible or ""):
        found = [device for device in devices if _is_named(device, name)]
        if len(found) != 1:
            break
        if found[0] in shown:
            return []
        shown = [*shown, found[0]]
    parts = [part for device in shown for part in device.parts]
    return parts[:1] or [device for device in shown if not device.mig]  # in MIG mode a GPU without parts is none


def names_in(visible: str) -> list[str]:
    """The devices that a value of ``CUDA_VISIBLE_DEVICES`` names, up to the first word that can be none.

    Nothing for a value that hides all, such as ``""``, ``-1``, and Slurm's ``NoDevFiles``.
    """
    kind = next((prefix for prefix in ("GPU-", "MIG-") if visible.startswith(prefix)), None)
    names = []
    for word in (word.strip() for word in visible.split(",")):
        number = _NUMBER.match(word)  # "1gpu" is 1
        name = word if kind and word.startswith(kind) else str(int(number[0])) if number and not kind else None
        if name is None or name.startswith("-"):
            break
        names.append(name)
    return names


def _is_named(device: Device, name: str) -> bool:
    return device.uuid.startswith(name) if name.startswith("GPU-") else str(device.index) == name


def _device(line: str) -> Device | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(FIELDS.split(",")) or not (parts[0].isdigit() and parts[3].isdigit()):
        return None
    index, uuid, name, total, used, driver, capability, mig = parts
    version = re.fullmatch(r"(\d+)\.(\d+)", capability)
    return Device(
        index=int(index), uuid=uuid, name=name, total_bytes=int(total) * 2**20,
        used_bytes=int(used) * 2**20 if used.isdigit() else None, driver=driver,
        capability=(int(version[1]), int(version[2])) if version else None,
        mig=mig == "Enabled",
    )  # fmt: skip


def _parts(ask: Ask, devices: list[Device]) -> dict[int, list[Device]]:
    """The parts by the index of their GPU, as ``nvidia-smi -L`` lists them."""
    gpus = {device.index: device for device in devices}
    found: dict[int, list[Device]] = {}
    gpu = None
    for line in ask("-L")[1].splitlines():
        if match := _GPU.match(line):
            gpu = gpus.get(int(match[1]))
        elif gpu and (match := _PART.match(line)):
            part = replace(
                gpu, uuid=match["uuid"], name=f"{match['profile']} of {gpu.name}", used_bytes=None, mig=False,
                total_bytes=int(match["gib"]) * 2**30,
            )  # fmt: skip
            found.setdefault(gpu.index, []).append(part)
    return found
