"""Quantities: numbers of runs that lessons compare. Each gives None where a run does not tell."""

from collections.abc import Callable

from labkit.lab.lesson import Runs
from labkit.lab.result import Result, visible
from labkit.ledger.words import parts
from labkit.memory.categories import HOST_CATEGORIES
from labkit.memory.report import MemoryReport
from labkit.memory.units import human_bytes
from labkit.runs.ranks.files import side_by_side

Number = Callable[[Runs], float | None]

STATES = ("parameters", "gradients", "optimizer_gpu")
"""What a model takes whatever its batch."""


def held(run: str, *categories: str) -> Number:
    """Highest bytes of these categories in a run, each its own."""
    return lambda runs: sum(runs[run].peaks[c] for c in categories) if runs[run].report else None


def predicted(run: str, *categories: str) -> Number:
    """The same as predicted, with memory enough: also for a run that ended before it got there."""

    def number(runs: Runs) -> float | None:
        found = runs[run].prediction
        return None if found is None else sum(found.category_peaks[c] for c in categories)

    return number


def kept(run: str, *categories: str) -> Number:
    """Bytes of these categories after the last optimizer step that was reported: what stays between steps."""
    return lambda runs: None if runs[run].report is None else _after_a_step(runs[run].report, categories)


def over_ranks(run: str, *categories: str) -> Number:
    """The same, summed over all devices of a run; None where only one of them is known, as when it was planned."""

    def number(runs: Runs) -> float | None:
        record = runs[run].record
        memories = [record.memory, *(one.memory for one in record.ranks)]
        if len(memories) != record.config["devices"] or not all(memories):
            return None
        sizes = [_after_a_step(memory, categories) for memory in memories]
        return None if None in sizes else sum(sizes)

    return number


def of_ranks(result: Result) -> list[str]:
    """What each device of a run held, a line each."""
    rows = side_by_side(result.record)
    if not rows:
        return [f"one of {result.config['devices']} devices: peak {size(result.peak_bytes)}; the others are like it"]
    return [f"rank {row['rank']}: peak {size(row['peak_bytes'])}, {sorted_parts(row['by_category'])}" for row in rows]


def _after_a_step(report: MemoryReport, categories: tuple[str, ...]) -> int | None:
    ends = [phase.end for phase in report.phases if phase.phase == "after_optimizer_step"]
    return sum(ends[-1][category] for category in categories) if ends else None


def on_host(run: str) -> Number:
    """Highest bytes in host memory."""
    return held(run, *sorted(HOST_CATEGORIES))


def peak(run: str) -> Number:
    """Highest device bytes."""
    return lambda runs: runs[run].peak_bytes if runs[run].report else None


def predicted_peak(run: str) -> Number:
    """Highest device bytes as predicted, with memory enough."""
    return lambda runs: runs[run].prediction.peak_bytes if runs[run].prediction else None


def capacity(run: str) -> Number:
    """What the device holds."""
    return lambda runs: runs[run].capacity_bytes


def needed(run: str) -> Number:
    """Highest device bytes; of a run out of memory what was in use and asked for. None where it ended otherwise."""

    def number(runs: Runs) -> float | None:
        found = runs[run].record.out_of_memory
        if found is None or found.requested_bytes is None:
            return runs[run].peak_bytes if runs[run].status == "ok" or runs[run].planned else None
        return found.allocated_bytes + found.requested_bytes

    return number


def last_loss(run: str) -> Number:
    """Loss of the last optimizer step."""
    return lambda runs: runs[run].last_loss


def ratio(left: Number, right: Number) -> Number:
    """One over the other."""

    def number(runs: Runs) -> float | None:
        over, under = left(runs), right(runs)
        return None if over is None or not under else over / under

    return number


def fits(run: str) -> Callable[[Runs], str | None]:
    """``fits`` or ``out of memory``; None for a run that ended otherwise."""
    return lambda runs: {"ok": "fits", "oom": "out of memory"}.get(runs[run].status)


def activity_at_peak(result: Result) -> str | None:
    """What was being done at the highest moment: ``forward``, ``backward`` or ``optimizer step``."""
    report = result.report
    if report is None or report.peak_phase is None:
        return None
    return report.peak_phase.phase.removeprefix("after_").replace("_", " ")


def died_in(run: str) -> Callable[[Runs], str | None]:
    """What a run was doing when memory ran out; None for one that it did not."""

    def words(runs: Runs) -> str | None:
        found = runs[run].record.died_in
        return found.phase.replace("_", " ") if found else None

    return words


def chosen(number: Number, run: str, experiment: str, *keys: str) -> Number:
    """A number of a run that a student has chosen; None unless it is this experiment, changed in these keys alone.
    Without ``keys`` any may be changed."""

    def found(runs: Runs) -> float | None:
        record = runs[run].record
        asked = record.experiment == experiment and (not keys or set(record.overrides) <= {*keys})
        return number(runs) if asked else None

    return found


def size(number: float | None) -> str:
    """Bytes in words."""
    return "unknown" if number is None else human_bytes(number)


def times(number: float | None) -> str:
    """A ratio in words."""
    return "unknown" if number is None else f"{number:.2f} times"


def sorted_parts(by_category: dict[str, int]) -> str:
    """A breakdown, the largest first, without what is too small to see."""
    return parts(visible(by_category))
