"""Figures of training: loss by samples seen, memory against time and loss."""

from collections.abc import Sequence

from labkit.lab.figures import DASHES, MARKERS, SERIES, Figure, canvas, capacity_line, legend, unit_of
from labkit.lab.result import Result
from labkit.lab.views import Lines, View
from labkit.memory.units import human_bytes


def loss(results: Sequence[Result]) -> View:
    """Training loss of every optimizer step, and validation loss after every epoch, by the samples seen."""
    shown = [result for result in results if result.record.losses]
    if not shown:
        return Lines("no figure loss", ["no run finished an optimizer step"], mark="not available")
    sources = " and ".join(sorted({r.said for r in shown}))
    drawing, axes = canvas(8.5, 3.8, "Loss by samples seen", f"one point an optimizer step; {sources}")
    for index, result in enumerate(shown):
        style = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)], "markersize": 5}
        losses = result.record.losses
        known = [
            (result.samples_per_step * (step + 1), value) for step, value in enumerate(losses) if value is not None
        ]
        axes.plot(*zip(*known, strict=True), linestyle=DASHES[index % len(DASHES)], label=result.name, **style)
        if result.record.validation_losses:
            per_epoch = result.record.samples / len(result.record.validation_losses)
            places = [per_epoch * (epoch + 1) for epoch in range(len(result.record.validation_losses))]
            axes.plot(
                places, result.record.validation_losses, label=f"{result.name}, validation",
                **style | {"markerfacecolor": "white", "markersize": 8, "linestyle": ":"},
            )  # fmt: skip
    axes.set_xlabel("samples seen")
    axes.set_ylabel("loss per caption token, in nats")
    axes.grid(alpha=0.3)
    legend(axes)
    said = "; ".join(f"{r.name} from {_first(r):.2f} to {_last(r):.2f} in {r.record.samples} samples" for r in shown)
    return Figure(drawing, f"Loss by samples seen, {sources}: {said}.")


def tradeoff(results: Sequence[Result]) -> View:
    """A point a run: peak memory to the right, time a sample up, and the last loss beside it."""
    shown = [result for result in results if result.status == "ok" and result.samples_per_second]
    if not shown:
        return Lines("no figure tradeoff", ["no run finished"], mark="not available")
    unit, unit_bytes = unit_of(*(r.peak_bytes for r in shown), *(r.capacity_bytes for r in shown))
    sources = " and ".join(sorted({r.said for r in shown}))
    drawing, axes = canvas(9.5, 5.2, "Memory, time and loss", f"the number in brackets is the last loss; {sources}")
    from matplotlib import colormaps

    ends = [r.last_loss for r in shown if r.last_loss is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    texts = []
    for result in shown:
        seconds = 1 / (result.samples_per_second or 1)
        at = result.last_loss
        share = 0.0 if at is None or high == low else (at - low) / (high - low)
        marker = "s" if result.config["use_lora"] or result.config["use_qlora"] else "o"
        axes.scatter(
            result.peak_bytes / unit_bytes, seconds, s=90, marker=marker, color=colormaps["cividis"](1 - share),
            edgecolor="black", zorder=3,
        )  # fmt: skip
        said = "-" if at is None else f"{at:.2f}"
        texts.append((result.peak_bytes / unit_bytes, seconds, f"{result.name} ({said})"))
    axes.set_yscale("log")
    _label(axes, texts)
    capacity_line(axes, max(r.capacity_bytes or 0 for r in shown) or None, unit_bytes, vertical=True)
    axes.set_xlabel(f"peak device memory in {unit}")
    axes.set_ylabel("seconds a sample, lower is faster")
    axes.grid(alpha=0.3, which="both")
    axes.scatter([], [], s=90, marker="o", color="white", edgecolor="black", label="all weights trained")
    axes.scatter([], [], s=90, marker="s", color="white", edgecolor="black", label="adapters trained")
    axes.scatter([], [], s=90, marker="o", color=colormaps["cividis"](1.0), edgecolor="black", label="lowest loss")
    axes.scatter([], [], s=90, marker="o", color=colormaps["cividis"](0.0), edgecolor="black", label="highest loss")
    legend(axes)
    said = "; ".join(
        f"{r.name}: {human_bytes(r.peak_bytes)}, {1 / (r.samples_per_second or 1):.3f} s a sample, loss "
        + ("none" if r.last_loss is None else f"{r.last_loss:.2f}")
        for r in shown
    )
    return Figure(drawing, f"Points of peak memory against seconds a sample, {sources}. {said}.")


def _label(axes: object, texts: list[tuple[float, float, str]]) -> None:
    """Names beside their points, moved up where two would meet."""
    axes.margins(x=0.25, y=0.15)  # type: ignore[attr-defined]
    axes.autoscale_view()  # type: ignore[attr-defined]
    axes.figure.draw_without_rendering()  # type: ignore[attr-defined]
    taken: list[tuple[float, float]] = []
    for x, y, text in sorted(texts, key=lambda t: axes.transData.transform(t[:2])[1]):  # type: ignore[attr-defined]
        px, py = axes.transData.transform((x, y))  # type: ignore[attr-defined]
        place = py
        while any(abs(place - other) < _LINE_PX and abs(px - before) < _NAME_PX for before, other in taken):
            place += _LINE_PX
        taken.append((px, place))
        scale = 72 / axes.figure.dpi  # type: ignore[attr-defined]
        axes.annotate(  # type: ignore[attr-defined]
            text, (x, y), xytext=(9, (place - py) * scale), textcoords="offset points", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5} if place - py > _LINE_PX / 2 else None,
        )  # fmt: skip


_LINE_PX, _NAME_PX = 15.0, 230.0
"""Height of a name, and how long one can be, in pixels."""


def _first(result: Result) -> float:
    return next((value for value in result.record.losses if value is not None), float("nan"))


def _last(result: Result) -> float:
    return next((value for value in reversed(result.record.losses) if value is not None), float("nan"))
