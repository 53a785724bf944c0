"""Rules of a site for leases: why Blazar refused one, read from its message, and what to do about it.

Blazar has a code for most refusals, but not one for each reason, and sites write rules of their own. A message that is
not known here is kept as it is, and no reason is made up for it.
"""

import re
from datetime import datetime, timedelta

from provisioning import times
from provisioning.errors import (
    AGAIN,
    GoneError,
    LeaseOverError,
    NoSlotError,
    ProvisioningError,
    QuotaError,
    RuleError,
    ServiceError,
)

_SPAN = re.compile(r"(\d+(?:\.\d+)?)[\s-]*(s|sec|second|min|minute|h|hour|d|day|week)s?\b", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400,
            "week": 604800}  # fmt: skip
_REASONS = tuple(
    (reason, re.compile("|".join(patterns), re.IGNORECASE))
    for reason, *patterns in (
        (
            "window",
            r"only be (?:extended|updated|prolonged|renewed) .{0,30}(?:within|last|during|before|near|close)",
            r"(?:extension|update|renewal)[ _]window", r"too early",
            # "not available until 48 hours before the end" is no node that somebody else has
            r"(?:extend|extension|renew|prolong|updat)\w*\b.{0,60}\b(?:until|not before|within|no earlier)\b",
            r"\d ?(?:s|sec|min|h|second|minute|hour|day)\w* (?:before|from) (?:its|the|their)\b",
        ),
        (
            "length",
            r"max\w* (?:\w+ ){0,2}(?:length|duration)",
            r"(?:length|duration)\b.{0,80}(?:exceed|at most|less|longer|max)",
            r"(?:exceed|longer than|above)\w*\b.{0,60}(?:length|duration|max)", r"too long", r"no longer than",
            r"time limit", r"only be (?:extended|renewed) .{0,30}(?:at most|up to|for)",
        ),
        ("project", r"(?:project|allocation|charge code)\b.{0,60}(?:expire|inactive|not active|has ended)"),
        (
            "balance",
            r"\d SUs?\b", r"enough SUs?\b", r"service units?", r"balance", r"credits?\b", r"funds", r"would spend",
            r"allocation .*(?:left|spent|remain|used up)",
        ),
        (
            "past",
            r"in the past", r"(?:later|after) than? ?(?:the )?(?:current|now)",
            r"already (?:over|ended|terminated|expired)", r"(?:end|start)[ _]date\b.{0,60}(?:before|earlier|current)",
            r"lease\b.{0,40}(?:has )?(?:expired|ended)",
        ),
        ("limit", r"limit", r"maximum number",
         r"max(?:imum)?\b.{0,20}\b(?:leases|nodes|hosts|reservations)", r"too many"),
        ("taken", r"not enough", r"no .{0,40}available", r"conflict", r"already (?:reserved|allocated)", r"overlap",
         r"not available"),
        ("policy", r"policy", r"not (?:allowed|authorized|permitted)", r"forbidden", r"unauthorized", r"denied"),
    )
)  # fmt: skip
"""What sites write, by reason; the first that fits counts."""


def named(
    error: ServiceError, doing: str, wanted: timedelta, end: datetime | None = None, start: datetime | None = None,
    now: datetime | None = None,
) -> ProvisioningError:  # fmt: skip
    """The error for a refused lease: ``wanted`` is how much longer it was to be, or how long; ``end`` and ``start``
    are those that it has; ``now`` is the site's time."""
    text = str(error)
    reason = "" if isinstance(error, GoneError) else _reason(text)
    if reason:  # which the same request meets again
        text = text.removesuffix(AGAIN)
    if reason == "window":
        return RuleError(_too_early(text, doing, end))
    if reason == "length":
        return RuleError(_too_long(text, doing, wanted, end, start, now or times.now()))
    if reason == "balance":
        return QuotaError(f"{text} The project has too few service units left: take less time, or ask for more.")
    if reason == "project":
        return QuotaError(f"{text} The project is over: ask its owner to renew it, or use another one.")
    if reason == "past":
        return LeaseOverError(f"{text} The time is over: look with 'status', and make a new lease if it has ended.")
    if reason == "limit":
        return QuotaError(f"{text} A limit of the site is reached: end a lease that is not used, or ask for more.")
    if reason == "policy":
        return RuleError(f"{text} The site's rules do not allow it to this project: ask its owner, or the site.")
    if reason == "taken" and end is not None:
        return NoSlotError(f"{text} Somebody may have the node next: extend by less, and collect your work.")
    return error


def is_taken(error: ServiceError) -> bool:
    """Whether it was refused because others have the nodes."""
    return not isinstance(error, GoneError) and _reason(str(error)) == "taken"


def _reason(text: str) -> str:
    return next((reason for reason, pattern in _REASONS if pattern.search(_said(text))), "")


def _said(text: str) -> str:
    """The site's own words; the text before them says what was tried."""
    return text.partition("refused (")[2] or text


def _too_early(text: str, doing: str, end: datetime | None) -> str:
    spans = _spans(text)
    if not spans or end is None:
        return f"{text} Too early by the site's rule: a lease can be extended only near its end. Try again then."
    window = spans[-1]
    return (
        f"{doing}: too early by the site's rule: a lease can be extended only in its last {_say(window)}. Try again "
        f"from {times.show(end - window)} on, before it ends at {times.show(end)}."
    )


def _too_long(
    text: str, doing: str, wanted: timedelta, end: datetime | None, start: datetime | None, now: datetime
) -> str:
    spans = _spans(text)
    if not spans:
        return f"{text} Too long by the site's rule: take less time."
    longest = min(spans)
    if end is None or start is None:
        return f"{doing}: too long by the site's rule: at most {_say(longest)}, and {_say(wanted)} were asked for."
    # sites count an active lease from now on
    latest = now + longest
    step = (
        f"Extend by {times.length(latest - end)} at most"
        if latest - end > timedelta(minutes=1)
        else "Try again nearer to its end"
    )
    return (
        f"{doing}: too long by the site's rule: a lease may have {_say(longest)} at most, counted from now. "
        f"{step}; it ends at {times.show(end)}."
    )


def _spans(text: str) -> list[timedelta]:
    """The lengths of time that the site's words have."""
    return [timedelta(seconds=float(n) * _SECONDS[unit.lower()]) for n, unit in _SPAN.findall(_said(text))]


def _say(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 72 else f"{hours:.4g} h" if hours >= 1 else times.length(span)
