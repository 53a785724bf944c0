"""The NVIDIA driver of a node: new enough for torch's CUDA, or upgraded with one reboot."""

import contextlib
from dataclasses import dataclass

from provisioning import access, addresses, servers
from provisioning.booking import Booking
from provisioning.errors import DriverError, LabRunsError, ProvisioningError, RemoteError, SshError
from provisioning.ssh import Ssh

CUDA_MAJOR = 13
"""Of the torch that requirements.txt pins: its build on PyPI is made for CUDA 13.0."""
MIN_DRIVER = {12: 525, 13: 580}
"""The oldest branch of the NVIDIA driver that runs programs of a CUDA major version."""
OLDEST = MIN_DRIVER[CUDA_MAJOR]
READ_S, UPGRADE_S, ASK_S = 120.0, 2400.0, 300.0
BUSY = "busy "
"""How the answer of reboot.sh begins when it did not reboot, since a container runs."""
MINUTES = {True: 10, False: 25}
"""What an upgrade and its reboot take, by whether it is a virtual machine: an estimate, none was measured yet."""


@dataclass(frozen=True)
class Driver:
    """What the node says of its driver."""

    running: str
    """The version that runs, empty when none does."""
    on_disk: str
    """The version whose module the next boot loads, empty when there is none."""
    boot: str
    rebooted: tuple[str, ...]
    """(version, boot) of the last reboot for a driver: for which version, and in which boot it was asked for."""
    said: str
    """What nvidia-smi said when it failed."""

    @property
    def is_good(self) -> bool:
        """Whether programs of torch's CUDA run."""
        return _branch(self.running) >= OLDEST

    @property
    def waits_for_boot(self) -> bool:
        """Whether all that is missing is a reboot."""
        return not self.is_good and _branch(self.on_disk) >= OLDEST

    @property
    def failed_to_load(self) -> bool:
        """Whether the node has rebooted and still does not run the driver that is on its disk."""
        return self.waits_for_boot and self.rebooted[:1] == (self.on_disk,) and self.rebooted[1:] != (self.boot,)

    def __str__(self) -> str:
        return f"driver {self.running}" if self.running else f"no driver ({self.said})"


def _branch(version: str) -> int:
    """580 of 580.95.05; 0 for text that is not a version."""
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def read(way: Ssh) -> Driver:
    """What the node says; changes nothing."""
    lines = way.run("driver", bound_s=READ_S).split("\n")
    running, on_disk, boot, rebooted, said = lines[:5]
    return Driver(running.strip(), on_disk.strip(), boot.strip(), tuple(rebooted.split()), said.strip())


def ensure(booking: Booking, restart: bool = False) -> Driver:
    """A driver that runs torch's CUDA: upgraded and the node rebooted, once, where that is missing.

    If it was stopped and is run again, it does what is left. Raises ``LabRunsError`` rather than reboot while a
    container runs, unless told to ``restart``, and ``DriverError`` when the driver is no good after the reboot.
    """
    way = access.way_in(booking)
    found = read(way)
    if not found.is_good and not found.waits_for_boot:
        booking.say(f"driver: {found}, and CUDA {CUDA_MAJOR} needs {OLDEST} or newer: upgraded, then one reboot")
        log = booking.folder / "logs" / "upgrade_driver.log"
        printed = way.run("upgrade_driver", str(OLDEST), bound_s=UPGRADE_S, say=booking.say, log=log)
        booking.say(f"driver: installed {printed.strip()}")
        found = read(way)
    if found.waits_for_boot:
        if found.failed_to_load:
            raise _no_good(booking, found)
        found = _reboot(booking, way, found, restart)
    if not found.is_good:
        raise _no_good(booking, found)
    booking.say(f"driver: {found.running} runs CUDA {CUDA_MAJOR}")
    return found


def plan(booking: Booking) -> str:
    """What ``ensure`` would do, as the node says; without a node to ask, what may be needed."""
    minutes = MINUTES[booking.site.virtual_machine]
    if servers.find(booking) is None or addresses.find(booking) is None:
        return f"the image's may be older than {OLDEST}: upgraded with one reboot, about {minutes} min"
    try:
        found = read(access.way_in(booking))
    except (SshError, RemoteError):
        return f"cannot be asked now; older than {OLDEST}, it is upgraded with one reboot, about {minutes} min"
    if found.is_good:
        return f"keep {found.running}"
    if found.waits_for_boot:
        return f"one reboot: {found.on_disk} is installed and does not run yet"
    return f"upgrade: {found}, {OLDEST} is needed; one reboot, about {minutes} min"


def _reboot(booking: Booking, way: Ssh, before: Driver, restart: bool) -> Driver:
    """Reboot the node; what it says when it is back."""
    booking.say(f"driver: {before.on_disk} is installed, the node reboots")
    log = booking.folder / "logs" / "reboot.log"
    printed = ""
    with contextlib.suppress(SshError):  # the node may go down before it answers; the id of its boot tells
        printed = way.run("reboot", before.on_disk, "stop" if restart else "keep", bound_s=ASK_S, log=log)
    if printed.startswith(BUSY):
        raise LabRunsError(
            f"{booking.name} needs a reboot for driver {before.on_disk}, and container {printed[len(BUSY) :].strip()} "
            "runs on it. Let the student save and stop it, or run this step with restart."
        )
    after = before

    def look() -> str:
        nonlocal after
        try:
            after = read(way)
        except SshError:
            return "away"
        return "still there" if after.boot == before.boot else "back"

    booking.wait(f"reboot of {booking.name}", look, ("back",), booking.site.boot_timeout_min * 60)
    return after


def _no_good(booking: Booking, found: Driver) -> ProvisioningError:
    return DriverError(
        f"{booking.name} has {found} after an upgrade to {found.on_disk or OLDEST} and a reboot, and CUDA {CUDA_MAJOR} "
        f"needs {OLDEST}. Look at 'dkms status' and 'journalctl -k' on the node, or take another node."
    )
