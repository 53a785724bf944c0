"""The SSH key of a booking: made here, known to Nova under the booking's name."""

import subprocess
from pathlib import Path

from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import UsageError


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


def find(booking: Booking) -> str | None:
    """Nova's copy of the public key."""
    with asking("reading the keys"):
        pairs = booking.cloud.nova.keypairs.list()
    return next((pair.public_key.strip() for pair in pairs if pair.name == booking.name), None)


def ensure(booking: Booking) -> str:
    """The name of the key in Nova, which is the one here; another one under this name is replaced."""
    ours, theirs = public(booking), find(booking)
    if theirs is not None and theirs.split()[:2] != ours.split()[:2]:
        booking.say(f"key {booking.name}: of another machine, replaced")
        delete(booking)
        theirs = None
    if theirs is None:
        with asking(f"making key {booking.name}"):
            booking.cloud.nova.keypairs.create(booking.name, public_key=ours)
    return booking.name


def delete(booking: Booking) -> None:
    """Remove the key from Nova; the file here stays."""
    with deleting(f"key {booking.name}"):
        booking.cloud.nova.keypairs.delete(booking.name)
