"""The steps from nothing to Jupyter, in order, and the plan of what they would do."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from provisioning import access, addresses, driver, keys, leases, public_key, runtime, servers, slots, volumes
from provisioning.booking import DEFAULT_LENGTH, Booking
from provisioning.jupyter import Link
from provisioning.tables import as_html, as_text


@dataclass(frozen=True)
class Plan:
    """What each step would do; nothing was made for it."""

    name: str
    rows: list[tuple[str, str]]

    def __str__(self) -> str:
        return as_text(f"plan for {self.name}", self.rows)

    def _repr_html_(self) -> str:
        return as_html(f"plan for {self.name}", self.rows)


def plan(booking: Booking, length: timedelta = DEFAULT_LENGTH, start: datetime | None = None) -> Plan:
    """Read what there is, and say what each step would do. Unknown names are found here."""
    if not booking.site.virtual_machine:
        slots.free_from(booking, length)  # raises for a node type that the site does not have
        volumes.image(booking)
    elif leases.find(booking) is None:
        slots.flavor(booking, booking.node.name)
    return Plan(
        booking.name,
        [
            ("lease", leases.plan(booking, length, start)),
            ("volume", volumes.plan(booking)),
            ("key", "keep" if keys.name(booking) in keys.find_all(booking) else "make"),
            ("server", servers.plan(booking)),
            ("address", addresses.plan(booking)),
            ("access", access.plan(booking)),
            ("driver", driver.plan(booking)),
            ("runtime", "Docker, NVIDIA container toolkit: what is missing"),
            ("image", "upload the project and build it there, unless that was done"),
            ("jupyter", "start it, unless it runs"),
        ],
    )


def up(
    booking: Booking, length: timedelta = DEFAULT_LENGTH, start: datetime | None = None, also: str = "",
    open_port: bool = False,
) -> Link | None:  # fmt: skip
    """All steps; None when the lease has yet to start. Run again, it does only what is missing."""
    also = public_key.read(also, "the public key") if also else ""  # before hours are booked for it
    lease = leases.ensure(booking, length, start)
    if lease.status != "ACTIVE":
        return None
    volumes.ensure(booking)
    servers.ensure(booking)
    addresses.ensure(booking)
    access.ensure(booking, also)
    with leases.held(booking):
        runtime.install_runtime(booking)
        runtime.build_image(booking)
        return runtime.start_jupyter(booking, open_port)
