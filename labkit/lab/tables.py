"""Tables: results side by side, the whole ledger, advice."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.config.layers import Resolved
from labkit.config.schema import RunConfig, keys
from labkit.lab.result import Result, sources
from labkit.lab.views import Lines
from labkit.ledger.compare import compare
from labkit.ledger.predicted import prediction_of
from labkit.ledger.table import NO_NUMBER, Table
from labkit.ledger.view import View
from labkit.memory.categories import MAIN_CATEGORIES, SHORT_NAMES, on_host
from labkit.memory.units import counted, human_bytes, unit_of
from labkit.runs.ranks.files import side_by_side

if TYPE_CHECKING:
    from labkit.lab.lab import Lab
    from labkit.plan.advise import Advice

_TOLD = ("model_name", "precision", "optim", "lr", "batch_size", "accumulate_grad_batches", "strategy", "devices")
_OWN_HIGHEST = "Each category shows its own highest; they need not fall together."
_OF_PREDICTED = (
    "predicted is the peak with memory enough; error is how far the prediction is above (+) or below (-) the "
    "measurement, in the phases that were reached."
)
_OF_RANKS = (
    "The line of a run on several devices has the memory of its first rank; those below it have the others'. What was "
    "predicted stands beside the rank that it is about."
)


def results(found: Sequence[Result], unit: tuple[str, int], title: str = "") -> Table:
    """One line a result."""
    word, unit_bytes = unit_of(*(r.peak_bytes for r in found), *(r.capacity_bytes for r in found)) if found else unit
    columns = [
        "experiment", "source", "status", "peak", "of", "predicted", "error",
        *(SHORT_NAMES[c] for c in MAIN_CATEGORIES), "host", "samples/s", "samples", "loss",
    ]  # fmt: skip
    rows = [row for result in found for row in (_row(result, unit_bytes), *_other_ranks(result, unit_bytes))]
    cells = {name: {row[at] for row in rows} for at, name in enumerate(columns)}
    capacities = cells["of"] - {NO_NUMBER}
    head = f"{title or 'Runs'}, memory in {word}" + (f" of {capacities.pop()}" if len(capacities) == 1 else "")
    keep = [at for at, name in enumerate(columns) if not rows or not _says_nothing(name, cells[name])]
    shown = [columns[at] for at in keep]
    notes = [_OWN_HIGHEST + " host is kept in host memory." * ("host" in shown)]
    notes += [_OF_PREDICTED] if "predicted" in shown else []
    notes += [_OF_RANKS] if any(result.record.ranks for result in found) else []
    return Table(f"{head}, {sources(found)}", shown, [[row[at] for at in keep] for row in rows], notes)


def _says_nothing(column: str, cells: set[str]) -> bool:
    """Whether the title says it for all lines, or there is nothing to say: it leaves room for the other columns."""
    if column in ("source", "of"):
        return len(cells - {NO_NUMBER}) <= 1
    return cells <= {NO_NUMBER, "0.0" if column == "host" else NO_NUMBER}


def ledger(lab: "Lab") -> View:
    """The newest run of every experiment of the lab's machine; in plan mode what is planned for them."""
    found = newest(lab)
    if not found:
        return Lines(f"no run on {lab.profile.name} yet", ["lab.run makes one"], mark="open")
    table = results(found, lab.unit, f"The ledger of {lab.profile.name}")
    expected = lab.profile.expected
    missing = [name for name in expected if name not in {result.record.experiment for result in found}]
    if missing:
        table.notes.append(f"not run yet: {', '.join(missing)}")
    return table


def newest(lab: "Lab") -> list[Result]:
    """The newest result of every experiment as the course has it, in its order, then those with typed values."""
    if lab.plans_only:
        planned = [lab.recall(name) for name in lab.profile.expected or _course(lab)]
        return [result for result in planned if isinstance(result, Result)]
    rows = compare(lab.workspace, lab.ledger, lab.profile.name)
    rows.sort(key=lambda row: bool(row["overrides"]))
    return [Result(lab.ledger.find(row["run"]).read()) for row in rows if row["status"] != "running"]


def beside_reference(lab: "Lab") -> View:
    """The same, each next to the run that ships with the course, which is marked so."""
    from labkit.lab.reference import read_reference

    found = newest(lab)
    shipped = {result.name: result for result in read_reference(lab.workspace, lab.profile.name)}
    own = {result.name: result for result in found}
    names = list(dict.fromkeys([*(name for name in shipped if name in lab.profile.expected), *own]))
    both = [one for name in names for one in (own.get(name), shipped.get(name)) if one is not None]
    table = results(both, lab.unit, f"The ledger of {lab.profile.name}, next to what ships with the course")
    made = next(iter(shipped.values())).made if shipped else "nothing"
    table.notes.append(f"shipped: made {made}; times are of that machine, and no run of yours")
    return table


def settings(configs: Mapping[str, RunConfig]) -> Table:
    """A line a value; those in which they differ, or of one all that a student may want to know."""
    values = {name: config.to_dict() for name, config in configs.items()}
    differing = [key for key in keys() if len({str(found[key]) for found in values.values()}) > 1]
    rows = [[key, *(str(found[key]) for found in values.values())] for key in differing or _TOLD]
    return Table(", ".join(values), ["key", *values], rows, ["what is not named is the same"] * (len(values) > 1))


def advice(name: str, resolved: Resolved, found: "Advice") -> View:
    """Proposals, the cheapest first; of a run that fits the largest batch."""
    base = found.prediction
    capacity = human_bytes(base.capacity_bytes or 0)
    head = f"{name} on {resolved.profile.name}: {base.verdict} (predicted), "
    head += f"peak {human_bytes(base.peak_bytes)} of {capacity}"
    if found.largest is not None and found.largest.batch_size is not None:
        return Lines(head, [f"the largest batch_size that fits is {found.largest.batch_size}"])
    if not found.proposals:
        return Lines(head, ["nothing that labkit can change makes it fit"])
    unit, unit_bytes = unit_of(base.peak_bytes)
    rows = [
        [
            ", ".join([*(f"{k}={v}" for k, v in proposal.environment.items()), *proposal.words()]),
            proposal.kind, proposal.cost, f"{proposal.prediction.peak_bytes / unit_bytes:.1f}",
            f"{proposal.saved_bytes / unit_bytes:.1f}", f"{proposal.prediction.margin or 0:.0%}",
        ]
        for proposal in found.proposals
    ]  # fmt: skip
    return Table(head, ["change", "paid with", "what it costs", f"peak {unit}", "saved", "free"], rows,
                 [f"{counted(found.plans, 'run')} planned. Predicted; costs are an estimate in words."])  # fmt: skip


def _row(result: Result, unit_bytes: int) -> list[str]:
    record, peaks = result.record, result.peaks
    told = _told(result, 0, unit_bytes)
    died = record.died_in
    place = f" in {died.phase.replace('_', ' ')}, step {died.step}" if died else ""

    def size(count: float | None) -> str:
        return NO_NUMBER if count is None else f"{count / unit_bytes:.1f}"

    speed, loss = result.samples_per_second, result.last_loss
    return [
        result.name, result.source, result.status + place, size(result.peak_bytes or None),
        size(result.capacity_bytes), *told,
        *(size(peaks[c] if result.peak_bytes else None) for c in MAIN_CATEGORIES),
        size(on_host(peaks) if result.peak_bytes else None),
        NO_NUMBER if speed is None else f"{speed:.1f}", NO_NUMBER if result.planned else str(record.samples),
        NO_NUMBER if loss is None else f"{loss:.3f}",
    ]  # fmt: skip


def _told(result: Result, rank: int, unit_bytes: int) -> list[str]:
    """Cells of the predicted peak and its error, in the row of the rank that the prediction is about."""
    told = None if result.planned else prediction_of(result.record)
    if told is None or told["rank"] != rank:
        return [NO_NUMBER] * 2
    error = told["error"]
    return [f"{told['peak_bytes'] / unit_bytes:.1f}", NO_NUMBER if error is None else f"{error:+z.2%}"]


def _other_ranks(result: Result, unit_bytes: int) -> list[list[str]]:
    return [
        [
            f"\u00a0\u00a0rank {row['rank']}", result.source, row["status"] or "",
            f"{row['peak_bytes'] / unit_bytes:.1f}",
            NO_NUMBER, *_told(result, row["rank"], unit_bytes),
            *(f"{row['by_category'][c] / unit_bytes:.1f}" for c in MAIN_CATEGORIES),
            f"{on_host(row['by_category']) / unit_bytes:.1f}",
            *[NO_NUMBER] * 3,
        ]
        for row in side_by_side(result.record)[1:]
    ]  # fmt: skip


def _course(lab: "Lab") -> list[str]:
    from labkit.config.profiles import load_profile

    return list(load_profile(lab.workspace, "tiny").expected)
