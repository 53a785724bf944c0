"""Figures: which kinds there are, and what they have in common.

Colours are near Okabe and Ito's, which colour-blind readers tell apart, and dark or bright enough to stand out on a
light page and on a dark one; hatches tell them apart in grey print too. Each figure is drawn twice, in the inks of both
themes, and the page shows the one that fits.
"""

import base64
import contextlib
import io
import textwrap
from collections.abc import Callable, Generator, Sequence
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
    "parameters": "#0072B2", "gradients": "#C77700", "optimizer_gpu": "#009E73", "activations": "#3F97CC",
    "temporaries": "#C76BA0", "inputs": "#8F8500", "unattributed": "#808080",
}  # fmt: skip
HATCHES = {
    "parameters": "", "gradients": "//", "optimizer_gpu": "xx", "activations": "..", "temporaries": "\\\\",
    "inputs": "++", "unattributed": "oo",
}  # fmt: skip

SERIES = ("#0072B2", "#C77700", "#009E73", "#C76BA0", "#3F97CC", "#808080")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

INKS = {"light": ("#1a1a1a", "#ffffff"), "dark": ("#e8e8e8", "#111111")}
"""Ink and ground of each theme; the light one is shown where no theme is known."""

WIDTH_IN, DPI = 700 / 110, 110
"""As wide as half a screen shows at full size: 700 pixels."""

_TITLE = 84
"""Characters of a line above a figure."""

_STYLE = """<style>
[data-jp-theme-light="false"] .labkit-light { display: none; }
[data-jp-theme-light="false"] .labkit-dark { display: block !important; }
</style>"""

_KINDS = {
    "phases": "memory", "compared": "memory", "bars": "memory", "loss": "training", "tradeoff": "training",
}  # fmt: skip

_OLD_KINDS = {"beside": "compared"}
"""As older notebooks ask for them."""


class Figure(View):
    """A drawn figure: ``png``, and what it shows in words, for those who do not see it. ``dark`` is the same on a dark
    ground, where it was drawn too."""

    def __init__(self, drawing: "Drawing", alt: str) -> None:
        self.alt = alt
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png", dpi=DPI, metadata={"Description": alt})
        self.png, self.dark = buffer.getvalue(), b""

    def _text(self) -> str:
        return f"[figure] {self.alt}"

    def _html(self) -> str:
        # an image alone would lose its alternative text: Jupyter has no place for one
        light = self._image(self.png, "labkit-light", "")
        dark = self._image(self.dark, "labkit-dark", "display:none;") if self.dark else ""
        return f'{_STYLE}<div style="overflow-x:auto">{light}{dark}</div>'

    def _image(self, png: bytes, name: str, style: str) -> str:
        data = base64.b64encode(png).decode()
        style += "max-width:100%;min-width:560px"
        return f'<img class="{name}" src="data:image/png;base64,{data}" alt="{escape(self.alt)}" style="{style}">'


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
    with _inks("light"):
        figure = drawing_of(shown)
    if isinstance(figure, Figure):
        with _inks("dark"):
            figure.dark = drawing_of(shown).png  # type: ignore[attr-defined]
    return figure


@contextlib.contextmanager
def _inks(theme: str) -> Generator[None]:
    from matplotlib import rc_context

    ink, ground = INKS[theme]
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with rc_context(dict.fromkeys(inked, ink) | dict.fromkeys(("figure.facecolor", "axes.facecolor"), ground)):
        yield


def inks() -> tuple[str, str]:
    """Ink and ground of the theme that is drawn for."""
    from matplotlib import rcParams

    return rcParams["text.color"], rcParams["figure.facecolor"]


def canvas(height_in: float, title: str, source: str) -> tuple["Drawing", "Axes"]:
    """An empty figure with one pair of axes; the source stands below the title."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = drawing.add_subplot()
    words = "\n".join(line for part in (title, source) for line in textwrap.wrap(part, _TITLE))
    drawing.suptitle(words, x=0.01, ha="left", fontsize=9.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawing, axes


def capacity_line(axes: "Axes", capacity_bytes: int | None, unit_bytes: int, vertical: bool = False) -> None:
    """What the device holds, as a line across the figure."""
    if capacity_bytes is None:
        return
    at = capacity_bytes / unit_bytes
    style: dict[str, Any] = {
        "color": inks()[0],
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


def legend(drawing: "Drawing", axes: "Axes", **look: Any) -> None:
    """All labels below the axes, in as many columns as fit: categories as they are stacked, then the rest."""
    found = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    stacked = [label for label in LABELS.values() if label in found]
    names = [*stacked, *(label for label in found if label not in stacked)]
    lines = ["\n".join(textwrap.wrap(name, _TITLE)) for name in names]
    columns = max(1, min(4, _TITLE // (max(map(len, lines), default=0) + 8)))
    rows = -(-len(names) // columns) + sum(line.count("\n") for line in lines) + bool(look.get("title")) * 2
    drawing.set_figheight(drawing.get_figheight() + 0.2 * rows)
    drawing.legend(
        [found[name] for name in names], lines, loc="outside lower left", frameon=False, fontsize=9, ncols=columns,
        handleheight=1.2, columnspacing=1.4, **look,
    )  # fmt: skip


_VISIBLE = 0.002
"""Share of a bar below which a category would be a line and no area."""
