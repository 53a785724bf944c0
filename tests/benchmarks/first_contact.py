"""Ten ordered minutes on a machine with a CUDA GPU on which labkit has never run.

    PYTHONPATH=. python tests/benchmarks/first_contact.py                                in a checkout
    python /opt/labkit/source/tests/benchmarks/first_contact.py                          in the image, on a node

Ends with ``first_contact.json`` and a page for instructors, ``first_contact.md``, in the workspace's folder
``results``; both are written after each check. The checks go from the driver up to whole runs, each in a process of its
own with a time limit: one that fails, hangs, crashes or runs out of memory does not keep the next from running. Only a
driver with which torch cannot compute does: without it nothing else says anything. What the budget has no time for is
named. The last check, which sees whether anything is left on the GPU, has its time kept for it.

It works with the versions that it finds, needs no network, and skips by name what a missing library keeps from
running. ``--dry`` does all of it without a GPU: tensors on the CPU, runs on the simulated GPU, and for what only CUDA
has a stand-in, marked "dry: simulated".

Exit code: 0 when at least one check is ok and none has failed or was stopped at its limit; 1 otherwise.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import gpu_check

from labkit.config.catalogue.architecture import Architecture
from labkit.config.catalogue.models import architecture
from labkit.config.errors import ConfigError
from labkit.config.gpus import find_gpu
from labkit.config.kernels import without_code
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile, profile_names
from labkit.config.schema import RunConfig
from labkit.config.secrets import redact
from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.ledger.parts import Predicted
from labkit.ledger.records import Record
from labkit.ledger.shape import plain
from labkit.ledger.whole_file import write_whole
from labkit.memory.units import human_bytes
from labkit.runs.processes import processes_of
from labkit.runs.runner import run

MIB, GIB = 2**20, 2**30
BUDGET_S = 600.0
RESERVED_S = 30.0
"""Kept for the last check."""
LEAST_S = 10.0
"""With less left no check is started: it would end in its imports."""
GRACE_S = 5.0
"""Time that what a check has started gets to end after it, and that a killed process gets to be gone."""
POLL_S = 0.1
LINE_LETTERS = 80
"""Of a command line that is told."""
FOUND_LETTERS = 400
"""Of one message that is told."""
NAMES = 3
"""Probes that are named for one reason; of more the number is told."""
LOG_LINES = 30
MARK = "LABKIT_FIRST_CONTACT"
"""Variable in the environment of every process of a call: by it they are found when they should be gone."""
SIMULATED = "dry: simulated"
OK, FAILED, SKIPPED, TIMEOUT, NOT_REACHED, RUNNING = "ok", "failed", "skipped", "timeout", "not reached", "running"
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
DRIVER, STARTS = "driver", "torch initializes"
"""The first check, and its probe that torch computes on the GPU: without that no other check says anything."""
DRIVER_FIRST = "Put the driver right, then start again."


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: ``work`` (module:function) is called with ``Probes`` in a process that has ``limit_s`` seconds.

    ``means`` says what a red one is for the course, ``labs`` which labs it touches, ``to_do`` what comes next.
    """

    name: str
    title: str
    work: str
    limit_s: float
    means: str
    labs: str
    to_do: str


ALL_LABS = "all labs on a GPU (00 to 14)"
CHECKS = (
    Check(
        name=DRIVER, title="Driver, torch and the GPU find each other", work="first_contact:driver", limit_s=90,
        means="Where torch cannot compute, no run starts on CUDA, and every other check is skipped.", labs=ALL_LABS,
        to_do="Take a driver that torch's CUDA works with (CUDA 13 needs 580 or later), or a torch for the driver's "
        "CUDA; then start this again.",
    ),
    Check(
        name="memory", title="What context, kernels and workspaces take", work="first_contact:memory", limit_s=60,
        means="The profile's capacity leaves too little beside it: runs near the cap end in another way than planned.",
        labs="01 to 09 and 11, where the numbers are close to the capacity",
        to_do="Put the measured usable bytes into labkit/config/gpus.py and lower capacity_gib of the profile.",
    ),
    Check(
        name="maths", title="Products and attention against fp64", work="first_contact:maths", limit_s=60,
        means="The GPU computes something else than it should: no loss can be believed.", labs=ALL_LABS,
        to_do="Look at NVIDIA_TF32_OVERRIDE and torch.backends; run it on another GPU to tell hardware from software.",
    ),
    Check(
        name="attention", title="Attention of the course's shapes, cuDNN's kernel off", work="first_contact:attention",
        limit_s=90,
        means="Another kernel runs than the one that is planned, or it gives wrong numbers: predicted activations "
        "are off by it in every layer, or losses turn NaN.",
        labs="01 to 09: every plan at full size has attention in it",
        to_do="Compare kernel and bytes below with labkit/plan/semantics.py, and change the plan or the order.",
    ),
    Check(
        name="cudnn_attention", title="The same with cuDNN's kernel on, for the record",
        work="first_contact:cudnn_attention", limit_s=60,
        means="The course has this kernel off, so no lab is touched; it must stay off.", labs="none",
        to_do="Leave cuDNN's attention off on this GPU.",
    ),
    Check(
        name="filling", title="A full GPU: which exception comes, and memory is given back",
        work="first_contact:filling", limit_s=120,
        means="A run that is too large ends as failed or killed in place of out of memory, or leaves memory behind.",
        labs="01, 02, 05 and 10, whose point is a run that does not fit",
        to_do="Make the exception below one that labkit takes as out of memory.",
    ),
    Check(
        name="precisions", title="Three precisions, with and without the memory report",
        work="first_contact:precisions", limit_s=150,
        means="The report changes what it measures, or cannot say what holds the memory.", labs="01 to 03",
        to_do="Look for what is unattributed in labkit/memory, or for what makes the losses differ.",
    ),
    Check(
        name="methods", title="8-bit, paged, QLoRA, checkpointing and offload on tiny models",
        work="first_contact:methods", limit_s=210,
        means="The method that is red cannot be taught on this machine.", labs="05 to 09",
        to_do="Read what the probe has found, below; a library that does not fit the driver says so there.",
    ),
    Check(
        name="resume", title="Saved, killed, resumed", work="first_contact:resume", limit_s=90,
        means="A run that was interrupted resumes with other numbers, or not at all.", labs="10 and 12",
        to_do="Compare the losses below from the step that was resumed.",
    ),
    Check(
        name="rows", title="gpu_check on three rows, and one with pretrained weights", work="first_contact:rows",
        limit_s=300,
        means="What labkit predicts is not what this GPU measures.", labs="01 to 09: their figures put both beside "
        "each other",
        to_do="Read the row in gpu_check's page beside this one; gpu_check.py runs all of them.",
    ),
    Check(
        name="left", title="Nothing is left on the GPU", work="first_contact:left", limit_s=60,
        means="A run leaves memory or a process behind, and the next one has less than its capacity.", labs=ALL_LABS,
        to_do="End the processes named below; nvidia-smi shows who holds memory.",
    ),
)  # fmt: skip
"""In the order in which one red check explains those after it."""


# -- what a check does in its process


class Skipped(Exception):
    """A probe that does not apply here; the message is the reason, ``to_do`` the advice, as a sentence."""

    def __init__(self, message: str, to_do: str = "") -> None:
        super().__init__(message)
        self.to_do = to_do


class Wrong(Exception):
    """A probe has found what the course does not count on; the message is what. ``numbers`` are kept."""

    def __init__(self, message: str, numbers: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.numbers = numbers or {}


Seen = tuple[str, dict[str, Any]]
"""What a probe has found: in words, and as numbers."""


class Probes:
    """The probes of one check, each guarded and each on disk as soon as it is over.

    ``before`` holds the checks that were done before this one.
    """

    def __init__(
        self, path: Path, out: Path, dry: bool, limit_s: float, before: dict[str, dict[str, Any]] | None = None
    ) -> None:
        self.path = path
        self.out = out
        self.dry = dry
        self.before = before or {}
        self.ends = time.monotonic() + limit_s
        self.done: list[dict[str, Any]] = []
        self._save(None)

    @property
    def device(self) -> str:
        """Where tensors are made."""
        return "cpu" if self.dry else "cuda"

    @property
    def left_s(self) -> float:
        """Seconds until this check is stopped."""
        return self.ends - time.monotonic()

    def probe(
        self, name: str, work: Callable[..., Seen], *args: Any, stand_in: bool = False, labs: str = "",
        when_stopped: str = "",
    ) -> dict[str, Any] | None:  # fmt: skip
        """The numbers that ``work`` finds; None where it fails or does not apply, and the next probe follows.

        ``stand_in``: without a GPU this shows made-up facts. ``labs``: those it touches, where they are fewer than the
        check's. ``when_stopped``: the advice when the check is stopped in it.
        """
        begun = time.monotonic()
        place = (SIMULATED if stand_in else "CPU") if self.dry else "CUDA"
        found: dict[str, Any] = {
            "name": name, "result": OK, "found": "", "numbers": {}, "place": place, "labs": labs, "to_do": ""
        }  # fmt: skip
        self._save(found | {"begun": begun, "to_do": when_stopped})
        try:
            found["found"], found["numbers"] = work(*args)
        except Skipped as reason:
            found |= {"result": SKIPPED, "found": str(reason), "to_do": reason.to_do}
        except Wrong as error:
            found |= {"result": FAILED, "found": str(error), "numbers": error.numbers}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - however a probe ends is what is looked for
            found |= {"result": FAILED, "found": line_of(error)}
        found["seconds"] = round(time.monotonic() - begun, 3)
        self.done.append(found)
        self._save(None)
        print(f"{name}: {found['result']}, {found['found']}", flush=True)
        return None if found["result"] in (FAILED, SKIPPED) else found["numbers"]

    def _save(self, running: dict[str, Any] | None) -> None:
        write_whole(self.path, {"running": running, "probes": self.done})


def line_of(error: BaseException) -> str:
    """An exception's type and the first lines of its message, as one."""
    return cut(f"{type(error).__name__}: {error}").rstrip(": ")


def cut(text: str, letters: int = FOUND_LETTERS) -> str:
    """Text in one line: as much of it as are whole sentences, else whole words and an ellipsis."""
    text = " ".join(text.split())
    if len(text) <= letters:
        return text
    head = text[: letters - 1]  # so that there is room for the ellipsis
    if sentences := re.match(r".*[^\W\d_]{3}[.!?](?=\s)", head):  # no end of "e.g." or of a number
        return sentences[0]
    return f"{head.rsplit(' ', 1)[0].rstrip(' ,;:')}…"


def one_of_each(probes: Iterable[dict[str, Any]]) -> list[str]:
    """Names and reason of probes, each reason once."""
    names: dict[str, list[str]] = {}
    for probe in probes:
        names.setdefault(probe["found"], []).append(probe["name"])
    return [f"{listed(found)}: {reason}" for reason, found in names.items()]


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if names[NAMES:] else "")


def child(args: argparse.Namespace) -> None:
    """Carry out one check in this process."""
    module, _, name = args.child.partition(":")
    report = args.out / "first_contact.json"
    before = json.loads(report.read_text(encoding="utf-8"))["checks"] if report.exists() else []
    limit_s = args.ends - time.monotonic()  # less than at its start: what is imported has taken some
    probes = Probes(args.found, args.out, args.dry, limit_s, {check["name"]: check for check in before})
    getattr(importlib.import_module(module), name)(probes)


def numbers_of(before: dict[str, dict[str, Any]], check: str, probe: str) -> dict[str, Any]:
    """What a probe of an earlier check has found; nothing where it was not reached."""
    probes = before.get(check, {}).get("probes", [])
    return next((p["numbers"] for p in probes if p["name"] == probe), {})


def memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory is full: torch's own, or a library's of which no handle can be made."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or bool(_FULL.search(str(error)))


_FULL = re.compile(
    r"out of memory|ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)", re.I
)


# -- 1: driver

SMI_SAMPLE = "NVIDIA H100 NVL, 580.82.07, 95830 MiB, 4 MiB"
SMI_HEAD_SAMPLE = "| NVIDIA-SMI 580.82.07    Driver Version: 580.82.07    CUDA Version: 13.0 |"
FACTS_SAMPLE = {
    "gpu": "NVIDIA H100 NVL", "driver": "580.82.07", "cuda": "13.0", "cudnn": 91600, "capability": "9.0",
    "total_bytes": int(93.1 * GIB), "used_by_others_bytes": 4 * MIB, "context_bytes": 416 * MIB,
    "used_with_context_bytes": 420 * MIB, "cublas_workspace_bytes": 32 * MIB, "allocator": "native",
}  # fmt: skip
"""Made up for the dry mode."""


def driver(probes: Probes) -> None:
    """The driver alone, then torch, then both."""
    dry = probes.dry
    probes.probe("nvidia-smi", _smi, dry, stand_in=True)
    probes.probe("CUDA of the driver", _driver_cuda, dry, stand_in=True)
    probes.probe("MIG", _mig, dry, stand_in=True)
    probes.probe("CUDA_VISIBLE_DEVICES", _visible)
    probes.probe("torch", _torch_build, dry)
    probes.probe("facts", _facts, dry, stand_in=True)
    probes.probe(STARTS, _starts, probes.device, stand_in=True)
    probes.probe("code for this GPU", _code, dry, stand_in=True)


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise Wrong(f"no {command[0]} on PATH; in a container the driver is passed in with --gpus all")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    if done.returncode:
        raise Wrong(f"{command[0]} ended with {done.returncode}: {cut(done.stderr or done.stdout, 200)}")
    return done.stdout


def _smi(dry: bool) -> Seen:
    fields = ("name", "driver_version", "memory.total", "memory.used")
    said = SMI_SAMPLE if dry else _ask("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    gpus = [dict(zip(fields, map(str.strip, line.split(",")), strict=False)) for line in said.strip().splitlines()]
    if not gpus:
        raise Wrong("nvidia-smi lists no GPU")
    return "; ".join(", ".join(gpu.values()) for gpu in gpus), {"gpus": gpus}


def _driver_cuda(dry: bool) -> Seen:
    head = SMI_HEAD_SAMPLE if dry else _ask("nvidia-smi")
    found = re.search(r"CUDA(?: UMD)? Version: *([0-9.]+)", head)
    cuda = found[1] if found else None
    if cuda is None:
        number = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
        cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return f"the driver can do CUDA {cuda}", {"cuda": cuda}


def _mig(dry: bool) -> Seen:
    said = "Disabled" if dry else _ask("nvidia-smi", "--query-gpu=mig.mode.current", "--format=csv,noheader").strip()
    modes = [mode.strip() for mode in said.splitlines()]
    more = ": sizes are a slice's, not the GPU's" if "Enabled" in modes else ""
    return f"MIG {', '.join(modes)}{more}", {"modes": modes}


def _visible() -> Seen:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")
    found = {name: os.environ.get(name) for name in names}
    return ", ".join(f"{name}={value}" for name, value in found.items() if value is not None) or "not set", found


def _torch_build(dry: bool) -> Seen:
    import torch

    built = torch.version.cuda
    if built is None and not dry:
        raise Wrong(f"torch {torch.__version__} is a build for CPUs; install one for CUDA")
    return f"torch {torch.__version__}, built for CUDA {built}", {"torch": torch.__version__, "cuda": built}


def _facts(dry: bool) -> Seen:
    """In a process of its own, so that what others hold is asked before this one is one of them."""
    facts = dict(FACTS_SAMPLE) if dry else gpu_check.in_child(gpu_check.cuda_facts)
    if facts is None:
        raise Wrong("torch.cuda.is_available() is False")
    setup = gpu_check.describe_setup(facts, None)
    cudnn = facts.get("cudnn")
    return f"{facts['gpu']}, driver {facts['driver']}, CUDA {facts['cuda']}, cuDNN {cudnn}", {"setup": setup}


def _starts(device: str) -> Seen:
    import torch

    if device == "cuda":
        torch.cuda.init()  # is_available() may have asked NVML alone
    total = float(torch.ones(8, device=device).sum())
    if total != 8:
        raise Wrong(f"eight ones are {total:g}")
    count = torch.cuda.device_count() if device == "cuda" else 1
    return f"{count} GPU to be seen, and the first one adds", {"gpus": count}


def _code(dry: bool) -> Seen:
    import torch

    architectures = ["sm_80", "sm_90", "sm_100"] if dry else torch.cuda.get_arch_list()
    capability = (9, 0) if dry else torch.cuda.get_device_capability(0)
    if reason := without_code(architectures, capability, f"torch {torch.__version__}"):
        raise Wrong(reason)
    bf16 = "has" if capability >= (8, 0) else "has no"
    return f"compute capability {capability[0]}.{capability[1]}, {bf16} bf16", {"capability": list(capability)}


# -- 2: memory

STAGES_SAMPLE = {
    "context": (420 * MIB, 0), "first tensor": (442 * MIB, 22 * MIB), "first product": (494 * MIB, 54 * MIB),
    "first convolution": (600 * MIB, 76 * MIB), "first attention": (604 * MIB, 76 * MIB),
}  # fmt: skip
"""Made up for the dry mode: bytes that the driver has given out, and those that the allocator holds of them."""


def memory(probes: Probes) -> None:
    """The driver's count before and after each thing that is loaded at its first use."""
    works = {
        "context": _nothing, "first tensor": _tensor, "first product": _product, "first convolution": _convolution,
        "first attention": _first_attention,
    }  # fmt: skip
    others_bytes = _others(probes)
    last: dict[str, Any] | None = None
    for stage, work in works.items():
        last = probes.probe(stage, _stage, stage, work, probes.device, last, others_bytes, stand_in=True) or last
    probes.probe("against labkit's assumption", _against, probes, last, stand_in=True)


def _others(probes: Probes) -> int:
    if probes.dry:
        return FACTS_SAMPLE["used_by_others_bytes"]
    from labkit.memory.cuda import used_by_others_bytes

    return used_by_others_bytes() or 0


def _stage(stage: str, work: Callable[[str], Any], device: str, last: dict[str, Any] | None, others_bytes: int) -> Seen:
    import torch

    kept = work(device)
    if device == "cuda":
        torch.cuda.synchronize()
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        used_bytes, reserved_bytes = total_bytes - free_bytes, torch.cuda.memory_reserved()
    else:
        (used_bytes, reserved_bytes), total_bytes = STAGES_SAMPLE[stage], FACTS_SAMPLE["total_bytes"]
    del kept
    beside_bytes = used_bytes - reserved_bytes - others_bytes
    more_bytes = beside_bytes - (last["beside_bytes"] if last else 0)
    words = f"{human_bytes(beside_bytes)} beside the allocator, {human_bytes(more_bytes)} more"
    return words, {
        "used_bytes": used_bytes, "reserved_bytes": reserved_bytes, "beside_bytes": beside_bytes,
        "more_bytes": more_bytes, "total_bytes": total_bytes, "others_bytes": others_bytes,
    }  # fmt: skip


def _nothing(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.init()
        torch.cuda.synchronize()


def _tensor(device: str) -> Any:
    import torch

    return torch.ones(MIB, device=device)


def _product(device: str) -> Any:
    import torch

    factor = torch.ones(gpu_check.MATMUL_SIZE, gpu_check.MATMUL_SIZE, device=device, dtype=torch.bfloat16)
    return factor @ factor


def _convolution(device: str) -> Any:
    """The patches of the vision tower, forward and backward."""
    import torch

    patch = architecture("Salesforce/blip2-opt-2.7b").vision["patch_size"]
    layer = torch.nn.Conv2d(3, 64, patch, patch, device=device)
    layer(torch.ones(2, 3, 16 * patch, 16 * patch, device=device)).sum().backward()
    return layer


def _first_attention(device: str) -> Any:
    import torch
    import torch.nn.functional as F

    query = torch.ones(1, 4, 64, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    F.scaled_dot_product_attention(query, query, query).sum().backward()
    return query


def _against(probes: Probes, last: dict[str, Any] | None) -> Seen:
    if last is None:
        raise Wrong("nothing was measured")
    if probes.dry:
        name = FACTS_SAMPLE["gpu"]
    else:
        import torch

        name = torch.cuda.get_device_name(0)
    usable_bytes = last["total_bytes"] - last["beside_bytes"]
    numbers = {"gpu": name, "total_bytes": last["total_bytes"], "usable_bytes": usable_bytes}
    how = "simulated" if probes.dry else "measured"
    words = f"{human_bytes(last['total_bytes'])} in total, {human_bytes(usable_bytes)} usable ({how})"
    try:
        assumed_bytes = find_gpu(name).usable_bytes
    except ConfigError:
        return f"{words}; labkit assumes nothing about {name!r}", numbers
    profile = fitting_profile(last["total_bytes"])
    capacity_bytes = capacity_of(profile) if profile else None
    numbers |= {"assumed_bytes": assumed_bytes, "profile": profile, "capacity_bytes": capacity_bytes}
    words += f", {human_bytes(assumed_bytes)} assumed"
    if capacity_bytes is not None:
        words += f", {human_bytes(capacity_bytes)} in profile {profile}"
    much_bytes = max(assumed_bytes, capacity_bytes or 0) - usable_bytes
    if much_bytes > 0:
        raise Wrong(f"{words}: {human_bytes(much_bytes)} too much", numbers)
    return words, numbers


def capacity_of(profile: str) -> int | None:
    """The capacity in bytes that a profile gives its GPU; None for a profile of the simulated GPU."""
    values = load_profile(Workspace.find(), profile).values
    if values.get("device") != "cuda" or values.get("capacity_gib") is None:
        return None
    return int(values["capacity_gib"] * GIB)


def fitting_profile(total_bytes: int) -> str | None:
    """The largest profile of the workspace that a GPU of so many bytes can be; None for a smaller GPU."""
    found = {name: capacity_of(name) for name in profile_names(Workspace.find())}
    fits = {name: size for name, size in found.items() if size is not None and size <= total_bytes}
    return max(fits, key=lambda name: fits[name], default=None)


# -- 3: maths

MATHS_LIMITS = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}
"""Largest error as a share of the result's norm. Assumed: twice what rounding gives; TF32 in place of fp32 is above."""
SIZE = 1024


def maths(probes: Probes) -> None:
    """One product and one attention in each number format."""
    for kind, limit in MATHS_LIMITS.items():
        probes.probe(f"product in {kind}", _product_error, probes.device, kind, limit)
        probes.probe(f"attention in {kind}", _attention_error, probes.device, kind, limit)


def relative_error(found: Any, right: Any) -> float:
    """The norm of the difference as a share of the right result's norm; infinite where something is not a number."""
    found, right = found.detach().double().cpu(), right.detach().double().cpu()
    error = float((found - right).norm() / right.norm())
    return error if math.isfinite(error) else math.inf


def _judged(error: float, limit: float) -> Seen:
    numbers = {"error": error if math.isfinite(error) else None, "limit": limit}
    if error > limit:
        raise Wrong(f"off by {error:.1e} of the norm, at most {limit:.0e} is expected", numbers)
    return f"off by {error:.1e} of the norm", numbers


def _product_error(device: str, kind: str, limit: float) -> Seen:
    import torch

    torch.manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE).to(getattr(torch, kind)) for _ in range(2))
    return _judged(relative_error(left.to(device) @ right.to(device), left.double() @ right.double()), limit)


def _attention_error(device: str, kind: str, limit: float) -> Seen:
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    parts = [torch.randn(2, 4, 96, 64).to(getattr(torch, kind)) for _ in range(3)]
    found = F.scaled_dot_product_attention(*(part.to(device) for part in parts))
    return _judged(relative_error(found, plain_attention(*(part.double() for part in parts), None, 64**-0.5)), limit)


def plain_attention(query: Any, key: Any, value: Any, mask: Any, scale: float) -> Any:
    """Attention by its formula."""
    scores = query @ key.transpose(-2, -1) * scale
    if mask is not None:
        import torch

        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


# -- 4: attention

BATCH = {"cuda": 16, "cpu": 2}
"""The course's, and one that a CPU is fast with."""
KEPT_LIMIT = 0.02
"""Share by which what a layer keeps for backward may differ from the plan; it counts once for each layer."""
ATTENTION_LIMITS = {"32-true": 1e-4, "bf16-mixed": 3e-2, "bf16-true": 3e-2}
"""Largest error of output and gradients as a share of their norms, against the formula in fp32. Assumed."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One attention of the course.

    ``mask``: ``padded`` is boolean and causal, the others are added: ``learnt`` and ``shared`` (one for all samples)
    get gradients, ``bias`` gets none.
    """

    name: str
    heads: int
    queries: int
    keys: int
    size: int
    mask: str | None = None
    dropout: float = 0.0


def t5_lengths() -> Seen:
    """How many tokens T5 reads and writes, as the collator has it; asks for the libraries of a run."""
    need_libraries()
    from labkit.plan.steps import batch_of

    batch = batch_of(RunConfig(model_name="Salesforce/blip2-flan-t5-xl", device="cuda", batch_size=1))
    read, written = batch["input_ids"].shape[1], batch["labels"].shape[1]
    return f"{read} tokens read, {written} written", {"read": read, "written": written}


def shapes(lengths: dict[str, int] | None) -> list[Shape]:
    """All attentions of the course's models, and lengths of 64 modulo 128 with a mask (pytorch#196678).

    ``lengths`` are T5's; without, its shapes are left out.
    """
    opt, larger, xl, xxl = (
        architecture(f"Salesforce/blip2-{name}") for name in ("opt-2.7b", "opt-6.7b", "flan-t5-xl", "flan-t5-xxl")
    )
    patches = (opt.image_px // opt.vision["patch_size"]) ** 2 + 1
    heads, former = opt.vision["num_attention_heads"], opt.qformer
    former_heads, former_size = former["num_attention_heads"], former["hidden_size"] // former["num_attention_heads"]
    queries = opt.num_query_tokens
    found = [
        Shape(name="ViT-g", heads=heads, queries=patches, keys=patches, size=opt.vision["hidden_size"] // heads),
        Shape(name="Q-Former, self", heads=former_heads, queries=queries, keys=queries, size=former_size, dropout=0.1),
        Shape(name="Q-Former, cross", heads=former_heads, queries=queries, keys=patches, size=former_size, dropout=0.1),
    ]
    for model in (opt, larger):
        heads = model.text["num_attention_heads"]
        for text in (32, RunConfig.max_length, 160):
            length = queries + text
            found.append(Shape(
                name=f"{model.name.partition('-')[2]}, {length} tokens", heads=heads, queries=length, keys=length,
                size=model.text["hidden_size"] // heads, mask="padded",
            ))  # fmt: skip
    if lengths is None:
        return found
    for model in (xl, xxl):
        found += _t5_shapes(model, dropout=0.1, **lengths)
    # with dropout the formula has nothing to compare with
    return found + [replace(s, name=f"{s.name} without dropout") for s in _t5_shapes(xl, dropout=0.0, **lengths)]


def _t5_shapes(model: Architecture, dropout: float, read: int, written: int) -> list[Shape]:
    name = model.name.partition("flan-")[2]
    common: dict[str, Any] = {"heads": model.text["num_heads"], "size": model.text["d_kv"], "dropout": dropout}
    return [
        Shape(name=f"{name}, encoder", queries=read, keys=read, mask="learnt", **common),
        Shape(name=f"{name}, decoder", queries=written, keys=written, mask="shared", **common),
        Shape(name=f"{name}, cross", queries=written, keys=read, mask="bias", **common),
    ]


def attention(probes: Probes) -> None:
    """As the course has it: each shape in each precision, against the plan and against the formula."""
    _all_shapes(probes, cudnn=False)
    probes.probe("in all", _counted, probes.done)


def cudnn_attention(probes: Probes) -> None:
    """As torch has it: what is wrong is told, and is no fault of the course."""
    _all_shapes(probes, cudnn=True)
    probes.probe("in all", _counted, probes.done)


def _counted(probes: list[dict[str, Any]]) -> Seen:
    """Of all shapes: which kernels, how many peaks are the planned ones, and how many give wrong numbers."""
    found = [probe["numbers"] for probe in probes if "complaints" in probe["numbers"]]
    kernels = [numbers["kernel"] for numbers in found if "kernel" in numbers]
    numbers: dict[str, Any] = {
        "kernels": {kernel: kernels.count(kernel) for kernel in sorted(set(kernels))},
        "peaks_as_planned": sum(n["peak_bytes"] == n["planned"]["peak_bytes"] for n in found if "kernel" in n),
        "wrong": sum(bool(n.get("complaints")) for n in found),
    }
    told = ", ".join(f"{kernel} in {count}" for kernel, count in numbers["kernels"].items()) or "no kernel ran"
    planned, wrong = numbers["peaks_as_planned"], numbers["wrong"]
    return f"{told}; {planned} of {len(found)} peaks as planned; wrong numbers in {wrong}", numbers


def _all_shapes(probes: Probes, cudnn: bool) -> None:
    from labkit.train.attention import kernels

    _product(probes.device)  # its workspace is there before anything is counted
    work = _for_the_record if cudnn else _one_shape
    with kernels(cudnn):
        for shape in shapes(probes.probe("T5's lengths", t5_lengths)):
            for precision in PRECISIONS:
                probes.probe(f"{shape.name}, {precision}", work, probes.device, shape, precision)


def tensors_of(shape: Shape, precision: str, device: str, batch: int) -> tuple[list[Any], Any]:
    """Query, key and value, which require gradients, and the mask."""
    import torch

    half = torch.bfloat16
    dtype = torch.float32 if precision == "32-true" else half
    sizes = [(batch, shape.heads, n, shape.size) for n in (shape.queries, shape.keys, shape.keys)]
    parts = [torch.randn(size, device=device, dtype=dtype).requires_grad_() for size in sizes]
    square = (shape.queries, shape.keys)
    if shape.mask is None:
        return parts, None
    if shape.mask == "padded":
        mask = torch.ones(batch, 1, *square, dtype=torch.bool, device=device).tril()
        mask[: batch // 2, ..., shape.keys - 8 :] = False  # half of the captions are shorter; padding is on the right
        return parts, mask
    # T5's bias is a weight's, in 32 bits under autocast, and each head has its own
    rows = 1 if shape.mask == "shared" else batch
    kind = half if precision == "bf16-true" else torch.float32
    mask = torch.randn(rows, shape.heads, *square, device=device, dtype=kind)
    return parts, mask.requires_grad_(shape.mask != "bias")


def autocast_of(precision: str, device: str) -> Any:
    """What Lightning's precision does around forward."""
    import torch

    if precision != "bf16-mixed":
        return contextlib.nullcontext()
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def attend(shape: Shape, parts: list[Any], mask: Any, autocast: Any) -> Any:
    """Forward; the function is looked up in torch now, so that the plan's own is met while a plan is made."""
    import torch.nn.functional as F

    with autocast:
        return F.scaled_dot_product_attention(*parts, attn_mask=mask, dropout_p=shape.dropout, scale=shape.size**-0.5)


def followed(shape: Shape, parts: list[Any], mask: Any, autocast: Any, device: str) -> dict[str, Any]:
    """Kernel, bytes that are kept for backward and peak of both, by labkit's tracker."""
    import torch

    from labkit.memory.tracker import Tracker

    with Tracker(device_type=device, keep_events=True) as tracker:
        tracker.assign([*parts, *([] if mask is None else [mask])], "inputs")
        before_bytes, before = tracker.allocated_bytes, len(tracker.events or ())
        out = attend(shape, parts, mask, autocast)
        kept_bytes = tracker.allocated_bytes - before_bytes
        kernel = kernel_of(str(operation) for _, _, operation in (tracker.events or ())[before:])
        out.backward(torch.randn_like(out))
        return {"kernel": kernel, "kept_bytes": kept_bytes, "peak_bytes": tracker.peak_bytes - before_bytes}


def kernel_of(operations: Iterable[str]) -> str:
    """The name of the kernel among the operations of one attention; plain ones are ``math``."""
    for operation in operations:
        if found := re.search(r"_scaled_dot_product_(\w+?)_attention", operation):
            return found[1]
    return "math"


def planned_attention(shape: Shape, precision: str, device: str) -> dict[str, Any]:
    """The same by labkit's plan: on tensors without storage, which go the way of the device."""
    import torch

    from labkit.plan.semantics import DeviceSemantics

    parts, mask = tensors_of(shape, precision, "meta", BATCH[device])
    machine = {"device": "simulated", "capacity_gib": 1.0} if device == "cpu" else {"device": "cuda"}
    machine["cudnn_attention"] = torch.backends.cuda.cudnn_sdp_enabled()
    with DeviceSemantics(RunConfig(precision=precision, **machine)) as semantics:
        return followed(shape, parts, mask, semantics.autocast(), "meta")


def measured_attention(
    shape: Shape, parts: list[Any], mask: Any, precision: str, device: str
) -> tuple[dict[str, Any], Any, Any]:
    """The same on the device, the output and its gradient.

    The first pass names the kernel and warms up, the second is counted.
    """
    import torch

    found = followed(shape, parts, mask, autocast_of(precision, device), device)
    for leaf in (*parts, *([] if mask is None else [mask])):
        leaf.grad = None
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before_bytes = torch.cuda.memory_allocated()
    out = attend(shape, parts, mask, autocast_of(precision, device))
    if device == "cuda":
        found["kept_bytes"] = torch.cuda.memory_allocated() - before_bytes
    grad = torch.randn_like(out)
    out.backward(grad)
    if device == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated() - before_bytes
    return found, out, grad


def _for_the_record(device: str, shape: Shape, precision: str) -> Seen:
    """One shape, of which nothing is wrong for the course."""
    try:
        return _one_shape(device, shape, precision)
    except Wrong as error:
        return str(error), error.numbers
    except RuntimeError as error:  # a kernel that refuses
        return line_of(error), {"complaints": [line_of(error)]}


def _one_shape(device: str, shape: Shape, precision: str) -> Seen:
    import torch

    torch.manual_seed(0)
    planned = planned_attention(shape, precision, device)
    parts, mask = tensors_of(shape, precision, device, BATCH[device])
    measured, out, grad = measured_attention(shape, parts, mask, precision, device)
    results = named(parts, mask, out)
    complaints = [f"NaN or infinity in {name}" for name, tensor in results.items() if not finite(tensor)]
    if not complaints and not shape.dropout:
        errors = formula_errors(shape, parts, mask, results, grad)
        limit = ATTENTION_LIMITS[precision]
        complaints = [f"{name} off by {error:.1e} of the norm" for name, error in errors.items() if error > limit]
    numbers = measured | {"planned": planned, "complaints": complaints}
    differs = [f"planned {planned['kernel']}"] if planned["kernel"] != measured["kernel"] else []
    if abs(measured["kept_bytes"] - planned["kept_bytes"]) > KEPT_LIMIT * planned["kept_bytes"]:
        differs.append(f"keeps {human_bytes(measured['kept_bytes'])}, planned {human_bytes(planned['kept_bytes'])}")
    more_bytes = measured["peak_bytes"] - planned["peak_bytes"]
    peaks = f"{more_bytes:+,} bytes against the plan" if more_bytes else "as planned"
    words = f"{measured['kernel']}, peak {human_bytes(measured['peak_bytes'])}, {peaks}"
    if wrong := [*differs, *complaints]:
        raise Wrong("; ".join([words, *wrong]), numbers)
    return words, numbers


def named(parts: list[Any], mask: Any, out: Any) -> dict[str, Any]:
    """Output and gradients by their names."""
    found = {"output": out} | {f"grad of {n}": p.grad for n, p in zip(("query", "key", "value"), parts, strict=True)}
    return found | ({"grad of bias": mask.grad} if mask is not None and mask.requires_grad else {})


def finite(tensor: Any) -> bool:
    """Whether there is a tensor and all in it are numbers."""
    import torch

    return tensor is not None and bool(torch.isfinite(tensor).all())


def formula_errors(shape: Shape, parts: list[Any], mask: Any, results: dict[str, Any], grad: Any) -> dict[str, float]:
    """By name, how far output and gradients are from the formula's in fp32."""
    leaves = [part.detach().float().requires_grad_() for part in parts]
    bias = mask.detach().float().requires_grad_(mask.requires_grad) if shape.mask not in (None, "padded") else mask
    out = plain_attention(*leaves, bias, shape.size**-0.5)
    out.backward(grad.float())
    return {name: relative_error(results[name], right) for name, right in named(leaves, bias, out.detach()).items()}


# -- 5: filling

BLOCKS_BYTES = (GIB, 64 * MIB, 2 * MIB, MIB // 2)
"""Large ones fill fast, small ones fill up."""
DRY_CAPACITY_BYTES = 64 * MIB
SLACK_BYTES = 32 * MIB
"""By which the driver's count may differ when all is given back."""
FULL_SAMPLE = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def filling(probes: Probes) -> None:
    """The cap, the whole GPU, a first product on a full GPU, and a run of labkit on one that another process fills."""
    dry = probes.dry
    total_bytes = DRY_CAPACITY_BYTES if dry else _total_bytes()
    profile = None if dry else fitting_profile(total_bytes)
    cap_bytes = (capacity_of(profile) if profile else None) or total_bytes // 2
    probes.probe("to the cap", _fill_to, probes, cap_bytes, total_bytes)
    probes.probe("to the end", _fill_to, probes, total_bytes, total_bytes)
    for name in ("product", "convolution"):
        probes.probe(f"first {name} on a full GPU", _first_when_full, dry, name, stand_in=True)
    context_bytes = numbers_of(probes.before, "memory", "context").get("beside_bytes") or 560 * MIB
    probes.probe("a run where a context is all that fits", _run_when_full, dry, context_bytes + SLACK_BYTES)
    probes.probe("a run where no context fits", _run_when_full, dry, 64 * MIB)


def _total_bytes() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory  # what labkit takes a share of, too


def fill(device: str, sizes: Iterable[int], leave_bytes: int = 0) -> tuple[list[Any], BaseException | None]:
    """Tensors until none of the last size fits or ``leave_bytes`` are left; the tensors and the last exception."""
    import torch

    blocks, last = [], None
    for size in sizes:
        while not leave_bytes or torch.cuda.mem_get_info()[0] - size > leave_bytes:
            try:
                blocks.append(torch.empty(size, dtype=torch.uint8, device=device))
            except Exception as error:  # noqa: BLE001 - which one comes is the question
                last = error.with_traceback(None)  # in which the blocks would live on
                break
    return blocks, last


def _fill_to(probes: Probes, cap_bytes: int, total_bytes: int) -> Seen:
    import torch

    if probes.dry:
        from labkit.memory.tracker import Tracker

        with Tracker(cap_bytes) as tracker:
            blocks, error = fill("cpu", (8 * MIB, 2 * MIB))
            reserved_bytes = tracker.allocated_bytes
            del blocks
        left_bytes = tracker.allocated_bytes
    else:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_bytes / total_bytes))
        free_bytes = torch.cuda.mem_get_info()[0]
        blocks, error = fill("cuda", BLOCKS_BYTES)
        reserved_bytes = torch.cuda.memory_reserved()
        del blocks
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)
        left_bytes = free_bytes - torch.cuda.mem_get_info()[0]
    numbers = {
        "reserved_bytes": reserved_bytes, "cap_bytes": cap_bytes, "left_bytes": left_bytes,
        "exception": type(error).__name__, "message": line_of(error) if error else None,
    }  # fmt: skip
    words = f"{type(error).__name__} at {human_bytes(reserved_bytes)} of {human_bytes(cap_bytes)}"
    if not isinstance(error, torch.OutOfMemoryError):
        raise Wrong(f"{words}: not torch.OutOfMemoryError", numbers)
    if reserved_bytes > cap_bytes:
        raise Wrong(f"{words}: more than the cap", numbers)
    if left_bytes > SLACK_BYTES:
        raise Wrong(f"{words}; {human_bytes(left_bytes)} were not given back", numbers)
    return f"{words}, and all was given back", numbers


def first_when_full(name: str) -> tuple[str, str, bool] | None:
    """In a process of its own: the exception of the first product or convolution on a full GPU; None for none."""
    import torch

    factor = torch.ones(1024, 1024, device="cuda")
    layer, image = torch.nn.Conv2d(3, 64, 14, 14, device="cuda"), torch.ones(2, 3, 224, 224, device="cuda")
    blocks, _ = fill("cuda", BLOCKS_BYTES)
    try:
        factor @ factor if name == "product" else layer(image)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - which one comes is the question
        return type(error).__name__, line_of(error), memory_error(error)
    finally:
        del blocks
    return None


def _first_when_full(dry: bool, name: str) -> Seen:
    if dry:
        found: Any = ("RuntimeError", f"RuntimeError: {FULL_SAMPLE}", memory_error(RuntimeError(FULL_SAMPLE)))
    else:
        import torch

        torch.cuda.empty_cache()
        found = gpu_check.in_child(functools.partial(first_when_full, name))
    if found is None:
        return "no exception: it found room", {"exception": None}
    kind, text, says_so = found
    numbers = {"exception": kind, "message": text}
    if not says_so:
        raise Wrong(f"{text}: does not say that memory is full", numbers)
    return text, numbers


def _run_when_full(dry: bool, leave_bytes: int) -> Seen:
    if dry:
        record = small_run(True, "reduced_batch", {"capacity_gib": leave_bytes / GIB / 100})
    else:
        import torch

        torch.cuda.empty_cache()
        blocks, _ = fill("cuda", BLOCKS_BYTES, leave_bytes)
        try:
            record = small_run(False, "reduced_batch", {})
        finally:
            del blocks
            torch.cuda.empty_cache()
    numbers = {"status": record.status, "reason": record.reason, "died_in": plain(record.died_in)}
    words = f"{record.status}: {cut(record.reason or '', 200)}"
    if record.status not in ("oom", "ok"):
        raise Wrong(f"the run ended {words}, not oom", numbers)
    return words if record.status == "oom" else "ok: it found room", numbers


# -- runs

SMALL = {"max_steps": 3, "num_train_samples": 48, "batch_size": 8, "accumulate_grad_batches": 2, "num_workers": 0}
RUN_S = 90.0
"""Limit of one small run."""
COMPILED_RUN_S = 150.0
"""The same for one whose optimizer is compiled first: 50 to 117 s on two cores (measured)."""
STOP_S = 30.0
"""Before the check's own limit such a run is stopped: it has five seconds to end, its prediction is waited for,
and on a busy machine all of it takes longer."""
PREDICTION_S = 5.0
"""That the prediction of such a run is waited for; a run waits a minute."""
COMPILE_FIRST = "Run 'python -m labkit.train.compile' first."


def missing(names: list[str]) -> Skipped:
    """What is raised for libraries that are not there."""
    return Skipped(f"no {' and no '.join(names)}", f"Install {' and '.join(names)}.")


def need_libraries() -> None:
    """Raise ``Skipped`` where a library is missing without which no run starts."""
    if absent := [gpu_check.NEEDED[name] for name in gpu_check.missing(gpu_check.NEEDED)]:
        raise missing(absent)


def small_values(dry: bool, values: dict[str, Any]) -> dict[str, Any]:
    """Typed values of a run of a tiny model: on the whole GPU, or on the simulated one."""
    machine = {"device": "simulated", "capacity_gib": 1.0} if dry else {"device": "cuda", "capacity_gib": None}
    return SMALL | machine | values


def small_run(
    dry: bool, experiment: str, values: dict[str, Any], on_event: Callable[[dict[str, Any]], None] | None = None,
    fresh: bool = True, timeout_s: float = RUN_S,
) -> Record:  # fmt: skip
    """A run of a tiny model by labkit's runner, however it ends. ``Skipped`` without what all runs need."""
    need_libraries()
    return run(experiment, small_values(dry, values), "tiny", timeout_s, on_event, fresh)


def ended_ok(record: Record) -> dict[str, Any]:
    """What a run has found. ``Skipped`` for one that was, ``Wrong`` for one that did not end ok or lost its losses."""
    predicted_bytes = record.prediction.peak_bytes if isinstance(record.prediction, Predicted) else None
    found = {
        "status": record.status, "reason": record.reason, "losses": record.losses, "peak_bytes": record.peak_bytes,
        "predicted_bytes": predicted_bytes, "train_seconds": record.train_seconds, "wall_seconds": record.wall_seconds,
    }  # fmt: skip
    if record.status == "skipped":
        raise Skipped(record.reason)
    if record.status != "ok":
        raise Wrong(f"{record.status}: {cut(record.reason or '', 300)}", found)
    if not record.losses or any(loss is None for loss in record.losses):
        raise Wrong(f"losses {record.losses}", found)
    return found


# -- 6: precisions

LOSS_LIMITS = {"32-true": 1e-4, "bf16-mixed": 1e-2, "bf16-true": 2e-2}
"""Share by which losses of equal runs may differ on CUDA, where sums are taken in any order. Assumed."""
UNATTRIBUTED_BYTES = 16 * MIB
"""May be held by what the tracker cannot see, beside cuBLAS' workspaces: one of forward's thread, one of backward's."""


def precisions(probes: Probes) -> None:
    """Each precision with the report, and without it."""
    setup = numbers_of(probes.before, "driver", "facts").get("setup", {"machine": FACTS_SAMPLE})
    workspace_bytes = 0 if probes.dry else setup["machine"]["cublas_workspace_bytes"]
    for precision in PRECISIONS:
        seen = probes.probe(f"{precision}, with the report", _reported, probes.dry, precision, workspace_bytes)
        if seen is not None:
            probes.probe(
                f"{precision}, without", _unreported, probes.dry, precision, seen["losses"], stand_in=True
            )  # fmt: skip


def _reported(dry: bool, precision: str, workspace_bytes: int) -> Seen:
    record = small_run(dry, "reduced_batch", {"precision": precision})
    found = ended_ok(record)
    ends = [phase.end.get("unattributed", 0) for phase in record.memory.phases]
    most = max([*ends, *(phase.peak.get("unattributed", 0) for phase in record.memory.phases)])
    found |= {"unattributed_bytes": most, "least_unattributed_bytes": min(ends)}
    words = (
        f"losses {losses_words(record.losses)}, {human_bytes(most)} unattributed of {human_bytes(record.peak_bytes)}"
    )
    if most > UNATTRIBUTED_BYTES + 2 * workspace_bytes:
        raise Wrong(f"{words}: more than {human_bytes(UNATTRIBUTED_BYTES + 2 * workspace_bytes)}", found)
    if min(ends) < -MIB:
        raise Wrong(f"{words}; {human_bytes(-min(ends))} are counted that are freed", found)
    return words, found


def unreported_losses(values: dict[str, Any], folder: str) -> list[float]:
    """In a process of its own: the losses of a run in which nothing is reported."""
    from labkit.memory.capture import MemoryCapture
    from labkit.train.events import EventWriter
    from labkit.train.fit import fit

    MemoryCapture.reports = lambda capture, step: False
    workspace, place = Workspace.find(), Path(folder)
    config = resolve(workspace, "reduced_batch", values, "tiny").config
    with EventWriter(place / "events.jsonl") as events:
        result = fit(place, config, workspace.data, events)
    if result["status"] != "ok":
        raise Wrong(f"{result['status']}: {result.get('reason')}")
    lines = (place / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [loss for event in map(json.loads, lines) if event["event"] == "progress" for loss in event["losses"]]


def _unreported(dry: bool, precision: str, reported: list[float]) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        work = functools.partial(unreported_losses, small_values(dry, {"precision": precision}), folder)
        losses = gpu_check.in_child(work)
    return compared_losses(losses, reported, LOSS_LIMITS[precision])


def compared_losses(losses: list[float], others: list[float], limit: float) -> Seen:
    """Whether two runs have the same losses. ``Wrong`` where they differ by more than ``limit``, a share."""
    numbers: dict[str, Any] = {"losses": losses, "others": others}
    if len(losses) != len(others):
        raise Wrong(f"{len(losses)} losses, not {len(others)}", numbers)
    pairs = [(a, b) for a, b in zip(losses, others, strict=True) if a is not None and b]
    worst = max((abs(a / b - 1) for a, b in pairs), default=0.0)
    numbers["worst"] = worst
    if worst > limit or len(pairs) < len(losses):  # one of them is not a number
        raise Wrong(f"losses {losses_words(losses)}, not {losses_words(others)}", numbers)
    return "equal losses" if worst == 0 else f"losses differ by {worst:.1e} at most", numbers


def losses_words(losses: list[float | None]) -> str:
    """The first three and the last."""
    shown = ["NaN" if loss is None else f"{loss:.4f}" for loss in losses]
    return ", ".join(shown if len(shown) < 5 else [*shown[:3], "...", shown[-1]])


# -- 7: methods

METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "8-bit Adam": ("xxl_adam8bit", {}, "05, 06 and 12"),
    "paged 8-bit Adam": ("xxl_adam8bit", {"optim": "paged_adam_8bit"}, "05"),
    "QLoRA": ("xxl_qlora", {}, "09 and 12"),
    "QLoRA, double quantization": ("xxl_qlora", {"double_quant": True}, "09"),
    "activation checkpointing": ("bf16_true", {"act_ckpt": True}, "06, 09, 11 and 14"),
    "CPU offload, ZeRO stage 2": ("xxl_cpu_offload", {}, "07 and 12"),
}
"""An experiment of the course, what is typed, and the labs that have it."""


def methods(probes: Probes) -> None:
    """Each as a short run of a tiny model."""
    for name, (experiment, values, labs) in METHODS.items():
        if experiment == "xxl_cpu_offload":
            arguments = (probes.dry, experiment, values, probes.ends)
            probes.probe(name, _offload, *arguments, labs=labs, when_stopped=COMPILE_FIRST)
        else:
            probes.probe(name, _method, probes.dry, experiment, values, labs=labs)


def _offload(dry: bool, experiment: str, values: dict[str, Any], ends: float) -> Seen:
    """DeepSpeed's CPU optimizer as it is compiled here; where it is not, or its lock was left, in a folder that goes.

    A run that is stopped while it compiles leaves a lock for which the next one waits without end. It is stopped
    before the check is, which ends at ``ends``.
    """
    need_libraries()
    from labkit.train.strategies import set_environment

    set_environment(simulated=dry)
    built = Path(os.environ["TORCH_EXTENSIONS_DIR"]) / "cpu_adam"
    timeout_s = min(COMPILED_RUN_S, ends - time.monotonic() - STOP_S)
    if timeout_s < LEAST_S:
        raise Skipped("the check had no time left for it", f"{COMPILE_FIRST} Then again alone: --only methods")
    if (built / "cpu_adam.so").exists() and not (built / "lock").exists():
        return _method(dry, experiment, values, timeout_s)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, _short_wait():
        os.environ["TORCH_EXTENSIONS_DIR"] = scratch
        try:
            words, found = _method(dry, experiment, values, timeout_s)
        except Wrong as error:
            if error.numbers.get("status") != "timeout":
                raise
            _end_compilers()
            raise Skipped(
                f"its optimizer was not compiled within {timeout_s:.0f} s",
                f"{COMPILE_FIRST} Then again alone: --only methods",
            ) from None
    return f"{words}, compiled for this check alone", found


@contextlib.contextmanager
def _short_wait() -> Iterator[None]:
    """A context in which a run that is over waits for its prediction no longer than ``PREDICTION_S``."""
    from labkit.runs import runner

    usual_s, runner.WAIT_S = runner.WAIT_S, PREDICTION_S
    try:
        yield
    finally:
        runner.WAIT_S = usual_s


def _end_compilers() -> None:
    """Those of a run that was stopped: ninja gives them a process group of their own."""
    for pid, line in marked(os.environ.get(MARK, "")):
        if re.search(r"ninja|c\+\+|cc1plus", line):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _method(dry: bool, experiment: str, values: dict[str, Any], timeout_s: float = RUN_S) -> Seen:
    if dry and values.get("optim") == "paged_adam_8bit":
        raise Skipped("a CPU has no paged memory", "Without --dry it runs.")
    config = resolve(Workspace.find(), experiment, small_values(dry, values), "tiny").config
    if absent := gpu_check.missing(gpu_check.needs(config)):
        raise missing(absent)
    found = ended_ok(small_run(dry, experiment, values, timeout_s=timeout_s))
    beside = f", {human_bytes(found['predicted_bytes'])} predicted" if found["predicted_bytes"] else ""
    return f"losses {losses_words(found['losses'])}, peak {human_bytes(found['peak_bytes'])}{beside}", found


# -- 8: resume

SAVED = {
    "num_train_samples": 128, "batch_size": 8, "accumulate_grad_batches": 1, "max_steps": None, "max_epochs": 2,
    "dropout": 0.1, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 2,
}  # fmt: skip
"""32 optimizer steps, each of them saved: enough to be killed among them."""


def resume(probes: Probes) -> None:
    """One run in one piece; one that is killed after its second step, and the same command again."""
    whole = probes.probe("in one piece", _whole, probes.dry)
    killed = probes.probe("killed", _killed, probes.dry)
    if whole is not None and killed is not None:
        probes.probe("resumed", _resumed, probes.dry, whole["losses"])


def _whole(dry: bool) -> Seen:
    found = ended_ok(small_run(dry, "reduced_batch", SAVED))
    return f"{len(found['losses'])} steps, losses {losses_words(found['losses'])}", found


def training_processes(folder: str) -> list[int]:
    """Ids of the processes that train the run in ``folder``."""
    return processes_of(Path(folder), "labkit.train.fit")


def command_lines() -> list[tuple[int, str]]:
    """Id and command line of every process that can be seen."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append((int(entry.name), line))
    return found


def _killed(dry: bool) -> Seen:
    folder = [""]

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "created":
            folder[0] = event["folder"]
        elif event["event"] == "progress" and event["step"] >= 2:  # told before it is saved; the first is by then
            for pid in training_processes(folder[0]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    record = small_run(dry, "reduced_batch", SAVED, watch)
    numbers = {"status": record.status, "reason": record.reason, "losses": record.losses}
    if record.status == "ok":
        raise Skipped("the run was over before it could be killed", "Again alone: --only resume")
    if record.status != "killed":
        raise Wrong(f"a killed run ended {record.status}: {record.reason}", numbers)
    return f"{record.reason}", numbers


def _resumed(dry: bool, whole: list[float]) -> Seen:
    record = small_run(dry, "reduced_batch", SAVED, fresh=False)
    found = ended_ok(record)
    if not record.attempts:
        raise Wrong("the same command has started another run, and did not resume", found)
    words, numbers = compared_losses(record.losses, whole, LOSS_LIMITS["32-true"])
    return f"from step {record.attempts[-1].resumed_at_step}, {words}", found | numbers


# -- 9: rows

ROWS = (gpu_check.PRETRAINED, "reduced_batch", "bf16_mixed", "bf16_true")
"""The cheapest by gpu_check's estimate, all of the smallest model and expected to fit: its three precisions."""
KNOWS = 3.0
"""A loss below this is one of weights that were loaded: 0.8 on the simulated GPU (measured), where random ones start
near ln(1000), 6.9."""


def rows(probes: Probes) -> None:
    """gpu_check itself, and what it wrote about each row."""
    profile = "tiny" if probes.dry else fitting_profile(_total_in_child())
    if profile is None:
        probes.probe("gpu_check", _no_profile)
        return
    code = probes.probe("gpu_check", _gpu_check, profile, probes.out, probes.left_s - 5)
    for name in ROWS:
        probes.probe(f"{profile}, {name}", _row, profile, name, probes.out, code)


def _total_in_child() -> int:
    facts = gpu_check.in_child(gpu_check.cuda_facts)
    return facts["total_bytes"] if facts else 0


def _no_profile() -> Seen:
    raise Skipped("no profile of the course fits this GPU", "'labkit profiles --help' says how one is made.")


def _gpu_check(profile: str, out: Path, budget_s: float) -> Seen:
    need_libraries()
    code = gpu_check.main([
        "--profile", profile, "--only", *ROWS, "--out", str(out), "--budget-s", f"{max(1.0, budget_s):.0f}", "--again"
    ])  # fmt: skip
    return f"ended with {code}; gpu_check-{profile}.md has the rows", {"code": code}


def _row(profile: str, name: str, out: Path, code: dict[str, Any] | None) -> Seen:
    if code is None:
        raise Skipped("gpu_check did not end")
    data = json.loads((out / f"gpu_check-{profile}.json").read_text(encoding="utf-8"))
    newest = list(data["setups"])[-1]
    row = next((r for r in data["rows"].values() if r["experiment"] == name and r["setup"] == newest), None)
    if row is None or row["state"] in ("not run", "skipped"):
        raise Skipped(row["reason"] if row else "not run", "gpu_check.py continues with the rows that are left.")
    if row["state"] == "failed":
        raise Wrong(row["reason"], {"log": row.get("log")})
    numbers = {key: row[key] for key in ("peak", "reserved", "worst", "agrees", "disagreements", "samples_per_s")}
    worst = gpu_check.worst_words(row["worst"])
    if name == gpu_check.PRETRAINED and row["measured"]["losses"][0] > KNOWS:
        raise Wrong(f"its first loss is {row['measured']['losses'][0]:.2f}, one of random weights", numbers)
    if not row["agrees"]:
        raise Wrong("; ".join(row["disagreements"]), numbers)
    return f"agrees, worst {worst}", numbers


# -- 10: left

LEFT_BYTES = 64 * MIB
"""By which the driver's count at the end may be above that of the beginning: its own bookkeeping."""


def left(probes: Probes) -> None:
    """What the driver has given out now against the beginning, and what was still running after a check."""
    begun = numbers_of(probes.before, "driver", "facts").get("setup", {}).get("machine", {})
    probes.probe("memory", _memory_left, probes.dry, begun, stand_in=True)
    probes.probe("processes", _processes_left, probes.before)


def _memory_left(dry: bool, begun: dict[str, Any]) -> Seen:
    facts = dict(FACTS_SAMPLE) if dry else gpu_check.in_child(gpu_check.cuda_facts)
    if facts is None:
        raise Wrong("torch.cuda.is_available() is False now")
    keys = ("used_by_others_bytes", "used_with_context_bytes")  # nvidia-smi's count, and torch's
    numbers = {f"{when}_{key}": found.get(key) for key in keys for when, found in (("begun", begun), ("ended", facts))}
    told = [
        f"{human_bytes(facts[key])} now, {human_bytes(begun[key])} at the beginning" for key in keys
        if facts.get(key) is not None and begun.get(key) is not None
    ]  # fmt: skip
    if not told:
        raise Skipped("nothing was measured at the beginning", "Again with the beginning: --only driver left")
    for key in keys:
        if None not in (facts.get(key), begun.get(key)) and facts[key] - begun[key] > LEFT_BYTES:
            raise Wrong("; ".join(told), numbers)
    return "; ".join(told), numbers


def _processes_left(before: dict[str, dict[str, Any]]) -> Seen:
    found = {name: check["left_behind"] for name, check in before.items() if check.get("left_behind")}
    if found:
        words = "; ".join(f"{name}: {', '.join(lines)}" for name, lines in found.items())
        raise Wrong(f"had to be killed after their check: {words}", {"left_behind": found})
    return "none was left after its check", {}


# -- carrying out


class Report:
    """What was found so far; on disk as JSON and page after each check."""

    def __init__(self, out: Path, checks: Iterable[Check], dry: bool, budget_s: float) -> None:
        self.json, self.page = out / "first_contact.json", out / "first_contact.md"
        self.data: dict[str, Any] = {
            "dry": dry, "begun": datetime.now(UTC).isoformat(timespec="seconds"), "budget_s": budget_s, "seconds": 0.0,
            "setup": None, "checks": [
                {"name": c.name, "title": c.title, "result": NOT_REACHED, "seconds": None, "found": "", "to_do": "",
                 "means": c.means, "labs": c.labs, "probes": [], "log": [], "left_behind": []} for c in checks
            ],
        }  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)

    def of(self, check: Check) -> dict[str, Any]:
        """The entry of one check."""
        return next(entry for entry in self.data["checks"] if entry["name"] == check.name)

    def save(self, seconds: float) -> None:
        """Write both files, each whole or not at all."""
        self.data["seconds"] = round(seconds, 1)
        facts = next((p for e in self.data["checks"] for p in e["probes"] if "setup" in p["numbers"]), None)
        self.data["setup"] = facts["numbers"]["setup"] if facts else None
        write_whole(self.json, self.data)
        partial = self.page.with_suffix(".partial")
        partial.write_text(page(self.data), encoding="utf-8")
        partial.replace(self.page)


def conduct(
    checks: Iterable[Check], out: Path, dry: bool, budget_s: float, begun: float | None = None
) -> dict[str, Any]:
    """Carry out the checks one after the other; what was found, which is on disk too.

    Whatever happens to one, the next follows. Ctrl-C and SIGTERM end what is running and are raised again as
    ``KeyboardInterrupt``.
    """
    begun = time.monotonic() if begun is None else begun
    checks = list(checks)
    report = Report(out, checks, dry, budget_s)

    def passed_s() -> float:
        return time.monotonic() - begun

    report.save(passed_s())
    with tempfile.TemporaryDirectory(prefix="first_contact-") as scratch:
        for check in checks:
            entry = report.of(check)
            if any(map(_is_in_the_way, report.data["checks"])):
                entry |= {"result": SKIPPED, "found": f"{DRIVER} is red", "to_do": DRIVER_FIRST}
                report.save(passed_s())
                print(f"{check.name}: {SKIPPED}, {entry['found']}", flush=True)
                continue
            left_s = budget_s - passed_s() - (0 if check is checks[-1] else RESERVED_S)
            if left_s < LEAST_S:
                entry |= {"found": f"{max(0.0, left_s):.0f} s of {budget_s:g} s were left", "to_do": _alone(check)}
                report.save(passed_s())
                print(f"{check.name}: {NOT_REACHED}", flush=True)
                continue
            entry |= {"result": RUNNING}
            report.save(passed_s())
            print(f"{check.name} …", flush=True)
            started = time.monotonic()
            try:
                _carry_out(check, entry, report, dry, min(check.limit_s, left_s), Path(scratch))
            finally:
                entry["seconds"] = round(time.monotonic() - started, 1)
                if entry["result"] == RUNNING:
                    entry |= {"result": NOT_REACHED, "found": "interrupted", "to_do": _alone(check)}
                report.save(passed_s())
            print(f"{check.name}: {entry['result']}, {entry['seconds']:.0f} s, {entry['found']}", flush=True)
    return report.data


def _is_in_the_way(entry: dict[str, Any]) -> bool:
    """Whether this is a red driver with which torch cannot compute; without ``nvidia-smi`` alone it can."""
    red = entry["name"] == DRIVER and entry["result"] in (FAILED, TIMEOUT)
    return red and not any(probe["name"] == STARTS and probe["result"] == OK for probe in entry["probes"])


def _alone(check: Check) -> str:
    return f"Again alone: --only {check.name}"


def _carry_out(
    check: Check, entry: dict[str, Any], report: Report, dry: bool, limit_s: float, scratch: Path
) -> None:  # fmt: skip
    found, log, out = scratch / f"{check.name}.json", scratch / f"{check.name}.log", report.json.parent
    mark = uuid.uuid4().hex
    env = os.environ | {MARK: mark, "LABKIT_RUNS": str(scratch / "runs"), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable, __file__, "--child", check.work, "--found", str(found), "--out", str(out.absolute()),
        "--ends", f"{time.monotonic() + limit_s:.1f}", *(["--dry"] if dry else []),
    ]  # fmt: skip
    process = code = None
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(limit_s)
        finally:
            shortened = functools.partial(shorten, places=places_of(out, scratch))
            entry["left_behind"] = shortened(end_marked(mark, wait=code is not None))
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps a killed process
                    process.wait(GRACE_S)
            # messages are other programs', and may hold what should not be shown
            entry |= shortened(redact(_read_found(found)))
            text = shortened(redact(log.read_text(encoding="utf-8", errors="replace")))
            entry["log"] = text.splitlines()[-LOG_LINES:]
    stopped = entry["running"]
    entry["running"] = stopped and stopped["name"]
    if stopped and code is None:
        seconds = round(time.monotonic() - stopped.pop("begun"), 3)
        entry["probes"].append(stopped | {"result": TIMEOUT, "found": "stopped with its check", "seconds": seconds})
    entry |= _judge(check, entry, code, limit_s)


def places_of(out: Path, scratch: Path) -> dict[str, str]:
    """Folders of this machine that messages name, and what is written in place of each."""
    named = [(Path(tempfile.gettempdir()), "<tmp>"), (scratch, "<scratch>")]
    with contextlib.suppress(RuntimeError):  # a user without one
        named.append((Path.home(), "~"))
    named.append((Path(__file__).parents[2], "<checkout>"))
    with contextlib.suppress(ConfigError):
        named.append((Workspace.find().root, "<workspace>"))
    named.append((Path(sys.prefix), "<environment>"))
    named += [(Path(sysconfig.get_path(key)), "<site-packages>") for key in ("platlib", "purelib")]
    # a home that is / has no name to be found by
    found = {str(path): name for folder, name in named for path in (folder.absolute(), folder.resolve())
             if len(path.parts) > 1}  # fmt: skip
    own = str(out.absolute())
    return found if shorten(own, found) != own else found | {own: "<out>"}


def shorten(data: Any, places: dict[str, str]) -> Any:
    """Text, or lists and dictionaries of it, without the folders of this machine."""
    if isinstance(data, str):
        folders = sorted(places, key=len, reverse=True)
        wanted = rf"(?<![\w.-])({'|'.join(map(re.escape, folders))})(?![\w-]|\.\w)"
        return re.sub(wanted, lambda found: places[found[0]], data)
    if isinstance(data, list):
        return [shorten(part, places) for part in data]
    if isinstance(data, dict):
        return {shorten(key, places): shorten(value, places) for key, value in data.items()}
    return data


def end_marked(mark: str, wait: bool) -> list[str]:
    """End all that a check has started; the command lines of what did not end by itself after a check that did."""
    deadline = time.monotonic() + (GRACE_S if wait else 0)
    while (alive := marked(mark)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    left_behind = [cut(line, LINE_LETTERS) for _, line in alive] if wait else []
    deadline = time.monotonic() + GRACE_S
    while alive and time.monotonic() < deadline:
        for pid, _ in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
        alive = marked(mark)  # one of them may have started another meanwhile
    return left_behind


def marked(mark: str) -> list[tuple[int, str]]:
    """Id and command line of the processes of one check."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid, line in command_lines():
        with contextlib.suppress(OSError):  # of other users, or gone by now; one that has ended has no environment
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append((pid, line))
    return found


def _read_found(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it died before its first probe
        return {"running": None, "probes": []}


def _judge(check: Check, entry: dict[str, Any], code: int | None, limit_s: float) -> dict[str, Any]:
    """Result, what was found in a line, and what to do."""
    probes, where = entry["probes"], f" in '{entry['running']}'" if entry["running"] else ""
    bad = [probe for probe in probes if probe["result"] == FAILED]
    good = [probe for probe in probes if probe["result"] == OK]
    counted = f"{len(good)} of {len(probes)} probes ok"
    if code is None:
        over = "" if limit_s >= check.limit_s else ", when the budget was over"
        advice = next((probe["to_do"] for probe in probes if probe["result"] == TIMEOUT), "")
        return {"result": TIMEOUT, "found": f"stopped after {limit_s:.0f} s{over}{where}; {counted}",
                "to_do": f"{advice} Then again alone: --only {check.name}" if advice
                else f"{_alone(check)}. {check.to_do}"}  # fmt: skip
    if code:
        died = f"exit code {code}: {cut((entry['log'] or ['no output'])[-1])}" if code > 0 else killed_words(-code)
        return {"result": FAILED, "found": f"{died}{where}; {counted}", "to_do": check.to_do}
    if bad:
        told = one_of_each(bad)
        few = told if check.name == DRIVER else told[:1]  # each of the driver's is a cause of its own
        more = f", and {len(told) - 1} more" if told[len(few) :] else ""
        return {"result": FAILED, "found": f"{'; '.join(few)}{more}; {counted}", "to_do": check.to_do}
    skipped = [probe for probe in probes if probe["result"] == SKIPPED]
    told = f"; skipped: {'; '.join(one_of_each(skipped))}" if skipped else ""
    last = f"{good[-1]['name']}: {good[-1]['found']}; " if good else ""
    return {"result": OK if good else SKIPPED, "found": f"{last}{counted}{told}", "to_do": _advice(skipped)}


def _advice(skipped: list[dict[str, Any]]) -> str:
    """What to do about probes that were skipped, each advice once."""
    without = [probe["name"] for probe in skipped if not probe["to_do"]]
    advice = list(dict.fromkeys(probe["to_do"] for probe in skipped if probe["to_do"]))
    return " ".join([*advice, *([f"Continue without {listed(without)}, or see to what it needs."] if without else [])])


def killed_words(number: int) -> str:
    """How a signal ended a check."""
    name = signal.Signals(number).name
    return f"killed by {name}" + (", which the kernel sends when host memory runs out" if name == "SIGKILL" else "")


# -- the page


def page(data: dict[str, Any]) -> str:
    """All that was found, for an instructor: the machine, one table, then what is red and all probes."""
    setup, checks = data["setup"], data["checks"]
    dry = [f"**{SIMULATED}. Nothing here was measured on a GPU: tensors on the CPU, runs on the simulated GPU.**"]
    parts = ["# First contact with a GPU", *(dry if data["dry"] else []), _machine_words(data, setup), _verdict(checks)]
    cells = [
        [str(number), entry["name"], entry["title"], entry["result"],
         "-" if entry["seconds"] is None else f"{entry['seconds']:.0f}", entry["found"], _to_do_words(entry)]
        for number, entry in enumerate(checks, 1)
    ]  # fmt: skip
    parts.append(table(("#", "name", "check", "result", "s", "found", "what to do"), cells))
    red = [entry for entry in checks if entry["result"] in (FAILED, TIMEOUT)]
    for entry in red:
        parts += [f"## Red: {entry['title']}", f"{entry['means']}\n\nLabs: {_labs(entry)}.\n\n{entry['to_do']}"]
        if entry["log"]:
            parts.append("\n".join(f"    {line}" for line in entry["log"]))
    for entry in checks:
        if entry["probes"]:
            rows_ = [[p["name"], p["result"], f"{p['seconds']:.2f}", p["found"], p["place"]] for p in entry["probes"]]
            parts += [f"## {entry['title']}: probes", table(("probe", "result", "s", "found", "where"), rows_)]
    return "\n\n".join(parts) + "\n"


def _to_do_words(entry: dict[str, Any]) -> str:
    labs = f"Labs: {entry['labs']}." if entry["result"] == SKIPPED else ""
    return " ".join(filter(None, (entry["to_do"], labs))) or "-"


def _labs(entry: dict[str, Any]) -> str:
    """Those that what is red touches, where that is known of each; else the check's."""
    red = [probe["labs"] for probe in entry["probes"] if probe["result"] in (FAILED, TIMEOUT)]
    return "; ".join(dict.fromkeys(red)) if red and all(red) else entry["labs"]


def _why_unknown(checks: list[dict[str, Any]]) -> str:
    result = next((entry["result"] for entry in checks if entry["name"] == DRIVER), None)
    return {
        None: f"`{DRIVER}` was not among these checks", FAILED: f"`{DRIVER}` failed",
        TIMEOUT: f"`{DRIVER}` was stopped at its limit", OK: f"`{DRIVER}` has not named it",
        SKIPPED: f"`{DRIVER}` was skipped",
    }.get(result, "the first check has not come to it")  # fmt: skip


def _machine_words(data: dict[str, Any], setup: dict[str, Any] | None) -> str:
    spent = f"Begun {data['begun']}, {data['seconds']:.0f} s of {data['budget_s']:g} s."
    if setup is None:
        return f"The GPU is not known: {_why_unknown(data['checks'])}. {spent}"
    machine, labkit = setup["machine"], setup["labkit"]
    found = ", ".join(f"{name} {number or 'missing'}" for name, number in setup["versions"].items())
    simulated = f" ({SIMULATED})" if data["dry"] else ""
    return (
        f"{machine['gpu']}{simulated}, driver {machine['driver']}, CUDA {machine.get('cuda')}, cuDNN "
        f"{machine.get('cudnn')}, compute capability {machine.get('capability')}, "
        f"{human_bytes(machine['total_bytes'])}. {found}. labkit {labkit['commit'] or 'without git'} (text "
        f"{labkit['text']}). {spent}"
    )


def _verdict(checks: list[dict[str, Any]]) -> str:
    by_result = {
        result: [entry["name"] for entry in checks if entry["result"] == result]
        for result in (OK, FAILED, TIMEOUT, SKIPPED, NOT_REACHED, RUNNING)
    }
    return "; ".join(f"{result}: {', '.join(names)}" for result, names in by_result.items() if names) + "."


def table(columns: Iterable[str], cells: list[list[str]]) -> str:
    """A Markdown table; what would end a cell is replaced."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(' '.join(c.replace('|', '/').split()) for c in line)} |" for line in lines)


def passed(data: dict[str, Any]) -> bool:
    """Whether something is ok and nothing is red."""
    results = {entry["result"] for entry in data["checks"]}
    return OK in results and not results & {FAILED, TIMEOUT}


# -- the command


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of JSON and page (default: the workspace's results)")
    parser.add_argument("--dry", action="store_true", help="without a GPU: the simulated GPU, and stand-ins")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, metavar="S", help="seconds (default: %(default)g)")
    parser.add_argument(
        "--only", nargs="+", metavar="CHECK", choices=[check.name for check in CHECKS], help="these checks alone"
    )
    for hidden, kind in (("--child", str), ("--found", Path), ("--ends", float)):  # how a check's process is started
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Carry out the checks, and return the exit code."""
    begun = time.monotonic()
    args = parse(argv)
    if args.child:
        importlib.import_module("first_contact").child(args)  # whose exceptions are those of the checks; not __main__'s
        return 0

    def told(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, told)  # a queue that ends the job
    try:
        out = args.out or Workspace.find().root / "results"
        checks = [check for check in CHECKS if not args.only or check.name in args.only]
        data = conduct(checks, out, args.dry, args.budget_s, begun)
    except (ConfigError, LedgerError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; what was found until now is in first_contact.md.")
    print(f"{_verdict(data['checks'])} {out / 'first_contact.md'}")
    return 0 if passed(data) else 1


if __name__ == "__main__":
    sys.exit(main())
