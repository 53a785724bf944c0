"""Times: UTC with the local time beside, and lengths that a person can read."""

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


def parse_start(text: str) -> datetime:
    """``2026-11-22T14:00`` in local time, or with an offset: ``2026-11-22T14:00+00:00``."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"start '{text}' is no time. Write it like 2026-11-22T14:00 (local) or with +00:00.") from None
    return found.astimezone(UTC)


def parse_length(text: str) -> timedelta:
    """``2h50m``, ``90m`` or ``3h``."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?", text.replace(" ", ""))
    length = timedelta(hours=int(match[1] or 0), minutes=int(match[2] or 0)) if match else timedelta(0)
    if not length:
        raise UsageError(f"length '{text}' is none. Write it like 2h50m.")
    return length


def show(moment: datetime) -> str:
    """``14:00 UTC (15:00 CET)``, with the date where it is not today's, and once where the local time is UTC."""
    local = moment.astimezone()
    day = "" if moment.date() == now().date() else f"{moment:%Y-%m-%d} "
    beside = "" if local.tzname() == "UTC" else f" ({local:%H:%M} {local.tzname()})"
    return f"{day}{moment:%H:%M} UTC{beside}"


def length(span: timedelta) -> str:
    """``2 h 50 min``."""
    minutes = max(0, int(span.total_seconds() // 60))
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
