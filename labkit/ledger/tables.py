"""Tables of the command: the phases of a run, runs side by side, predictions."""

from collections.abc import Mapping
from typing import Any

from labkit.ledger.records import Record
from labkit.ledger.table import NO_NUMBER, Table, numbers, words
from labkit.ledger.words import changed_words, error_words, loss_words, place_words
from labkit.memory.categories import CATEGORIES, HOST_CATEGORIES, MAIN_CATEGORIES, SHORT_NAMES, on_host
from labkit.memory.units import unit_of

_VISIBLE = 2**20 // 200
"""Bytes that a table in MiB with two digits shows."""

_MAIN = tuple(SHORT_NAMES[category] for category in MAIN_CATEGORIES)


def phase_table(record: Record) -> Table:
    """Every reported phase of a run: bytes by category at its end, and its peak. All in MiB; of several ranks the
    one with the highest peak."""
    report = record.fullest.memory
    phases = report.phases if report else []
    shown = [c for c in CATEGORIES if c not in HOST_CATEGORIES or any(p.end.get(c) for p in phases)]
    notes = []
    if HOST_CATEGORIES & set(shown):
        by_owner = "" if report is None or report.source == "CUDA" else "; the simulated GPU tells it by owner"
        notes.append(f"cpu: in host memory, not in end and peak{by_owner}")
    # a simulated GPU has no allocator, and no other process counts
    of_gpu = {"reserved": "reserved_bytes", "device used": "device_used_bytes"}
    of_gpu = {name: key for name, key in of_gpu.items() if any(getattr(p, key) is not None for p in phases)}
    columns = [
        *words("step", "micro", "phase"), *numbers(*(SHORT_NAMES[c] for c in shown), "end", "peak", *of_gpu),
    ]  # fmt: skip
    rows = []
    for p in phases:
        counts = [*(p.end.get(c, 0) for c in shown), p.end_bytes, p.peak_bytes]
        counts += [getattr(p, key) for key in of_gpu.values()]
        cells = [NO_NUMBER if n is None else f"{n / 2**20:.2f}" for n in counts]
        rows.append([str(p.step), str(p.micro_step), p.phase.replace("_", " "), *cells])
    whose = f" of rank {record.fullest.rank}" if record.ranks else ""
    return Table(f"{record.id} {record.experiment}: memory{whose} in MiB", columns, rows, notes, keys=3)


def compare_table(rows: list[dict[str, Any]], profile: str) -> Table:
    """One line a run. Bytes in MiB; each category's own peak, which need not fall together."""
    sources = sorted({row["source"] for row in rows if row["source"]})
    measured = f"MiB on the {', '.join(sources)}" if sources else "nothing measured yet"
    columns = [
        *numbers("#"), *words("experiment"), *words("what changed", most=44), *words("status", "expected", "died in"),
        *numbers("peak", "predicted", "error", "of", *_MAIN, "host", "time s", "loss"),
    ]  # fmt: skip
    number_of = {row["experiment"]: row["number"] for row in rows if row["number"] is not None}
    lines = []
    for row in rows:
        found = row["peak_by_category"]
        predicted = row["predicted"]
        mib = [row["capacity_bytes"] or 0, *(found[c] for c in MAIN_CATEGORIES), on_host(found)]
        lines.append([
            "" if row["number"] is None else str(row["number"]),
            row["experiment"],
            " ".join(f"{k}={v}" for k, v in row["overrides"].items()) or _against(row, number_of),
            row["status"] + (" (config edited since)" if row["outdated"] else ""),
            _expected_cell(row),
            place_words(row["died_in"]),
            f"{row['peak_bytes'] / 2**20:.1f}",
            f"{predicted['peak_bytes'] / 2**20:.1f}" if predicted else NO_NUMBER,
            error_words(predicted["error"]) if predicted else NO_NUMBER,
            *(f"{n / 2**20:.1f}" for n in mib),
            f"{row['train_seconds']:.1f}",
            loss_words(row["losses"][-1]) if row["losses"] else NO_NUMBER,
        ])  # fmt: skip
    return Table(f"profile {profile}, {measured}", columns, lines, keys=2)


def prediction_table(rows: list[dict[str, Any]], rank: int = 0) -> Table:
    """What was predicted of a rank for every phase, in MiB, and the signed error against what was measured."""
    shown = list(dict.fromkeys(r["what"] for r in rows if max(r["predicted_bytes"], r["measured_bytes"]) >= _VISIBLE))
    columns = [*words("step", "micro", "phase"), *numbers(*(SHORT_NAMES.get(what, what) for what in shown))]
    cells: dict[tuple[int, int, str], dict[str, str]] = {}
    for r in rows:
        visible = max(r["predicted_bytes"], r["measured_bytes"]) >= _VISIBLE
        error = f" {error_words(r['error'])}" if visible else ""
        place = r["step"], r["micro_step"], r["phase"]
        cells.setdefault(place, {})[r["what"]] = f"{r['predicted_bytes'] / 2**20:.2f}{error}"
    lines = [
        [str(step), str(micro_step), phase.replace("_", " "), *(row.get(what, NO_NUMBER) for what in shown)]
        for (step, micro_step, phase), row in cells.items()
    ]
    whose = f" for rank {rank}" if rank else ""
    return Table(f"predicted{whose} in MiB, and its error", columns, lines, keys=3)


def plan_table(rows: list[dict[str, Any]], gpu: str) -> Table:
    """One line a prediction; in GiB, or in MiB where the GPU holds less than one. Each category's own peak."""
    unit, unit_bytes = unit_of(*(row.get("capacity_bytes") or row.get("peak_bytes") for row in rows))
    of_numbers = numbers("peak", "of", "free", "reserved", *_MAIN, "host")
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["experiment"], "not predicted", "", *("" for _ in of_numbers)])
            continue
        found = row["peak_by_category"]
        counts = [row["peak_bytes"], row["capacity_bytes"], None, row["reserved_bytes"]]
        counts += [*(found[c] for c in MAIN_CATEGORIES), row["host_bytes"]]
        cells = [NO_NUMBER if n is None else f"{n / unit_bytes:.1f}" for n in counts]
        cells[2] = _free_cell(row["peak_bytes"], row["capacity_bytes"], unit_bytes)
        lines.append([row["experiment"], row["verdict"], place_words(row["died_in"]), *cells])
    return Table(f"predicted for {gpu}, {unit}", [*words("experiment", "verdict", "dies in"), *of_numbers], lines)


def _against(row: dict[str, Any], number_of: Mapping[str, int]) -> str:
    changed = changed_words(row["changed"])
    other = row["compare_with"]
    return f"vs {number_of.get(other, other)}: {changed}" if other else changed


def _free_cell(peak_bytes: int, capacity_bytes: int | None, unit_bytes: int) -> str:
    if capacity_bytes is None:
        return NO_NUMBER
    lacking = peak_bytes - capacity_bytes
    return f"lacks {lacking / unit_bytes:.1f}" if lacking > 0 else f"{-lacking / capacity_bytes:.0%}"


def _expected_cell(row: dict[str, Any]) -> str:
    if row["expected"] is None:
        return NO_NUMBER
    # the place is said where it makes the difference
    return row["expected"]["status"] + ("" if row["as_expected"] else f" {place_words(row['expected'])}").rstrip()
