"""The next free time of a kind of node, from what Blazar says is taken."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from provisioning.times import parse_blazar

MARGIN = timedelta(minutes=10)
"""A site may clean a node between two leases."""


def next_slot(
    hosts: Iterable[str], allocations: list[dict[str, Any]], length: timedelta, earliest: datetime
) -> datetime | None:
    """The first time from ``earliest`` on that one of ``hosts`` is free for ``length``; None without hosts."""
    taken: dict[str, list[tuple[datetime, datetime]]] = {host: [] for host in hosts}
    for allocation in allocations:
        spans = taken.get(str(allocation["resource_id"]))
        if spans is not None:
            spans += [(parse_blazar(r["start_date"]), parse_blazar(r["end_date"])) for r in allocation["reservations"]]
    return min((_first_gap(sorted(spans), length, earliest) for spans in taken.values()), default=None)


def _first_gap(spans: list[tuple[datetime, datetime]], length: timedelta, earliest: datetime) -> datetime:
    free = earliest
    for start, end in spans:
        if end <= free:
            continue
        if free + length + MARGIN <= start:
            break
        free = end + MARGIN
    return free
