"""A rotation: many students over few nodes, one after the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from provisioning import times
from provisioning.errors import NoSlotError, UsageError
from provisioning.tables import as_text

TURNOVER = timedelta(minutes=20)
"""Between two students: teardown of one node, and a site's cleaning of bare metal."""


@dataclass(frozen=True)
class Slot:
    """One student's time on a node."""

    netid: str
    place: int
    """Which of the nodes, from 1 on. The site chooses the machine; no two have the same place at one time."""
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start


def rotate(
    netids: Sequence[str], nodes: int, start: datetime, end: datetime, length: timedelta, turnover: timedelta = TURNOVER
) -> list[Slot]:
    """A slot of ``length`` for everyone, in the order of ``netids``, on ``nodes`` nodes between ``start`` and ``end``.

    After each slot its node stays free for ``turnover``. Raises ``UsageError`` for values that make no rotation, and
    ``NoSlotError``, which says what would fit, when not everyone gets a slot.
    """
    if nodes < 1:
        raise UsageError(f"--nodes={nodes} must be at least 1.")
    if length < timedelta(minutes=1) or turnover < timedelta(0):
        raise UsageError(f"no slots: {times.length(length)} each with {times.length(turnover)} between them.")
    if end <= start:
        raise UsageError(f"the window from {times.show(start)} until {times.show(end)} has no time in it.")
    # Blazar keeps whole minutes: a start that it cuts off would fall into the slot before
    start = _next_minute(start)
    step = length + turnover
    rounds = max(0, (end - start + turnover) // step)
    if rounds * nodes < len(netids):
        raise NoSlotError(_what_fits(len(netids), nodes, start, end, length, turnover, rounds))
    begins = [start + step * (number // nodes) for number in range(len(netids))]
    return [
        Slot(netid, number % nodes + 1, begin, begin + length)
        for number, (netid, begin) in enumerate(zip(netids, begins, strict=True))
    ]


def table(slots: Sequence[Slot], node: str) -> str:
    """The slots as a table for a terminal."""
    title = f"rotation on {max((slot.place for slot in slots), default=0)} x {node}"
    rows = [
        (slot.netid, f"node {slot.place}", times.show(slot.start), f"for {times.length(slot.length)}") for slot in slots
    ]
    return as_text(title, rows)


def _what_fits(
    students: int, nodes: int, start: datetime, end: datetime, length: timedelta, turnover: timedelta, rounds: int
) -> str:
    """For each value, the one that would be enough if the others stay as they are."""
    needed = math.ceil(students / nodes)
    until = start + needed * (length + turnover) - turnover
    fits = [f"until {times.show(until)}"]
    if rounds:
        fits.insert(0, f"with {math.ceil(students / rounds)} nodes")
    shorter = ((end - start + turnover) / needed - turnover) // timedelta(minutes=1)
    if shorter >= 1:
        fits.append(f"with slots of {times.length(timedelta(minutes=shorter))}")
    return (
        f"{students} students do not fit: {nodes} nodes have {rounds * nodes} slots of {times.length(length)} from "
        f"{times.show(start)} until {times.show(end)}, {times.length(turnover)} between them. "
        f"It fits {', or '.join(fits)}."
    )


def _next_minute(moment: datetime) -> datetime:
    whole = moment.replace(second=0, microsecond=0)
    return whole if whole == moment else whole + timedelta(minutes=1)
