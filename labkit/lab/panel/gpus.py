"""GPUs: what ``nvidia-smi`` says of each of them, whatever uses it."""

import asyncio
import contextlib
import shutil
import time
from typing import Any

QUERY = "index,name,utilization.gpu,memory.used,memory.total"
KEPT_S = 1.0
"""All panels that look within this time see one answer."""

TIMEOUT_S = 10.0


class Gpus:
    """What each GPU of this machine is busy with. Empty where there is no ``nvidia-smi``, or it does not answer."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def look(self) -> list[dict[str, Any]]:
        """One entry a GPU: ``index, name, busy_percent, used_mib, total_mib``; numbers are None where it has none."""
        async with self._asking:
            if time.monotonic() > self._until:
                self._seen = await _ask()
                self._until = time.monotonic() + (KEPT_S if self._seen else 60.0)
        return self._seen


async def _ask() -> list[dict[str, Any]]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    process = await asyncio.create_subprocess_exec(
        command, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:  # a GPU that hangs makes it hang
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return []
    return [row for line in said.decode(errors="replace").splitlines() if (row := _row(line))]


def _row(line: str) -> dict[str, Any] | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(QUERY.split(",")):
        return None
    index, name, *numbers = parts
    busy, used, total = (float(n) if n.isascii() and n.replace(".", "", 1).isdigit() else None for n in numbers)
    return {"index": index, "name": name, "busy_percent": busy, "used_mib": used, "total_mib": total}
