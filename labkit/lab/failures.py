"""Failures on purpose: a run whose process is killed, as the kernel does when host memory runs out."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.runs.processes import processes_of

OnEvent = Callable[[dict[str, Any]], None]


def killing(on_event: OnEvent) -> OnEvent:
    """Pass events on, and kill the run's training process with signal 9 once it trains.

    The signal is the one that Linux sends when host memory runs out, and no process can catch it.
    """
    folder = ""

    def take(event: dict[str, Any]) -> None:
        nonlocal folder
        on_event(event)
        if event["event"] in ("created", "resumed"):
            folder = event["folder"]
        if event["event"] == "start":
            for pid in processes_of(Path(folder), "labkit.train.fit"):
                os.kill(pid, signal.SIGKILL)

    return take
