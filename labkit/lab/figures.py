"""Figures: which kinds there are, and what they have in common.

Colours are Okabe and Ito's, which colour-blind readers tell apart; hatches tell them apart in grey print too.
"""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError, nearest
from labkit.config.extras import missing
from labkit.lab.result import NOT_PLANNED, Result
from labkit.lab.views import Lines
from labkit.ledger.view import View
from labkit.memory.categories import NAMES, STACKED_CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

LABELS = {category: NAMES[category] for category in STACKED_CATEGORIES}
COLOURS = {
    "parameters": "#0072B2", "gradients": "#E69F00", "optimizer_gpu": "#009E73", "activations": "#56B4E9",
    "temporaries": "#CC79A7", "inputs": "#F0E442", "unattributed": "#999999",
}  # fmt: skip
HATCHES = {
    "parameters": "", "gradients": "//", "optimizer_gpu": "xx", "activations": "..", "temporaries": "\\\\",
    "inputs": "++", "unattributed": "oo",
}  # fmt: skip

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

_KINDS = {
    "phases": "memory", "compared": "memory", "bars": "memory", "loss": "training", "tradeoff": "training",
}  # fmt: skip

_OLD_KINDS = {"beside": "compared"}
"""As older notebooks ask for them."""


class Figure(View):
    """A drawn figure: ``png``, and what it shows in words, for those who do not see it."""

    def __init__(self, drawing: "Drawing", alt: str) -> None:
        self.alt = alt
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png", dpi=110, metadata={"Description": alt})
        self.png = buffer.getvalue()

    def _text(self) -> str:
        return f"[figure] {self.alt}"

    def _html(self) -> str:
        # an image alone would lose its alternative text: Jupyter has no place for one
        data = base64.b64encode(self.png).decode()
        image = (
            f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" style="max-width:100%;min-width:560px">'
        )
        return f'<div style="overflow-x:auto">{image}</div>'


def draw(kind: str, results: Sequence[Result]) -> View:
    """The figure of a kind over these results, or a line that says why there is none.

    ``phases``: one result, the memory of its steps. ``compared``: predicted and measured. ``bars``: a bar a run.
    ``loss``: by samples seen. ``tradeoff``: memory against time and loss. Raises ``ConfigError`` for another
    kind.
    """
    kind = _OLD_KINDS.get(kind, kind)
    if kind not in _KINDS:
        raise ConfigError(f"no figure {kind!r}.{nearest(kind, _KINDS)} There are: {', '.join(_KINDS)}.")
    shown = [result for result in results if result.report is not None and result.report.phases]
    if not shown:
        return Lines(f"no figure {kind}", ["nothing was measured that it could show"], mark="not available")
    if all(result.planned for result in shown) and kind in ("loss", "tradeoff", "compared"):
        needs = {"loss": "a loss", "tradeoff": "time and loss", "compared": "a measurement"}[kind]
        return Lines(f"no figure {kind}: it needs {needs}", [NOT_PLANNED], mark="not available")
    if (reason := missing("matplotlib")) is not None:
        return Lines(f"no figure {kind}", [reason], mark="not available")
    module = import_module(f"labkit.lab.figures_{_KINDS[kind]}")
    drawing_of: Callable[[Sequence[Result]], View] = getattr(module, kind)
    return drawing_of(shown)


def canvas(width_in: float, height_in: float, title: str, source: str) -> tuple["Drawing", "Axes"]:
    """An empty figure with one pair of axes; the source stands below the title."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(width_in, height_in), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_title(f"{title}\n{source}", loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawing, axes


def capacity_line(axes: "Axes", capacity_bytes: int | None, unit_bytes: int, vertical: bool = False) -> None:
    """What the device holds, as a line across the figure."""
    if capacity_bytes is None:
        return
    at = capacity_bytes / unit_bytes
    style: dict[str, Any] = {
        "color": "black",
        "linewidth": 1.5,
        "linestyle": (0, (6, 2)),
        "label": f"capacity {at:.1f} {'GiB' if unit_bytes == 2**30 else 'MiB'}",
    }
    axes.axvline(at, **style) if vertical else axes.axhline(at, **style)


def stack(
    axes: "Axes", at: float, by_category: dict[str, int], unit_bytes: int, width: float, flat: bool = False,
    labelled: set[str] | None = None,
) -> None:  # fmt: skip
    """One bar of categories on top of each other; ``flat`` ones lie. Labels each category once."""
    base = 0.0
    for category in STACKED_CATEGORIES:
        size = by_category.get(category, 0) / unit_bytes
        if not by_category.get(category, 0) > _VISIBLE * sum(by_category.values()):
            continue
        style: dict[str, Any] = {
            "color": COLOURS[category], "hatch": HATCHES[category], "edgecolor": "white", "linewidth": 0.5,
        }  # fmt: skip
        if labelled is not None and category not in labelled:
            labelled.add(category)
            style["label"] = LABELS[category]
        axes.barh(at, size, width, left=base, **style) if flat else axes.bar(at, size, width, bottom=base, **style)
        base += size


def legend(axes: "Axes") -> None:
    """All labels beside the axes: categories as they are stacked, the topmost first, then the rest."""
    found = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    stacked = [label for category, label in reversed(LABELS.items()) if label in found]
    names = [*stacked, *(label for label in found if label not in stacked)]
    axes.legend(
        [found[name] for name in names], names, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
        fontsize=9, handleheight=1.4,
    )  # fmt: skip


_VISIBLE = 0.002
"""Share of a bar below which a category would be a line and no area."""
