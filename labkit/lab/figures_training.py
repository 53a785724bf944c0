"""Figures of training: loss by samples seen, memory against time and loss."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.lab.figures import DASHES, MARKERS, SERIES, Figure, canvas, capacity_line, inks, legend
from labkit.lab.result import Result, sources
from labkit.lab.views import Lines
from labkit.ledger.view import View
from labkit.memory.units import counted, human_bytes, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss(results: Sequence[Result]) -> View:
    """Training loss of every optimizer step, and validation loss after every epoch, by the samples seen."""
    shown = [result for result in results if result.record.losses]
    if not shown:
        return Lines("no figure loss", ["no run finished an optimizer step"], mark="not available")
    source = sources(shown)
    drawing, axes = canvas(3.4, "Loss by samples seen", f"one point an optimizer step; {source}")
    for index, result in enumerate(shown):
        style = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)], "markersize": 5}
        losses = result.record.losses
        known = [(seen, value) for seen, value in zip(_samples_seen(result), losses, strict=True) if value is not None]
        axes.plot(*zip(*known, strict=True), linestyle=DASHES[index % len(DASHES)], label=result.name, **style)
        if result.record.validation_losses:
            per_epoch = result.record.samples / len(result.record.validation_losses)
            places = [per_epoch * (epoch + 1) for epoch in range(len(result.record.validation_losses))]
            axes.plot(
                places, result.record.validation_losses, label=f"{result.name}, validation",
                **style | {"markerfacecolor": inks()[1], "markersize": 8, "linestyle": ":"},
            )  # fmt: skip
    axes.set_xlabel("samples seen")
    axes.set_ylabel("loss per caption token, in nats")
    axes.grid(alpha=0.3)
    legend(drawing, axes)
    said = "; ".join(
        f"{r.name} from {_first(r):.2f} to {_last(r):.2f} in {counted(r.record.samples, 'sample')}" for r in shown
    )
    return Figure(drawing, f"Loss by samples seen, {source}: {said}.")


def tradeoff(results: Sequence[Result]) -> View:
    """A numbered point a run: peak memory to the right, time a sample up, the last loss as colour and in the list."""
    shown = [result for result in results if result.status == "ok" and result.samples_per_second]
    if not shown:
        return Lines("no figure tradeoff", ["no run finished"], mark="not available")
    from matplotlib import colormaps

    unit, unit_bytes = unit_of(*(r.peak_bytes for r in shown), *(r.capacity_bytes for r in shown))
    source = sources(shown)
    drawing, axes = canvas(4.2, "Memory, time and loss", f"last loss in brackets; {source}")
    ends = [r.last_loss for r in shown if r.last_loss is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    for number, result in enumerate(shown, 1):
        seconds, loss = 1 / (result.samples_per_second or 1), result.last_loss
        share = 0.0 if loss is None or high == low else (loss - low) / (high - low)
        adapters = result.config["use_lora"] or result.config["use_qlora"]
        axes.scatter(
            result.peak_bytes / unit_bytes, seconds, s=90, marker="s" if adapters else "o", edgecolor=inks()[0],
            color=colormaps["cividis"](1 - share), label=f"{number:>2}  {result.name} ({_loss_words(result)})",
        )  # fmt: skip
    capacity_line(axes, max(r.capacity_bytes or 0 for r in shown) or None, unit_bytes, vertical=True)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.15)
    axes.set_xlabel(f"peak device memory in {unit}")
    axes.set_ylabel("seconds a sample, lower is faster")
    axes.grid(alpha=0.3, which="both")
    axes.set_axisbelow(True)
    _numbered(axes, [(result.peak_bytes / unit_bytes, 1 / (result.samples_per_second or 1)) for result in shown])
    words = "square: adapters trained; bright: low loss, dark: high loss"
    legend(drawing, axes, markerscale=0.5, title=words, title_fontsize=9, alignment="left")
    said = "; ".join(
        f"{number} {r.name}: {human_bytes(r.peak_bytes)}, {1 / (r.samples_per_second or 1):.3f} s a sample, loss "
        f"{_loss_words(r)}"
        for number, r in enumerate(shown, 1)
    )
    return Figure(drawing, f"Points of peak memory against seconds a sample, {source}. {said}.")


def _numbered(axes: "Axes", points: Sequence[tuple[float, float]]) -> None:
    """A number beside each point: above it, or where it is farthest from other points and their numbers."""
    places = [(x, y) for x, y in axes.transData.transform(points)]
    taken = list(places)
    for number, (point, (x, y)) in enumerate(zip(points, places, strict=True), 1):
        sides = [(x + _ASIDE * math.cos(angle), y + _ASIDE * math.sin(angle)) for angle in _ANGLES]
        best = max(sides, key=lambda side: round(min(math.dist(side, other) for other in taken), 3))
        taken.append(best)
        axes.annotate(
            str(number), point, xytext=(best[0] - x, best[1] - y), textcoords="offset pixels", ha="center", va="center",
            fontsize=8, fontweight="bold",
        )  # fmt: skip


_ASIDE = 17
"""Pixels between a point and its number."""

_ANGLES = [math.radians(degrees) for degrees in (90, 0, 180, 270, 45, 135, 225, 315)]


def _samples_seen(result: Result) -> list[float]:
    """The samples after each optimizer step; the last one of an epoch may have had fewer than the others."""
    steps, samples, full = len(result.record.losses), result.record.samples, result.samples_per_step
    epochs = result.config["max_epochs"]
    if steps * full <= samples or steps % epochs:
        return [full * (step + 1) for step in range(steps)]
    a_step, an_epoch = steps // epochs, samples / epochs
    return [step // a_step * an_epoch + min((step % a_step + 1) * full, an_epoch) for step in range(steps)]


def _loss_words(result: Result) -> str:
    return "none" if result.last_loss is None else f"{result.last_loss:.2f}"


def _first(result: Result) -> float:
    return next((value for value in result.record.losses if value is not None), float("nan"))


def _last(result: Result) -> float:
    return next((value for value in reversed(result.record.losses) if value is not None), float("nan"))
