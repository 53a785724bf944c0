"""Whether anybody uses a node, asked on the node itself."""

import json
from dataclasses import dataclass
from datetime import timedelta

from provisioning import access, times
from provisioning.booking import Booking
from provisioning.errors import RemoteError


@dataclass(frozen=True)
class Activity:
    """How busy a node is."""

    running: bool
    """Whether Jupyter runs."""
    busy: bool = False
    """Whether a kernel computes, processes use the CPU, or a GPU is in use."""
    quiet: timedelta = timedelta(0)
    """Time since a kernel or a terminal last said something, or Jupyter started."""
    detail: str = ""
    stopped_by_guard: str = ""
    """When the idle guard stopped Jupyter, in ISO; empty when it did not."""

    @property
    def idle(self) -> timedelta:
        """How long nothing has been busy; none while something is."""
        return timedelta(0) if self.busy else self.quiet

    def __str__(self) -> str:
        if not self.running:
            return f"Jupyter was stopped by the idle guard at {self.stopped_by_guard}" if self.stopped_by_guard else (
                "Jupyter does not run"
            )  # fmt: skip
        return f"busy: {self.detail}" if self.busy else f"idle for {times.length(self.quiet)}: {self.detail}"


def ask(booking: Booking) -> Activity:
    """How busy the node is now. Raises ``SshError`` or ``RemoteError`` when it cannot be asked."""
    printed = access.way_in(booking).run("activity").strip()
    try:
        told = json.loads(printed.splitlines()[-1])
        if not told["running"]:
            return Activity(False, stopped_by_guard=told["stopped_by_guard"])
        detail = (
            f"{told['busy_kernels']} of {told['kernels']} kernels busy, CPU {told['cpu_percent']:.0f}%, "
            f"GPU {told['gpu_percent']:.0f}%"
        )
        return Activity(True, told["busy"], timedelta(seconds=told["quiet_s"]), detail)
    except (ValueError, KeyError, TypeError, IndexError):
        raise RemoteError(f"activity of {booking.name} did not say how busy it is. Run this again.") from None
