"""The progress of one run, shown while it runs."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from labkit.config.printable import printable
from labkit.ledger.events import phase_of
from labkit.ledger.terminal import width, wrapped
from labkit.ledger.words import loss_words, parts
from labkit.memory.units import counted, human_bytes

_TITLE = Column(max_width=30, no_wrap=True)
"""So that beside a long name the step, the loss and the time are still seen."""


class ProgressPrinter:
    """Shows a run while it runs: use it as a context and give it as ``on_event``."""

    def __init__(self, out: Console, title: str, micro_steps: int) -> None:
        self._last_micro_step = micro_steps - 1
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=_TITLE), BarColumn(24), MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}", markup=False), TimeRemainingColumn(), console=out,
        )  # fmt: skip
        self._task = self._bar.add_task(printable(title), total=None, loss="starting")

    def __enter__(self) -> "ProgressPrinter":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def _say(self, text: str) -> None:
        self._bar.console.print(wrapped(printable(text), width()))

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        match event["event"]:
            case "created":
                self._bar.start()
            case "resumed":
                self._bar.start()
                self._say(f"  resumes after step {event['step']} of {event['folder']}")
            case "start":
                self._bar.update(self._task, total=event["steps"], loss="")
                self._say(
                    f"  {event['device']}, {event['model']['parameters']:,} parameters "
                    f"({event['model']['trainable']:,} trainable), {counted(event['steps'], 'optimizer step')}"
                )
            case "phase" if event["micro_step"] == self._last_micro_step:
                phase = phase_of(event)
                name = phase.phase.replace("_", " ")
                self._say(
                    f"  step {phase.step} {name:21} {human_bytes(phase.end_bytes):>10}, "
                    f"peak {human_bytes(phase.peak_bytes):>10}: {parts(phase.end)}"
                )
            case "progress":
                said: dict[str, Any] = {"loss": f"loss {loss_words(event['losses'][-1])}"} if event["losses"] else {}
                self._bar.update(self._task, completed=event["step"], **said)
