"""Figures of memory: the phases of a step, predicted and measured, a bar a run."""

import textwrap
from collections.abc import Sequence

from labkit.lab.figures import Figure, canvas, capacity_line, inks, legend, stack
from labkit.lab.result import Result, sources
from labkit.ledger.predicted import prediction_of
from labkit.ledger.words import activity
from labkit.memory.categories import STACKED_CATEGORIES
from labkit.memory.report import PhaseMemory
from labkit.memory.units import human_bytes, unit_of


def phases(results: Sequence[Result]) -> Figure:
    """The first two optimizer steps of one result: a bar a phase at its highest moment, a mark at its end."""
    result = results[0]
    report = result.report
    assert report is not None
    shown = _first_steps(report.phases)
    peak_bytes = max(p.peak_bytes for p in shown)
    unit, unit_bytes = unit_of(peak_bytes, report.capacity_bytes)
    source = f"{result.said} ({result.record.profile}); each bar at the highest moment of its phase"
    stands = "; two micro steps stand for all" * (result.planned and result.config["accumulate_grad_batches"] > 2)
    source += stands
    drawing, axes = canvas(3.9, f"{result.name}: memory over the phases of a step", source)
    labelled: set[str] = set()
    places = _with_gaps(shown)
    for at, phase in zip(places, shown, strict=True):
        stack(axes, at, phase.peak, unit_bytes, 0.8, labelled=labelled)
    ends = [p.end_bytes / unit_bytes for p in shown]
    axes.hlines(
        ends, [at - 0.45 for at in places], [at + 0.45 for at in places], color=inks()[0], label="left at its end"
    )
    if result.record.out_of_memory is not None:
        _death(axes, result, places[-1] + 1, unit_bytes, labelled)
        places = [*places, places[-1] + 1]
    capacity_line(axes, report.capacity_bytes, unit_bytes)
    names = [activity(p.phase).replace(" ", "\n") for p in shown]
    names += [_death_words(result)] * (len(places) - len(shown))
    many = any(p.micro_step for p in shown)
    axes.set_xticks(places, names, fontsize=7.5 if many else 8, rotation=45 if many else 0)
    axes.set_ylabel(f"device memory in {unit}")
    axes.set_ylim(0, 1.2 * max(peak_bytes, report.capacity_bytes or 0) / unit_bytes)
    for step, micro_step in dict.fromkeys((p.step, p.micro_step) for p in shown):
        first = next(at for at, p in zip(places, shown, strict=False) if (p.step, p.micro_step) == (step, micro_step))
        words = f"step {step},\nmicro step {micro_step}" if many else f"step {step}"
        axes.annotate(words, (first - 0.4, 1), xycoords=("data", "axes fraction"), fontsize=9, va="top")
    legend(drawing, axes)
    highest = report.peak_phase
    assert highest is not None
    alt = (
        f"Stacked bars of device memory by category for each phase of {result.name}, {result.said}{stands}. The "
        f"highest phase has {human_bytes(peak_bytes)}, in the {activity(highest.phase)} of step {highest.step}. "
        + ("The last bar is what was held when memory ran out. " if result.record.out_of_memory else "")
        + _capacity_words(result)
    )
    return Figure(drawing, alt)


def compared(results: Sequence[Result]) -> Figure:
    """Predicted and measured peak of every phase, with the signed error; of the first result that was run."""
    result = next(r for r in results if not r.planned)
    told = prediction_of(result.record)
    pairs = told["by_phase"] if told else {}
    highest = max((max(p["predicted_bytes"], p["measured_bytes"]) for p in pairs.values()), default=0)
    unit, unit_bytes = unit_of(highest, result.capacity_bytes)
    drawing, axes = canvas(
        3.4, f"{result.name}: predicted and measured", f"highest moment of each phase; {result.said}"
    )
    for at, pair in enumerate(pairs.values()):
        for shift, key, colour, hatch in _PAIR:
            label = key.removesuffix("_bytes") if at == 0 else None
            axes.bar(
                at + shift, pair[key] / unit_bytes, 0.38, color=colour, hatch=hatch, edgecolor="white", label=label
            )
        top = max(pair["predicted_bytes"], pair["measured_bytes"]) / unit_bytes
        axes.annotate(f"{pair['error']:+z.2%}", (at, top), ha="center", va="bottom", fontsize=9)
    capacity_line(axes, result.capacity_bytes, unit_bytes)
    axes.set_xticks(range(len(pairs)), [activity(phase) for phase in pairs])
    axes.set_ylabel(f"peak in {unit}")
    axes.set_ylim(0, 1.15 * max(highest, result.capacity_bytes or 0) / unit_bytes)
    legend(drawing, axes)
    said = ", ".join(
        f"{activity(phase)} {human_bytes(pair['measured_bytes'])}, error {pair['error']:+z.2%}"
        for phase, pair in pairs.items()
    )
    alt = f"Pairs of bars, predicted and {result.said}, for each phase of {result.name}: {said}."
    return Figure(drawing, alt)


def bars(results: Sequence[Result]) -> Figure:
    """A lying bar a run, in the order given: its highest moment by category, against the capacity."""
    moments = [_highest_moment(result) for result in results]
    totals = [sum(moment.get(c, 0) for c in STACKED_CATEGORIES) for moment in moments]
    unit, unit_bytes = unit_of(*totals, *(r.capacity_bytes for r in results))
    source = sources(results)
    drawing, axes = canvas(1.3 + 0.4 * len(results), "Highest moment of each run, by category", source)
    labelled: set[str] = set()
    capacity = max((r.capacity_bytes or 0 for r in results), default=0)
    for at, (result, moment, total) in enumerate(zip(results, moments, totals, strict=True)):
        stack(axes, at, moment, unit_bytes, 0.7, flat=True, labelled=labelled)
        ended = "" if result.status == "ok" else " " + _ending(result)
        beside = capacity if 0.88 * capacity < total < capacity else total  # not across the capacity's line
        axes.annotate(
            f" {total / unit_bytes:.1f}{ended}", (beside / unit_bytes, at), va="center", fontsize=9,
            bbox={"facecolor": inks()[1], "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip
    capacity_line(axes, capacity or None, unit_bytes, vertical=True)
    names = [_wrapped(result.name) + ("\n(predicted)" if result.planned else "") for result in results]
    axes.set_yticks(range(len(results)), names, fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlabel(f"device memory in {unit}")
    axes.set_xlim(0, 1.45 * max(*totals, capacity) / unit_bytes)
    legend(drawing, axes)
    said = "; ".join(f"{r.name} {human_bytes(n)} {_ending(r)}" for r, n in zip(results, totals, strict=True))
    alt = f"One stacked bar of memory by category for each run, {source}: {said}. {_capacity_words(results[0])}"
    return Figure(drawing, alt)


_PAIR = ((-0.2, "predicted_bytes", "#C77700", "//"), (0.2, "measured_bytes", "#0072B2", ""))
"""Shift, number, colour and hatch of the two bars of a pair."""


def _first_steps(found: list[PhaseMemory]) -> list[PhaseMemory]:
    """Optimizer steps 0 and 1; of many micro steps the first and the last."""
    steps = [p for p in found if p.step in (0, 1)] or found[:8]
    last = {step: max(p.micro_step for p in steps if p.step == step) for step in {p.step for p in steps}}
    return [p for p in steps if p.micro_step in (0, last[p.step])]


def _with_gaps(shown: list[PhaseMemory]) -> list[float]:
    """Places of bars, with a gap where a step or a micro step begins."""
    places, at = [], 0.0
    for before, phase in zip([shown[0], *shown], shown, strict=False):
        at += 0.5 * (phase.micro_step != before.micro_step) + 0.8 * (phase.step != before.step)
        places.append(at)
        at += 1
    return places


def _death(axes: object, result: Result, at: float, unit_bytes: int, labelled: set[str]) -> None:
    found = result.record.out_of_memory
    assert found is not None
    stack(axes, at, found.held, unit_bytes, 0.8, labelled=labelled)  # type: ignore[arg-type]


def _death_words(result: Result) -> str:
    died = result.record.died_in.phase.replace("_", "\n") if result.record.died_in else ""
    return f"{died}:\nout of\nmemory"


def _highest_moment(result: Result) -> dict[str, int]:
    """What was held at the peak, or when memory ran out."""
    if result.record.out_of_memory is not None:
        return result.record.out_of_memory.held
    report = result.report
    assert report is not None and report.peak_phase is not None
    return report.peak_phase.peak


def _wrapped(name: str) -> str:
    """A name with its typed values below it."""
    experiment, _, values = name.partition(" ")
    return "\n".join([*textwrap.wrap(experiment, 26), *textwrap.wrap(values, 26)])


def _ending(result: Result) -> str:
    if result.status == "oom":
        return "needed" if result.planned else "out of memory"
    return "fits" if result.status == "ok" else result.status


def _capacity_words(result: Result) -> str:
    return f"The capacity is {human_bytes(result.capacity_bytes)}." if result.capacity_bytes else "No capacity is set."
