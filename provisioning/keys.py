"""The SSH key of a booking: made here, known to Nova under the booking's name."""

import hashlib
import re
import subprocess
from pathlib import Path

from provisioning import leases
from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import LeaseOverError, ServiceError, UsageError

ENDING = re.compile(r"-K[0-9A-F]{8}$")
"""How the name of a machine's key ends; a netID has no capital letters."""


def private(booking: Booking) -> Path:
    """The private key's file; it never leaves this machine."""
    return booking.folder / "id_ed25519"


def public(booking: Booking) -> str:
    """The public key, made with the private one when there is none."""
    path = private(booking)
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", booking.name, "-f", str(path)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise UsageError("ssh-keygen is not on this machine. Install an OpenSSH client.") from None
        except subprocess.CalledProcessError as error:
            raise UsageError(f"{path} cannot be made: {' '.join(error.stderr.split())}.") from None
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


def name(booking: Booking) -> str:
    """What the key of this machine is called in Nova: each machine has its own, so that two that boot at the same time
    never change each other's."""
    digest = hashlib.sha256(public(booking).split()[1].encode()).hexdigest()
    return f"{booking.name}-K{digest[:8].upper()}"


def find_all(booking: Booking) -> list[str]:
    """The names of all keys of this booking in Nova, of whichever machine."""
    with asking("reading the keys"):
        pairs = [pair.name for pair in booking.cloud.nova.keypairs.list()]
    return sorted(pair for pair in pairs if ENDING.sub("", pair) == booking.name)


def ensure(booking: Booking) -> str:
    """The name of this machine's key in Nova."""
    ours = name(booking)
    if ours not in find_all(booking):
        leases.hold(booking)
        try:
            with asking(f"making key {ours}"):
                booking.cloud.nova.keypairs.create(ours, public_key=public(booking))
        except ServiceError:  # there is one of a name only, and its name says which key it is
            if ours not in find_all(booking):
                raise
        try:
            leases.hold(booking)
        except LeaseOverError:
            delete(booking, ours)
            raise
    return ours


def delete(booking: Booking, key: str) -> None:
    """Remove a key from Nova; the file here stays."""
    with deleting(f"key {key}"):
        booking.cloud.nova.keypairs.delete(key)
