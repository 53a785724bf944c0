"""Predicted: what a record's prediction says, compared with what was measured."""

from typing import Any

from labkit.ledger.parts import Predicted
from labkit.ledger.records import Record
from labkit.ledger.shape import plain
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import MemoryReport

TEMPORARY = frozenset({"temporaries", "unattributed"})
"""Categories that a prediction says nothing about: temporaries, and what is not assigned."""


def prediction_rows(record: Record) -> list[dict[str, Any]]:
    """What was predicted and what was measured, for every phase that has both.

    Each row has ``step, micro_step, phase, what, predicted_bytes, measured_bytes, error``. ``what`` is ``peak``,
    ``end``, ``reserved`` or a category at the phase's end. ``error`` is predicted over measured minus 1: above zero
    too much was predicted; it is None where nothing was measured. Two micro steps are predicted of many, and the
    second stands for the last. Of several ranks it is the one that the prediction is about.
    """
    predicted = record.prediction
    if not isinstance(predicted, Predicted) or (measured := _measured(record, predicted.rank or 0)) is None:
        return []
    last = record.config["accumulate_grad_batches"] - 1
    real = {(p.step, p.micro_step, p.phase): p for p in measured.phases}
    rows = []
    for phase in predicted.phases:
        place = (phase.step, last if phase.micro_step else 0, phase.phase)
        if place not in real:
            continue
        found = real[place]
        pairs = {"peak": (phase.peak_bytes, found.peak_bytes), "end": (phase.end_bytes, found.end_bytes)}
        if phase.reserved_bytes is not None and found.reserved_bytes is not None:
            pairs["reserved"] = (phase.reserved_bytes, found.reserved_bytes)
        pairs |= {c: (phase.end[c], found.end.get(c, 0)) for c in CATEGORIES if c not in TEMPORARY}
        rows += [
            dict(zip(("step", "micro_step", "phase"), place, strict=True))
            | {"what": what, "predicted_bytes": p, "measured_bytes": m, "error": p / m - 1 if m else None}
            for what, (p, m) in pairs.items()
        ]
    return rows


def _measured(record: Record, rank: int) -> MemoryReport | None:
    """What this rank has measured."""
    return next((one.memory for one in record.every_rank if one.rank == rank), None)


def prediction_of(record: Record) -> dict[str, Any] | None:
    """A record's prediction in short, or None: ``rank, verdict, peak_bytes, peak_by_category, died_in, error`` and
    ``by_phase``.

    ``peak_bytes`` is what the reported phases were to reach, with memory enough. ``error`` is signed, of the peak of
    those that were reached. ``by_phase`` has for each phase the highest peak predicted and measured, and the error.
    """
    predicted = record.prediction
    if not isinstance(predicted, Predicted):
        return None
    peaks: dict[str, dict[str, Any]] = {}
    for row in prediction_rows(record):
        if row["what"] == "peak":
            best = peaks.setdefault(row["phase"], row)
            if row["measured_bytes"] > best["measured_bytes"]:
                peaks[row["phase"]] = row
    by_phase = {
        phase: {key: row[key] for key in ("predicted_bytes", "measured_bytes", "error")} for phase, row in peaks.items()
    }
    highest = max(by_phase.values(), key=lambda row: row["measured_bytes"], default=None)
    return {
        "rank": predicted.rank or 0, "verdict": predicted.verdict, "peak_bytes": predicted.peak_bytes,
        "peak_by_category": predicted.category_peaks, "died_in": plain(predicted.died_in),
        "error": highest["error"] if highest else None, "by_phase": by_phase,
    }  # fmt: skip
