"""The boot volume of a virtual machine. It outlives its server, so that a server in ERROR can be replaced."""

from typing import Any

from provisioning import claims, leases, times
from provisioning.booking import LEASE, TAG, Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import FailedError, GoneError, NotOursError, UncollectedWorkError, UnknownNameError, known

WORK, COLLECTED = "labkit_work", "labkit_collected"
"""Keys of metadata on server and volume: there may be work on it; and what was last brought home of it."""
YES, NO = "yes", "no"
BOUND_S, DELETE_BOUND_S = 1800.0, 600.0
TRIES = 2


def find_all(booking: Booking) -> list[Any]:
    """All volumes that carry the owner's tag, the oldest first; ``NotOursError`` for one that has the name only."""
    with asking("reading the volumes"):
        volumes = booking.cloud.cinder.volumes.list()
    for volume in volumes:
        if volume.name == booking.name and volume.metadata.get(TAG) != booking.name:
            raise NotOursError(f"volume {volume.name} ({volume.id}) lacks the tag {booking.tag_text}. Rename it.")
    ours = [volume for volume in volumes if volume.metadata.get(TAG) == booking.name]
    return sorted(ours, key=lambda volume: (volume.created_at, volume.id))


def find(booking: Booking) -> Any | None:
    """The boot volume, if there is one that is not being deleted."""
    return best(find_all(booking))


def best(there: list[Any]) -> Any | None:
    """Of several volumes: the one of a server, or else one with work on it."""
    live = [volume for volume in there if volume.status != "deleting"]
    return min(live, key=lambda one: (one.status != "in-use", one.metadata.get(WORK) != YES), default=None)


def ensure(booking: Booking) -> Any | None:
    """The boot volume, made from the site's image when it is missing or in error; None for bare metal."""
    if not booking.site.virtual_machine:
        return None
    with leases.held(booking):
        return _ensure(booking)


def _ensure(booking: Booking) -> Any:
    for _ in range(TRIES):
        volume = find(booking) or _create(booking)
        ends = ("available", "in-use", "error")
        status = booking.wait(f"volume {booking.name}", lambda v=volume: _get(booking, v.id).status, ends, BOUND_S)
        if status != "error":
            booking.say(f"volume {booking.name}: {status}, {volume.size} GiB")
            _give_back_others(booking, volume)
            return _get(booking, volume.id)
        if volume.metadata.get(WORK) == YES:
            raise UncollectedWorkError(f"volume {booking.name} is in error and holds work. Ask the site to repair it.")
        booking.say(f"volume {booking.name}: in error, replaced")
        delete(booking, volume)
    raise FailedError(f"volume {booking.name} went to error {TRIES} times. Is the image '{booking.site.image}' whole?")


def _give_back_others(booking: Booking, volume: Any) -> None:
    """Delete what an interrupted run left in addition to the boot volume, unless there may be work on it."""
    for other in find_all(booking):
        if other.id != volume.id and other.status == "available" and other.metadata.get(WORK) != YES:
            booking.say(f"volume {booking.name}: there were two; the one that nothing uses is given back")
            delete(booking, other)


def plan(booking: Booking) -> str:
    """What ``ensure`` would do."""
    if not booking.site.virtual_machine:
        return "none: bare metal boots from its own disk"
    volume = find(booking)
    if volume is None:
        image(booking)
        return f"make: {booking.site.boot_volume_gib} GiB from {booking.site.image}"
    return "replace the one in error" if volume.status == "error" else f"keep, {volume.status}"


def delete(booking: Booking, volume: Any) -> None:
    """Delete one of our volumes, and wait until it is gone."""
    what = f"volume {booking.name}"
    # it is released some time after its server is gone
    ends = ("available", "error", "deleting", "error_deleting", "gone")
    booking.wait(what, lambda: _state(booking, volume.id), ends, DELETE_BOUND_S)
    if _state(booking, volume.id) in ("available", "error", "error_deleting"):
        with deleting(what, lambda: _state(booking, volume.id)):
            booking.cloud.cinder.volumes.delete(volume.id)
    end = booking.wait(what, lambda: _state(booking, volume.id), ("gone", "error_deleting"), DELETE_BOUND_S)
    if end == "error_deleting":
        raise FailedError(
            f"{what} ({volume.id}) cannot be deleted by the site. Run 'down' again later, or ask the site to remove it."
        )


def mark(booking: Booking, values: dict[str, str]) -> None:
    """Write metadata on the volume, if there is one."""
    volume = find(booking) if booking.site.virtual_machine else None
    if volume is not None:
        with asking(f"marking volume {booking.name}"):
            booking.cloud.cinder.volumes.set_metadata(volume.id, values)


def image(booking: Booking) -> Any:
    """The site's image."""
    name = booking.site.image
    with asking("reading the images"):
        images = list(booking.cloud.glance.images.list())
    found = [image for image in images if image.name == name and image.status == "active"]
    if not found:
        names = [image.name for image in images if image.name]
        raise UnknownNameError(f"image '{name}' is not at {booking.site.name}. {known(name, names)}")
    return max(found, key=lambda image: image.created_at)


def _create(booking: Booking) -> Any:
    what, source = f"volume {booking.name}", image(booking)

    def make() -> str:
        with asking(f"making {what}"):
            data = booking.tag | {LEASE: booking.lease_id}
            size_gib = booking.site.boot_volume_gib
            return booking.cloud.cinder.volumes.create(
                size_gib, name=booking.name, imageRef=source.id, metadata=data
            ).id

    def read() -> list[claims.Made]:
        live = [one for one in find_all(booking) if one.status != "deleting"]
        return [claims.Made(times.parse_iso(one.created_at), one.id, one) for one in live]

    return claims.claim(booking, what, make, read, lambda one: delete(booking, one), lambda: leases.hold(booking))


def _get(booking: Booking, volume_id: str) -> Any:
    with asking(f"reading volume {booking.name}"):
        return booking.cloud.cinder.volumes.get(volume_id)


def _state(booking: Booking, volume_id: str) -> str:
    try:
        return _get(booking, volume_id).status
    except GoneError:
        return "gone"
