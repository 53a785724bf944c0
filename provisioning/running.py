"""The lab that runs on a node: what is in it, and whether it may be stopped."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from provisioning import times
from provisioning.booking import Booking
from provisioning.errors import LabRunsError, RemoteError
from provisioning.ssh import Ssh

CONTAINER = "labkit"
EVERYWHERE = "0.0.0.0"
LOOPBACK = "127.0.0.1"
STOP_S = 120.0
SAID = 4
"""Kernels and programs that a message names at most."""


class Choice(Enum):
    """What to do with the lab that runs."""

    FREE = "nothing has to be stopped"
    STOP = "the owner said so"
    KEEP = "it keeps running as it is"


@dataclass(frozen=True)
class Kernel:
    """A notebook's kernel, or a console's."""

    path: str
    state: str
    """``busy``, ``idle``, or what else Jupyter says."""
    last_activity: datetime

    def __str__(self) -> str:
        return f"{self.path} {self.state}, last active {times.length(times.now() - self.last_activity)} ago"


@dataclass(frozen=True)
class Running:
    """What runs in the container of a node."""

    image: str
    bind: str
    started: datetime
    kernels: tuple[Kernel, ...] | None
    """None where Jupyter does not tell."""
    terminals: int | None
    processes: tuple[tuple[timedelta, str], ...]
    """Programs other than the server, its kernels and terminals, with how long they have run."""
    gpu_mib: int | None
    """GPU memory in use; None where no GPU answers."""

    @property
    def busy(self) -> bool:
        """Whether something computes, as far as is known."""
        return bool(self.processes or self.gpu_mib) or any(kernel.state == "busy" for kernel in self.kernels or ())

    def __str__(self) -> str:
        parts = [f"{self.image} since {times.length(times.now() - self.started)}"]
        if self.kernels is None:
            parts.append("kernels unknown")
        else:
            parts.append(f"{len(self.kernels)} kernels{_some([str(kernel) for kernel in self.kernels])}")
        if self.terminals:
            parts.append(f"{self.terminals} terminals")
        if self.processes:
            shown = [f"{command[:60]} for {times.length(took)}" for took, command in self.processes]
            parts.append(f"{len(self.processes)} programs{_some(shown)}")
        if self.gpu_mib:
            parts.append(f"{self.gpu_mib} MiB of GPU memory in use")
        return ", ".join(parts)


def ask(way: Ssh) -> Running | None:
    """What runs on the node, or None. ``RemoteError`` when its answer cannot be read."""
    return read(way.run("running", CONTAINER))


def stop(way: Ssh) -> None:
    """Stop the lab: from then on nothing is written."""
    way.run("lab", "stop", CONTAINER, bound_s=STOP_S)


def resume(way: Ssh) -> None:
    """Start the lab again that was stopped."""
    way.run("lab", "start", CONTAINER, bound_s=STOP_S)


def read(text: str) -> Running | None:
    """What ``remote/running.py`` printed."""
    try:
        raw = json.loads(text)
        if raw is None:
            return None
        image, bind, _ = raw["label"].split()
        kernels = raw["kernels"]
        return Running(
            _line(image), _line(bind), _moment(raw["started"]),
            None if kernels is None else tuple(
                Kernel(_line(kernel["path"]), _line(kernel["state"]), _moment(kernel["last_activity"]))
                for kernel in kernels
            ),
            None if raw["terminals"] is None else int(raw["terminals"]),
            tuple((timedelta(seconds=int(took_s)), _line(command)) for took_s, command in raw["processes"]),
            None if raw["gpu_mib"] is None else int(raw["gpu_mib"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise RemoteError(f"what runs on the node cannot be read ({reason}). Run this step again.") from None


def choose(
    booking: Booking, there: Running | None, image: str, open_port: bool, restart: bool = False,
    may_stop: Callable[[str], bool] | None = None,
) -> Choice:  # fmt: skip
    """What to do with the lab that is ``there`` when ``image`` is wanted, on the open port or on the loopback.

    It keeps running unless ``restart`` is set, or ``may_stop``, asked with what would be stopped, says yes. Raises
    ``LabRunsError`` when it would have to be stopped: a lab on the loopback cannot be opened.
    """
    must = there is not None and open_port and there.bind != EVERYWHERE
    if there is None or not (must or there.image != image):
        return Choice.FREE
    why = f"--open binds another address than {there.bind}" if must else f"the project has changed, to {image}"
    if restart or (may_stop is not None and may_stop(f"{booking.name}: {why}. This would stop {there}. Stop it?")):
        booking.say(f"jupyter: will be stopped: {there}")
        return Choice.STOP
    if must:
        raise LabRunsError(
            f"{booking.name}: {why}, which would stop {there}. Save your work and run it with --restart "
            "(restart=True), or leave --open out."
        )
    booking.say(f"jupyter: keeps running as it is: {there}. {why.capitalize()}; --restart (restart=True) starts that.")
    return Choice.KEEP


def _some(items: list[str]) -> str:
    more = f"; and {len(items) - SAID} more" if len(items) > SAID else ""
    return f" ({'; '.join(items[:SAID])}{more})" if items else ""


def _moment(text: str) -> datetime:
    """Docker gives nanoseconds, which Python does not read."""
    whole, _, rest = text.partition(".")
    return datetime.fromisoformat(f"{whole}+00:00" if rest else text)


def _line(text: str) -> str:
    """In one line that a terminal can show: students choose the names of notebooks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
