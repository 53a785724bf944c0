"""Runs as text: one record, and the table of many."""

from collections.abc import Mapping
from typing import Any

from labkit.ledger.columns import WideTable
from labkit.ledger.records import Record
from labkit.memory.categories import CATEGORIES, HOST_CATEGORIES
from labkit.memory.units import counted, human_bytes

_SHORT = {
    "parameters": "params", "gradients": "grads", "optimizer_gpu": "optim", "activations": "activ",
    "temporaries": "temp",
}  # fmt: skip
_SHORT_OTHERS = {"parameters_cpu": "params cpu", "optimizer_cpu": "optim cpu", "unattributed": "unattr"}

_WORDS = {"optimizer_gpu": "optimizer state", "optimizer_cpu": "optimizer state", "parameters_cpu": "parameters"}

_VISIBLE = 2**20 // 200
"""Bytes that a table in MiB with two digits shows."""


def summary(record: Record) -> str:
    """How a run ended, in a few lines."""
    source = record.report.source if record.report else "nothing measured"
    against = {None: "", True: " (as expected)", False: " (not as expected)"}[record.as_expected]
    typed = "".join(f" {key}={value}" for key, value in record.overrides.items())
    lines = [f"{record.experiment}{typed} on {record.profile}: {_status_words(record.status)}{against}"]
    if record.died_in:
        died = record.died_in
        place = f"the {died['phase'].replace('_', ' ')} of step {died['step']}, micro step {died['micro_step']}"
        lines.append(f"  died in {place}")
    if record.out_of_memory:
        oom = record.out_of_memory
        asked = oom["requested_bytes"]
        of = f" of {human_bytes(oom['capacity_bytes'])}" if oom["capacity_bytes"] else ""
        lines += [f"  {record.reason}"] if asked is None else []
        lines.append(
            ("  " if asked is None else f"  asked for {human_bytes(asked)} with ")
            + f"{human_bytes(oom['allocated_bytes'])}{of} in use: {parts(oom['held'])}"
        )
    elif record.reason:
        lines.append(f"  {record.reason}")
    elif record.report and record.report.peak_phase:
        phase = record.report.peak_phase
        capacity = record.report.capacity_bytes
        of = f" of {human_bytes(capacity)}" if capacity else ""
        where = f"in {activity(phase.phase)} of step {phase.step}: {parts(phase.peak)}"
        if record.peak_bytes > 1.01 * phase.peak_bytes:  # while the model was made, say; not a few blocks more
            where = f"outside the reported phases; in these {human_bytes(phase.peak_bytes)}, {where}"
        lines.append(f"  peak {human_bytes(record.peak_bytes)}{of} ({source}), {where}")
    if "quantized_bytes" in record.model:
        lines.append(
            f"  weights in 4 bits with their scales {human_bytes(record.model['quantized_bytes'])}, not quantized: "
            + parts(record.model["unquantized_bytes"])
        )
    for attempt in record.attempts:
        lines.append(f"  went on behind step {attempt['resumed_at_step']}, after it had ended {attempt['status']}")
    if record.others_bytes:
        lines.append(f"  {human_bytes(record.others_bytes)} of the GPU were in use before it started")
    if record.losses:
        lines.append(
            f"  loss {loss_words(record.losses[0])} to {loss_words(record.losses[-1])} in "
            f"{counted(len(record.losses), 'optimizer step')}, {counted(record.samples, 'sample')}, "
            f"{record.train_seconds:.1f} s"
        )
    if record.validation_losses:
        lines.append("  validation loss " + ", ".join(map(loss_words, record.validation_losses)))
    return "\n".join(lines)


def phase_table(record: Record) -> WideTable:
    """Every reported phase of a run: bytes by category at its end, and its peak. All in MiB."""
    table = WideTable(f"{record.id} {record.experiment}: memory in MiB", keys=3)
    table.add_text("step", "micro", "phase")
    names = _SHORT | _SHORT_OTHERS
    phases = record.report.phases if record.report else []
    shown = [c for c in CATEGORIES if c not in HOST_CATEGORIES or any(p.end.get(c) for p in phases)]
    if HOST_CATEGORIES & set(shown):
        by_owner = "" if record.report.source == "CUDA" else "; the virtual GPU tells it by owner"
        table.caption = f"cpu: in host memory, not in end and peak{by_owner}"
    # a virtual GPU has no allocator, and nothing is beside the run
    of_gpu = {"reserved": "reserved_bytes", "device used": "device_used_bytes"}
    of_gpu = {name: key for name, key in of_gpu.items() if any(getattr(p, key) is not None for p in phases)}
    table.add_numbers(*(names.get(c, c) for c in shown), "end", "peak", *of_gpu)
    for p in phases:
        numbers = [*(p.end.get(c, 0) for c in shown), p.end_bytes, p.peak_bytes]
        numbers += [getattr(p, key) for key in of_gpu.values()]
        phase = p.phase.replace("_", " ")
        table.add_row(
            str(p.step), str(p.micro_step), phase, *("-" if n is None else f"{n / 2**20:.2f}" for n in numbers)
        )
    return table


def compare_table(rows: list[dict[str, Any]], profile: str) -> WideTable:
    """One line a run. Bytes in MiB; each category's own peak, which need not fall together."""
    sources = sorted({row["source"] for row in rows if row["source"]})
    measured = f"MiB on the {', '.join(sources)}" if sources else "nothing measured yet"
    table = WideTable(f"profile {profile}, {measured}", keys=2)
    table.add_numbers("#")
    table.add_text("experiment")
    table.add_text("what changed", most=44)
    table.add_text("status", "expected", "died in")
    table.add_numbers("peak", "predicted", "error", "of", *_SHORT.values(), "host", "time s", "loss")
    numbers = {row["experiment"]: row["number"] for row in rows}
    for row in rows:
        found = row["peak_by_category"]
        predicted = row["predicted"]
        mib = [row["capacity_bytes"] or 0, *(found[c] for c in _SHORT)]
        mib.append(sum(found[c] for c in HOST_CATEGORIES))
        table.add_row(
            str(row["number"]),
            row["experiment"],
            " ".join(f"{k}={v}" for k, v in row["overrides"].items()) or _against(row, numbers),
            row["status"] + (" (config edited since)" if row["outdated"] else ""),
            _expected_cell(row),
            _place(row["died_in"]),
            f"{row['peak_bytes'] / 2**20:.1f}",
            f"{predicted['peak_bytes'] / 2**20:.1f}" if predicted else "-",
            error_words(predicted["error"]) if predicted else "-",
            *(f"{n / 2**20:.1f}" for n in mib),
            f"{row['train_seconds']:.1f}",
            loss_words(row["losses"][-1]) if row["losses"] else "-",
        )
    return table


def room_words(peak_bytes: int, capacity_bytes: int | None) -> str:
    """What a peak leaves of the capacity, ``17% free``, or how much more it needs: no share is below zero."""
    if capacity_bytes is None:
        return "no capacity given"
    if peak_bytes > capacity_bytes:
        return f"needs {human_bytes(peak_bytes - capacity_bytes)} more"
    return f"{1 - peak_bytes / capacity_bytes:.0%} free"


def error_words(error: float | None) -> str:
    """A signed error in percent; None where there is nothing to compare with."""
    return "-" if error is None else f"{error:+z.2%}"


def beside_table(rows: list[dict[str, Any]]) -> WideTable:
    """What was predicted for every phase, in MiB, and the signed error against what was measured."""
    table = WideTable("predicted in MiB, and its error", keys=3)
    table.add_text("step", "micro", "phase")
    names = _SHORT | _SHORT_OTHERS
    shown = list(dict.fromkeys(r["what"] for r in rows if max(r["predicted_bytes"], r["measured_bytes"]) >= _VISIBLE))
    table.add_numbers(*(names.get(what, what) for what in shown))
    cells: dict[tuple[int, int, str], dict[str, str]] = {}
    for r in rows:
        visible = max(r["predicted_bytes"], r["measured_bytes"]) >= _VISIBLE
        error = f" {error_words(r['error'])}" if visible else ""
        place = r["step"], r["micro_step"], r["phase"]
        cells.setdefault(place, {})[r["what"]] = f"{r['predicted_bytes'] / 2**20:.2f}{error}"
    for (step, micro_step, phase), row in cells.items():
        table.add_row(str(step), str(micro_step), phase.replace("_", " "), *(row.get(what, "-") for what in shown))
    return table


def plan_table(rows: list[dict[str, Any]], gpu: str) -> WideTable:
    """One line a prediction; in GiB, or in MiB where the GPU holds less than one. Each category's own peak."""
    large = max((row.get("capacity_bytes") or row.get("peak_bytes", 0) for row in rows), default=0) >= 2**30
    unit, words = (2**30, "GiB") if large else (2**20, "MiB")
    table = WideTable(f"predicted for {gpu}, {words}")
    table.add_text("experiment", "verdict", "dies in")
    numbers_of = ("peak", "of", "free", "reserved", *_SHORT.values(), "host")
    table.add_numbers(*numbers_of)
    for row in rows:
        if "error" in row:
            table.add_row(row["experiment"], "not predicted", "", *("" for _ in numbers_of))
            continue
        found = row["peak_by_category"]
        numbers = [row["peak_bytes"], row["capacity_bytes"], None, row["reserved_bytes"]]
        numbers += [*(found[c] for c in _SHORT), row["host_bytes"]]
        cells = ["-" if n is None else f"{n / unit:.1f}" for n in numbers]
        cells[2] = _free_cell(row["peak_bytes"], row["capacity_bytes"], unit)
        table.add_row(row["experiment"], row["verdict"], _place(row["died_in"]), *cells)
    return table


def changed_words(changed: Mapping[str, list[Any]]) -> str:
    """``"batch_size 32 > 16, lr 0.0005 > 0.002"``."""

    def short(value: Any) -> str:
        return "-" if value is None else str(value).split("/")[-1].removeprefix("blip2-")

    return ", ".join(f"{key} {short(old)} > {short(new)}" for key, (old, new) in changed.items())


def loss_words(loss: float | None) -> str:
    """A loss with three digits; None was not a finite number."""
    return "not a number" if loss is None else f"{loss:.3f}"


def _against(row: dict[str, Any], numbers: Mapping[str, int]) -> str:
    changed = changed_words(row["changed"])
    other = row["compare_with"]
    return f"vs {numbers.get(other, other)}: {changed}" if other else changed


def activity(phase: str) -> str:
    """What is done in the time that a phase's report is about."""
    return "load batch" if phase == "before_forward" else phase.removeprefix("after_").replace("_", " ")


def _free_cell(peak_bytes: int, capacity_bytes: int | None, unit: int) -> str:
    if capacity_bytes is None:
        return "-"
    lacking = peak_bytes - capacity_bytes
    return f"lacks {lacking / unit:.1f}" if lacking > 0 else f"{-lacking / capacity_bytes:.0%}"


def _status_words(status: str) -> str:
    return "out of memory" if status == "oom" else status


def _place(died: Mapping[str, Any] | None) -> str:
    if not died or died.get("phase") is None:
        return ""
    return f"{died['phase'].replace('_', ' ')}, step {died['step']}"


def _expected_cell(row: dict[str, Any]) -> str:
    if row["expected"] is None:
        return "-"
    # the place is said where it makes the difference
    return row["expected"]["status"] + ("" if row["as_expected"] else f" {_place(row['expected'])}").rstrip()


def parts(by_category: Mapping[str, int]) -> str:
    """Largest first; what is in host memory stands behind the rest."""
    on_device, on_host = [
        ", ".join(
            f"{_WORDS.get(c, c.replace('_', ' '))} {human_bytes(n)}"
            for n, c in sorted(((n, c) for c, n in by_category.items() if n >= 2**10), reverse=True)
            if (c in HOST_CATEGORIES) == in_host_memory
        )
        for in_host_memory in (False, True)
    ]
    return f"{on_device}; in host memory {on_host}" if on_host else on_device
