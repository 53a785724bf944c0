"""Signs: what in a submission does not fit together. They say where to look, and accuse no one.

A ledger is the student's own file. Someone who knows how it is made can forge a consistent one; these signs show slips,
lazy edits and copies, not a determined forger.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from labkit.grading.work import ENDED, Run, Work, read_time
from labkit.ledger.shape import plain

SLACK_S = 60.0
"""What clocks may differ by: they are set now and then during a course."""
LONGEST_S = 30 * 86400.0
"""Longest run of a course."""
FEWEST_EVENTS = 4
"""Runs with fewer events cannot be distinguished by their times."""

_REPLAYED = (
    "peak_bytes", "losses", "samples", "train_seconds", "validation_losses", "memory", "died_in", "out_of_memory",
    "device", "versions", "model",
)  # fmt: skip
"""Fields of a record that come from events alone."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something to look at: a short ``kind`` and what was compared."""

    kind: str
    text: str


def signs_of(work: Work, now: datetime) -> list[Sign]:
    """What does not fit within one submission."""
    found = [*_members(work), *(Sign(kind="unread", text=one) for one in work.unread)]
    found += [Sign(kind="notebook", text=f"{name}: {why}") for name, why in sorted(work.submission.faults.items())]
    for run in work.runs:
        found += [*_config(run), *_events(run), *_times(run, min(now, work.submission.created))]
    if work.submission.created > now + timedelta(seconds=SLACK_S):
        found.append(Sign(kind="times", text=f"handed in at {work.submission.created:%F %T}, which is yet to come"))
    seen = [(read_time(entry["time"]), number) for number, entry in enumerate(work.journal, 1)]
    for (before, _), (after, number) in zip(seen, seen[1:], strict=False):
        if before is not None and after is not None and (before - after).total_seconds() > SLACK_S:
            text = f"answer or check {number} is of {after:%F %T}, the one before it of {before:%F %T}: not in order"
            found.append(Sign(kind="times", text=text))
    return found


def fingerprint(run: Run) -> str | None:
    """The same for a run and a copy of it, whatever id and day the copy was given; None where little was timed.

    Losses and memory are the same for all who run the same config; the milliseconds between events are not.
    """
    if len(run.times) < FEWEST_EVENTS:
        return None
    between = [round(later - earlier, 3) for earlier, later in zip(run.times, run.times[1:], strict=False)]
    return hashlib.sha256(json.dumps(between).encode()).hexdigest()


def _members(work: Work) -> Iterator[Sign]:
    there, listed = work.submission.sha256, work.submission.listed
    for name in sorted({*there, *listed}):
        if name not in listed:
            yield Sign(kind="members", text=f"{name} is not in the manifest")
        elif name not in there:
            yield Sign(kind="members", text=f"{name} is in the manifest and not in the archive")
        elif there[name] != listed[name]:
            yield Sign(kind="members", text=f"{name} is not what the manifest says: its SHA-256 differs")


def _config(run: Run) -> Iterator[Sign]:
    record = run.record
    if run.config is None:
        yield Sign(kind="unread", text=f"{run.folder}: {run.unread}")
    elif run.config_hash != record.config_hash:
        text = f"{run.folder}: its config has hash {run.config_hash}, the record says {record.config_hash}"
        yield Sign(kind="config", text=text)
    named = f"runs/{record.profile}/{record.experiment}/{record.id}"
    if named != run.folder:
        yield Sign(kind="record", text=f"{run.folder}: the record in it says {named}")
    started = run.replayed
    if started is not None and (started.id, started.config) != (record.id, record.config):
        yield Sign(kind="record", text=f"{run.folder}: config.json has another id or config than the record")


def _events(run: Run) -> Iterator[Sign]:
    record, replayed = run.record, run.replayed
    if record is replayed:
        return
    if replayed is None:
        if record.losses or record.memory or record.status in ENDED:
            yield Sign(kind="events", text=f"{run.folder}: the record has results, and there are no events")
        return
    for key in _REPLAYED:
        if key == "peak_bytes" and record.attempts:  # of what was run twice only one is counted
            continue
        if getattr(record, key) != getattr(replayed, key):
            text = f"{run.folder}: {key} is {_short(record, key)}, its events say {_short(replayed, key)}"
            yield Sign(kind="events", text=text)
    if record.status != run.ended and (record.status in ENDED or run.ended in ENDED):
        text = f"{run.folder}: the record says it ended {record.status!r}, its events {run.ended or 'nothing'!r}"
        yield Sign(kind="events", text=text)


def _times(run: Run, now: datetime) -> Iterator[Sign]:
    record, created = run.record, run.created

    def sign(text: str) -> Sign:
        return Sign(kind="times", text=f"{run.folder}: {text}")

    if created is None:
        yield sign(f"created is {record.created!r}, which is not a time")
        return
    if created > now + timedelta(seconds=SLACK_S):
        yield sign(f"created {created:%F %T}, after it was handed in or in the future")
    if record.id[:15] != f"{created:%Y%m%d-%H%M%S}":
        yield sign(f"its id says another time than created, {created:%F %T}")
    if not 0 <= record.wall_seconds <= LONGEST_S or not 0 <= record.train_seconds <= LONGEST_S:
        yield sign(f"wall_seconds={record.wall_seconds:g} and train_seconds={record.train_seconds:g}")
        return
    # of an attempt whose watcher was killed it is not known how long it took
    if not record.attempts and record.train_seconds > record.wall_seconds + 1 and record.status in ENDED:
        yield sign(f"it trained for {record.train_seconds:g} s and took {record.wall_seconds:g} s in all")
    if not run.times:
        return
    if not all(map(math.isfinite, run.times)):
        yield sign("its events have no times")
        return
    first, last = run.times[0], run.times[-1]
    if first < created.timestamp() - SLACK_S:
        yield sign(f"its first event is {created.timestamp() - first:.0f} s before it was created")
    told = record is not run.replayed  # without a record it is not known how long the run took
    if told and not record.attempts and first > created.timestamp() + record.wall_seconds + SLACK_S:
        yield sign(f"its first event is {first - created.timestamp():.0f} s after it was created")
    if any(later < earlier - SLACK_S for earlier, later in zip(run.times, run.times[1:], strict=False)):
        yield sign("its events are not in the order of their times")
    if last > now.timestamp() + SLACK_S:
        yield sign(f"its last event is of {datetime.fromtimestamp(min(last, 2e11), UTC):%F %T}, later than handed in")
    # a laptop that slept makes this longer, never shorter
    if not record.attempts and last - first < record.train_seconds - SLACK_S / 10:
        yield sign(f"it trained for {record.train_seconds:g} s, and its events span {last - first:.1f} s")


def _short(record: object, key: str) -> str:
    text = json.dumps(plain(getattr(record, key)))
    return text if len(text) <= 60 else f"{text[:28]} ... {text[-28:]}"
