"""Silent end: how a process ended that wrote no result, by its exit code and the last that it printed."""

import signal
from collections.abc import Callable

from labkit.memory.exhaustion import ends_exhausted


def silent_end(code: int, printed: Callable[[], str]) -> tuple[str, str]:
    """Status and reason; ``killed`` for a code below zero, which is a signal. ``printed`` is asked for other codes."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the kernel sends it when host memory runs out" if name == "SIGKILL" else ""
        return "killed", f"killed by signal {-code} ({name}){hint}"
    text = printed()
    lines = text.strip().splitlines()
    status = "oom" if ends_exhausted(text) else "failed"
    return status, f"ended with exit code {code}: {lines[-1] if lines else 'no output'}"
