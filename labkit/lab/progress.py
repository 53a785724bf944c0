"""Progress of a run in the cell that started it: the live panel, or where no server gives it what the events say."""

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from html import escape
from typing import Any, Protocol

from labkit.lab.panel import Panel
from labkit.lab.result import visible
from labkit.ledger.events import phase_of
from labkit.ledger.table import Table
from labkit.ledger.view import View
from labkit.ledger.words import activity, loss_words, parts
from labkit.memory.categories import CATEGORIES, HOST_CATEGORIES, MAIN_CATEGORIES
from labkit.memory.report import PhaseMemory
from labkit.memory.units import human_bytes, unit_of

_ENDS = {"oom": "out of memory"}


class Place(Protocol):
    """Where something is shown that changes."""

    def update(self, view: View) -> None:
        """Show this in place of what is there."""


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextlib.contextmanager
def shown_in(place: Place) -> Generator[None]:
    """Meanwhile the progress of a run is shown there, and not where the cell's output is."""
    before = _place.set(place)
    try:
        yield
    finally:
        _place.reset(before)


class Progress(View):
    """Say what a run does: use it as a context and give it as ``on_event``.

    In a notebook one display that is written over: the panel, and when the run is over the highest moment of each phase
    by category. Where no server gives the panel, the display shows the step, the loss and the time left; where nothing
    can be overwritten, these are plain lines, one after the other.
    """

    def __init__(self, title: str, micro_steps: int) -> None:
        self.title = title
        self.lines = [f"{title}: starting"]
        self.now = self._left = ""
        self._last_micro_step = micro_steps - 1
        self._steps = 0
        self._phases: list[PhaseMemory] = []
        self._over = False
        self._handle: Place | None = None
        self._panel: Panel | None = None

    def __enter__(self) -> "Progress":
        self._handle = _place.get()
        if self._handle is None and in_notebook():
            from IPython.display import display

            self._handle = display(self, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._left = ""
        self._show("")

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of a run."""
        match event["event"]:
            case "created" | "resumed":
                self._panel = Panel.of(event["folder"])
                self._show("")
            case "start":
                self._steps = event["steps"]
                model = event["model"]
                self._line(
                    f"{self.title}: {event['device']}, {model['parameters']:,} parameters "
                    f"({model['trainable']:,} trainable), {self._steps} optimizer steps"
                )
            case "phase" if event["micro_step"] == self._last_micro_step and event["step"] < 2:
                self._phase(phase_of(event))
            case "progress" if event["losses"]:
                self._progress(event)
            case "result" if event["status"] != "ok":
                end = _ENDS.get(event["status"], event["status"])
                self.now = f"{self.now}, then {end}" if self.now else f"  {end}"

    def _text(self) -> str:
        return "\n".join([*self.lines, *([self.now + self._left] if self.now else [])])

    def _html(self) -> str:
        if self._panel is not None and not self._over:
            return self._panel.html()
        head = escape((self.now + self._left).strip() or self.lines[-1])
        if not self._phases:
            return f"<div>{head}</div>"
        state = "" if self._over else " open"
        return f"<details{state}><summary>{escape(self.title)}: {head}</summary>{self._table().html()}</details>"

    def _table(self) -> Table:
        unit, unit_bytes = unit_of(*(p.peak_bytes for p in self._phases))
        visible = {c for p in self._phases for c, n in p.peak.items() if n > p.peak_bytes / 100} - HOST_CATEGORIES
        shown = [c for c in CATEGORIES if c in MAIN_CATEGORIES or c in visible]
        bytes_of = [(p, (p.peak_bytes, *(p.peak[c] for c in shown))) for p in self._phases]
        rows = [[str(p.step), activity(p.phase), *(f"{n / unit_bytes:.1f}" for n in found)] for p, found in bytes_of]
        names = [c.removesuffix("_gpu").replace("_", " ") for c in shown]
        return Table(self.lines[-1], ["step", "phase", f"peak in {unit}", *names], rows)

    def _phase(self, phase: PhaseMemory) -> None:
        self._phases.append(phase)
        held = parts(visible(phase.peak))
        self._show(f"  step {phase.step} {activity(phase.phase):15} peak {human_bytes(phase.peak_bytes):>10}: {held}")

    def _progress(self, event: dict[str, Any]) -> None:
        done, loss = event["step"], event["losses"][-1]
        left_s = (self._steps - done) * event["train_seconds"] / done if done else 0.0
        self._left = f", {left_s:.0f} s left" if done < self._steps else ""
        self.now = f"  step {done} of {self._steps}, loss {loss_words(loss)}"
        self._show(self.now + self._left)

    def _line(self, text: str) -> None:
        self.lines.append(text)
        self._show(text)

    def _show(self, line: str) -> None:
        if self._handle is not None:
            if self._over or self._panel is None or not line:  # the panel asks the server by itself
                self._handle.update(self)
        elif line:
            print(line, flush=True)


def in_notebook() -> bool:
    """Whether the output of this process can be written over by its display."""
    import sys

    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
