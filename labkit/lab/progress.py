"""Progress of a run in plain words. The place of the live panel: whatever takes a run's events can stand here."""

import sys
from typing import Any

from labkit.memory.report import PhaseMemory
from labkit.memory.units import human_bytes


class Progress:
    """Say what a run does: use it as a context and give it as ``on_event``.

    One line a reported phase of the first two optimizer steps (peak, and memory by category), and one with the loss
    and the time left that is written over.
    """

    def __init__(self, title: str, micro_steps: int) -> None:
        self.title = title
        self._last_micro_step = micro_steps - 1
        self._steps = 0
        self._loss = ""
        self._open_line = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._open_line:
            print(flush=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of a run."""
        match event["event"]:
            case "created":
                self._line(f"{self.title}: starting")
            case "start":
                self._steps = event["steps"]
                model = event["model"]
                self._line(
                    f"{self.title}: {event['device']}, {model['parameters']:,} parameters "
                    f"({model['trainable']:,} trainable), {self._steps} optimizer steps"
                )
            case "phase" if event["micro_step"] == self._last_micro_step and event["step"] < 2:
                self._phase(PhaseMemory(**{k: v for k, v in event.items() if k not in ("event", "time")}))
            case "progress" if event["losses"]:
                self._progress(event)

    def _phase(self, phase: PhaseMemory) -> None:
        from labkit.runs.text import parts

        name = f"step {phase.step} {phase.phase.replace('_', ' ')}"
        self._line(f"  {name:28} peak {human_bytes(phase.peak_bytes):>10}: {parts(phase.peak)}")

    def _progress(self, event: dict[str, Any]) -> None:
        done = event["step"]
        loss = event["losses"][-1]
        left_s = (self._steps - done) * event["train_seconds"] / done if done else 0.0
        said = "not a number" if loss is None else f"{loss:.3f}"
        self._over(f"  step {done} of {self._steps}, loss {said}, {left_s:.0f} s left")

    def _line(self, text: str) -> None:
        if self._open_line:
            print()
        self._open_line = False
        print(text, flush=True)

    def _over(self, text: str) -> None:
        """A line over the last one of its kind; a notebook's output knows the carriage return too."""
        print(f"\r{text:60}", end="", flush=True)
        self._open_line = True
        sys.stdout.flush()
