"""Runs side by side: a row for each experiment of a profile, made from the ledger alone."""

from collections.abc import Callable
from typing import Any

from labkit.config.layers import Experiment, Resolved, course, resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.measured import highest
from labkit.ledger.newest import newest
from labkit.ledger.predicted import prediction_of
from labkit.ledger.records import Record
from labkit.ledger.shape import plain


def compare(
    workspace: Workspace, ledger: Ledger, profile: str, on_skipped: Callable[[LedgerError], None] = lambda error: None
) -> list[dict[str, Any]]:
    """The newest run of each experiment on ``profile``, in the order of the course; runs with typed values after it.

        compare(workspace, Ledger(workspace.runs), "tiny")[0]["peak_bytes"]

    Each row has ``number, experiment, overrides, changed, status, expected_status, expected, as_expected, outdated,
    died_in, reason, source, peak_bytes, capacity_bytes, peak_by_category, predicted, phases, train_seconds, losses,
    samples, run``. ``phases`` has for each phase the reported occurrence with the highest peak, ``predicted`` what
    ``prediction_of`` gives. Of several ranks the one with the highest peak is told. ``outdated`` tells that the
    experiment or the profile was edited since. ``on_skipped`` hears of folders that cannot be read. Raises
    ``ConfigError`` for an unknown profile.
    """
    load_profile(workspace, profile)
    records = newest(ledger, profile, on_skipped)
    rows = []
    for experiment in course(workspace):
        resolved = resolve(workspace, experiment.name, None, profile)
        same = [record for record in records if record.experiment == experiment.name]
        for record in sorted(same, key=lambda r: (bool(r.overrides), r.created)):
            rows.append(_row(resolved, record) | {"changed": changes(workspace, experiment, profile)})
    return rows


def changes(workspace: Workspace, experiment: Experiment, profile: str) -> dict[str, list[Any]]:
    """What an experiment changes against the one it is compared with, on a profile's machine: key, old, new."""
    if experiment.compare_with is None:
        return {}
    before = resolve(workspace, experiment.compare_with, None, profile).config.to_dict()
    after = resolve(workspace, experiment.name, None, profile).config.to_dict()
    return {key: [before[key], after[key]] for key in after if before[key] != after[key]}


def missing(workspace: Workspace, profile: str, rows: list[dict[str, Any]]) -> list[str]:
    """Experiments of a profile that have no run, one that is outdated, or one that ended otherwise than expected."""
    good = {row["experiment"] for row in rows if row["as_expected"] and not row["outdated"] and not row["overrides"]}
    return [name for name in load_profile(workspace, profile).expected if name not in good]


def _row(resolved: Resolved, record: Record) -> dict[str, Any]:
    fullest = record.fullest
    report = fullest.memory
    phases = {} if report is None else {name: p.to_dict() | {"end_bytes": p.end_bytes, "peak_bytes": p.peak_bytes}
                                        for name, p in report.by_phase.items()}  # fmt: skip
    return {
        "number": resolved.experiment.number,
        "experiment": record.experiment,
        "overrides": record.overrides,
        "compare_with": resolved.experiment.compare_with,
        "status": record.status,
        "expected_status": record.expected.status if record.expected else None,
        "expected": plain(record.expected),
        "as_expected": record.as_expected,
        "outdated": not record.overrides and record.config_hash != resolved.config.hash,
        "died_in": plain(record.died_in),
        "reason": record.reason,
        "source": report.source if report else None,
        "peak_bytes": fullest.peak_bytes,
        "capacity_bytes": report.capacity_bytes if report else resolved.config.capacity_bytes,
        "peak_by_category": highest(report, fullest.held or {}),
        "predicted": prediction_of(record),
        "phases": phases,
        "train_seconds": record.train_seconds,
        "losses": record.losses,
        "samples": record.samples,
        "run": record.id,
    }
