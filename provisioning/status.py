"""How things stand: a table that a terminal and a notebook can show."""

import html
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from provisioning import addresses, cost, leases, notice, servers, times, volumes
from provisioning.booking import Booking
from provisioning.cost import Cost
from provisioning.leases import Lease
from provisioning.tables import as_html, as_text

WARN_BEFORE = timedelta(minutes=15)


@dataclass
class Status:
    """Rows of (thing, state, detail), and what a class list sums up."""

    name: str
    rows: list[tuple[str, str, str]]
    warning: str = ""
    cost: Cost = Cost(0.0, None)
    exists: bool = False
    lease: Lease | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return as_text(self.name, self.rows) + (f"\n  ! {self.warning}" if self.warning else "")

    def _repr_html_(self) -> str:
        return as_html(self.name, self.rows) + (f"<p><b>{html.escape(self.warning)}</b></p>" if self.warning else "")

    @property
    def line(self) -> str:
        """All of it in one line, for a class list."""
        return "; ".join(" ".join(part for part in row if part) for row in self.rows)


def status(booking: Booking) -> Status:
    """Read everything back from the services."""
    all_leases, now = leases.find_all(booking), booking.now()
    lease = next(iter(all_leases), None)
    live = [one for one in all_leases if one.status not in leases.LEAVING]
    all_servers, all_addresses = servers.find_all(booking), addresses.find_all(booking)
    server = servers.best(all_servers)
    address = all_addresses[0]["floating_ip_address"] if all_addresses else None
    all_volumes = volumes.find_all(booking) if booking.site.virtual_machine else []
    volume = volumes.best(all_volumes)
    spent = cost.of(booking.node, all_leases, now)
    rows = [
        ("lease", lease.status if lease else "none", _when(lease, now) + _several(live, "leases") if lease else ""),
        ("server", server.status if server else "none",
         f"{booking.node.count} x {booking.node.gpu}{_several(all_servers, 'servers')}"),
    ]  # fmt: skip
    if booking.site.virtual_machine:
        detail = f"{volume.size} GiB{_several(all_volumes, 'volumes')}" if volume else ""
        rows.append(("volume", volume.status if volume else "none", detail))
    rows.append(("address", address or "none", _several(all_addresses, "addresses").strip(", ")))
    rows.append(("cost", spent.text, spent.detail))
    exists = any((lease, server, volume, address))
    return Status(booking.name, rows, _warning(lease, now), spent, exists, lease)


def _several(things: list, what: str) -> str:
    """A remark where there should be one thing and there are several."""
    return f", ! {len(things)} {what}: run 'up' again to fix it, or 'down'" if len(things) > 1 else ""


def _when(lease: Lease, now: datetime) -> str:
    if lease.status == "PENDING":
        return f"starts at {times.show(lease.start)}, ends at {times.show(lease.end)}"
    if lease.left(now) <= timedelta(0):
        return f"over since {times.show(lease.end)}"
    return f"{times.length(lease.left(now))} left, until {times.show(lease.end)}"


def _warning(lease: Lease | None, now: datetime) -> str:
    if lease is None or lease.status != "ACTIVE" or lease.left(now) > WARN_BEFORE:
        return ""
    if lease.left(now) <= timedelta(0):
        return f"The lease ended at {times.show(lease.end)}."
    return (
        f"The lease ends in {times.length(lease.left(now))}, at {times.show(lease.end)}. "
        "Collect your work, or extend the lease, now."
    )


def warn_before_end(booking: Booking) -> threading.Timer:
    """Say a warning 15 minutes before the lease ends, while this program or notebook runs, and inside JupyterLab on the
    node 30 and 10 minutes before, whatever runs here."""
    lease = leases.active(booking)
    notice.tell(booking, lease)
    now = booking.now()
    timer = threading.Timer(max(0.0, (lease.left(now) - WARN_BEFORE).total_seconds()), _warn, (booking,))
    timer.daemon = True
    timer.start()
    booking.say(f"a warning comes at {times.show(max(now, lease.end - WARN_BEFORE))}")
    return timer


def _warn(booking: Booking) -> None:
    lease, now = leases.find(booking), booking.now()  # it may have been extended, or be gone
    if lease is None:
        return
    if lease.left(now) > WARN_BEFORE:
        warn_before_end(booking)
    else:
        booking.say(f"! {_warning(lease, now) or 'The lease is over.'}")
