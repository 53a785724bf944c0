"""Times: UTC with the local time in brackets, and lengths that a person can read."""

import re
from datetime import UTC, datetime, timedelta

from provisioning.errors import UsageError

BLAZAR = "%Y-%m-%d %H:%M"
"""What Blazar reads; no seconds."""


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def parse_blazar(text: str) -> datetime:
    """A time that Blazar wrote; it is in UTC and does not say so."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def parse_iso(text: str) -> datetime:
    """A time that Nova, Cinder or Neutron wrote; in UTC, with a Z or without."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_start(text: str, where: str = "") -> datetime:
    """``2026-11-22T14:00`` in local time, or with an offset: ``2026-11-22T14:00+00:00``."""
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # years that the clock of this machine does not reach
        raise UsageError(
            f"{where}start '{text}' is not a time. Write it like 2026-11-22T14:00 (local) or with +00:00."
        ) from None
    return found


def parse_length(text: str, where: str = "") -> timedelta:
    """``2h50m``, ``90m`` or ``3h``."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?", text.replace(" ", ""))
    try:
        length = timedelta(hours=int(match[1] or 0), minutes=int(match[2] or 0)) if match else timedelta(0)
    except (OverflowError, ValueError):  # digits without end
        length = timedelta(0)
    if not length:
        raise UsageError(f"{where}'{text}' is not a length. Write it like 2h50m.")
    return length


def written(span: timedelta) -> str:
    """``2h50m``, as ``parse_length`` reads it; whole minutes."""
    hours, minutes = divmod(int(span.total_seconds()) // 60, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def show(moment: datetime) -> str:
    """``14:00 UTC (15:00 CET)``, with the date where it is not today's, and once where the local time is UTC."""
    local = moment.astimezone()
    day = "" if moment.date() == now().date() else f"{moment:%Y-%m-%d} "
    local_too = "" if local.tzname() == "UTC" else f" ({local:%H:%M} {local.tzname()})"
    return f"{day}{moment:%H:%M} UTC{local_too}"


def length(span: timedelta) -> str:
    """``2 h 50 min``."""
    minutes = max(0, int(span.total_seconds() // 60))
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
