"""What leases cost: node hours, and the service units that the site charges for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from provisioning.leases import Lease
from provisioning.sites import Node, Rates
from provisioning.tables import as_text

UNKNOWN = "unknown rate"


@dataclass(frozen=True)
class Cost:
    """What one booking has cost so far."""

    hours: float
    """Node hours that its leases have held, used or not."""
    su_per_hour: float | None

    @property
    def su(self) -> float | None:
        """Service units; None where the rate is unknown."""
        return None if self.su_per_hour is None else self.hours * self.su_per_hour

    @property
    def text(self) -> str:
        """``8.0 SU``, or that the rate is unknown."""
        return UNKNOWN if self.su is None else f"{self.su:.1f} SU"

    @property
    def detail(self) -> str:
        """``2.0 node hours so far, 4 SU an hour``."""
        return f"{self.hours:.1f} node hours so far" + (f", {per_hour(self)}" if self.su_per_hour is not None else "")


def per_hour(rate: Cost | Node) -> str:
    """``4 SU an hour``, or that the rate is unknown."""
    return UNKNOWN if rate.su_per_hour is None else f"{rate.su_per_hour:g} SU an hour"


def of(node: Node, leases: Iterable[Lease], now: datetime) -> Cost:
    """The cost of ``leases``, those that are over too. One that has yet to start costs nothing so far, and one in
    ERROR never held a node. ``now`` is the site's."""
    held = [lease for lease in leases if lease.status != "ERROR"]
    seconds = sum(max(0.0, (min(now, lease.end) - lease.start).total_seconds()) for lease in held)
    return Cost(seconds / 3600, node.su_per_hour)


def report(costs: Mapping[str, Cost], rates: Sequence[Rates], left_out: Iterable[str] = ()) -> str:
    """A table by name with the sum, and below it whose rate is unknown, whose status is (``left_out``), and sources."""
    rows = [(name, f"{cost.hours:.1f} node hours", cost.text) for name, cost in costs.items()]
    known = [cost.su for cost in costs.values() if cost.su is not None]
    unknown = {name: cost for name, cost in costs.items() if cost.su is None}
    rows.append(
        ("all", f"{sum(cost.hours for cost in costs.values()):.1f} node hours",
         f"{sum(known):.1f} SU" if known else UNKNOWN)
    )  # fmt: skip
    lines = [as_text("cost so far", rows)]
    if unknown and known:
        lines.append(f"  not in the SU: {', '.join(unknown)}, {sum(c.hours for c in unknown.values()):.1f} node hours")
    if left_out := list(left_out):
        lines.append(f"  not counted, since it could not be read: {', '.join(left_out)}")
    lines += [f"  rates: {rate}" for rate in dict.fromkeys(rates)]
    return "\n".join(lines)
