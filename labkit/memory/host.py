"""Host memory: what the kernel counts, to distinguish a kill for lack of memory from another kill."""

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")

CGROUP_FOLDERS = ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/memory")
"""Where version 2, version 2 beside version 1, and version 1 have the counters of memory."""


@dataclass(frozen=True, kw_only=True)
class OomKills:
    """Processes that the kernel has killed for lack of memory between two readings; None where it does not say.

    ``group`` counts those of this process's control group (a container's, a Slurm job's), ``machine`` all of them.
    """

    group: int | None
    machine: int | None


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Memory of the host as a process sees it, at one moment. Bytes; None for what cannot be read.

        before = HostMemory.read()
        ...  # the run
        diagnose(record, log, before.kills_until(HostMemory.read()))

    ``available_bytes`` is what a new process can have without swap; ``limit_bytes`` the control group's own limit, and
    ``limit_free_bytes`` what is left of it.
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    limit_bytes: int | None = None
    limit_free_bytes: int | None = None
    group_kills: int | None = None
    machine_kills: int | None = None

    @classmethod
    def read(cls, root: Path = _ROOT) -> "HostMemory":
        """Read ``/proc`` and ``/sys`` below ``root``. Never raises; takes about a millisecond."""
        memory = _table(root / "proc/meminfo")
        in_kib = {key: value * 1024 for key, value in memory.items()}
        limit, used, kills = _group(root)
        if limit is not None and limit >= in_kib.get("MemTotal", limit + 1):
            limit = None  # version 1 writes a number near 2**63 for no limit
        return cls(
            total_bytes=in_kib.get("MemTotal"), available_bytes=in_kib.get("MemAvailable"),
            swap_total_bytes=in_kib.get("SwapTotal"), swap_free_bytes=in_kib.get("SwapFree"),
            limit_bytes=limit, limit_free_bytes=None if limit is None or used is None else max(0, limit - used),
            group_kills=kills, machine_kills=_table(root / "proc/vmstat").get("oom_kill"),
        )  # fmt: skip

    def kills_until(self, later: "HostMemory") -> OomKills:
        """What the kernel has killed from this reading to a ``later`` one."""

        def risen(before: int | None, after: int | None) -> int | None:
            return None if before is None or after is None else max(0, after - before)

        return OomKills(
            group=risen(self.group_kills, later.group_kills), machine=risen(self.machine_kills, later.machine_kills)
        )


def _group(root: Path) -> tuple[int | None, int | None, int | None]:
    """Limit, use and kills of this process's control group; of the nearest above it that has the files."""
    text = _text(root / "proc/self/cgroup")
    paths = {controllers: path for _, controllers, path in re.findall(r"^(\d+):([^:]*):(.*)$", text, re.MULTILINE)}
    named = [path for controllers, path in paths.items() if controllers == "" or "memory" in controllers.split(",")]
    for folder in CGROUP_FOLDERS:
        for path in [*named, "/"]:  # in a container the path is often the host's, and its own files lie at the top
            place = root / folder / path.lstrip("/")
            counters = _table(place / "memory.events") or _table(place / "memory.oom_control")
            if "oom_kill" in counters:
                limits = [_number(place / name) for name in ("memory.max", "memory.limit_in_bytes")]
                used = [_number(place / name) for name in ("memory.current", "memory.usage_in_bytes")]
                return _first(limits), _first(used), counters["oom_kill"]
    return None, None, None


def _first(numbers: list[int | None]) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _table(path: Path) -> dict[str, int]:
    """``name number`` or ``name: number kB`` on each line."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):?\s+(\d+)\b", _text(path), re.MULTILINE)}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
