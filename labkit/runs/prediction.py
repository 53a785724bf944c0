"""Predictions beside runs: made in the background while a run goes on, and compared with what was measured."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.memory.report import CATEGORIES, MemoryReport
from labkit.runs.fork_server import Process, environment, libraries, start
from labkit.runs.records import Record, RunFolder

WAIT_S = 60.0
"""How long a run that is over waits for its prediction."""

TEMPORARY = frozenset({"temporaries", "unattributed"})
"""Categories that are no claim of a prediction: what is not born in the step, or not assigned."""


class Background:
    """The prediction of one run, from a process of its own that gives way to the run."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        from labkit.plan.cache import TraceCache

        self._config = config
        self._cache = TraceCache.find()
        self._process: Process | None = None
        if not self._cache.has(config):
            self._said, end = os.pipe()
            try:
                self._process = start(
                    "labkit.plan.background", [str(folder.path)], environment(), end, imports=libraries(config)
                )
            finally:
                os.close(end)

    def stop(self) -> None:
        """End the process, if it is not over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            os.close(self._said)
            self._process = None

    def over(self, wait_s: float) -> bool:
        """Whether the process has ended, within this time."""
        try:
            return self._process is None or self._process.wait(wait_s) is not None
        except subprocess.TimeoutExpired:
            return False

    def result(self, wait_s: float = WAIT_S) -> dict[str, Any]:
        """``Prediction.to_dict()``, or an ``error`` in a line."""
        from labkit.plan.background import EXIT_REFUSED
        from labkit.plan.predict import predict

        if self._process is not None:
            try:
                self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                return {"error": f"the prediction was not ready {wait_s:g} s after the run; 'labkit plan' makes it"}
            else:
                if self._process.returncode == EXIT_REFUSED:
                    return {"error": os.read(self._said, 65536).decode().strip().splitlines()[-1]}
            finally:
                self.stop()
        try:
            if self._cache.has(self._config):  # this process is not to be slowed by executing it here
                return predict(self._config, cache=self._cache).to_dict()
        except ConfigError as error:  # a folder that was the model, and is gone
            return {"error": str(error)}
        return {"error": "the prediction's process ended without one; 'labkit plan' says why"}


@contextlib.contextmanager
def in_background(folder: RunFolder, config: RunConfig) -> Iterator[Background]:
    """Predict a run while it goes on; nothing is left behind when the context ends."""
    background = Background(folder, config)
    try:
        yield background
    finally:
        background.stop()


def beside(record: Record) -> list[dict[str, Any]]:
    """What was predicted and what was measured, for every phase that has both.

    Each row has ``step, micro_step, phase, what, predicted_bytes, measured_bytes, error``. ``what`` is ``peak``,
    ``end``, ``reserved`` or a category at the phase's end. ``error`` is predicted over measured minus 1: above zero
    too much was predicted; it is None where nothing was measured. Two micro steps are predicted of many, and the
    second stands for the last.
    """
    predicted, measured = _report(record.prediction), record.report
    if predicted is None or measured is None:
        return []
    last = record.config["accumulate_grad_batches"] - 1
    real = {(p.step, p.micro_step, p.phase): p for p in measured.phases}
    rows = []
    for phase in predicted.phases:
        place = (phase.step, last if phase.micro_step else 0, phase.phase)
        if place not in real:
            continue
        found = real[place]
        pairs = {"peak": (phase.peak_bytes, found.peak_bytes), "end": (phase.end_bytes, found.end_bytes)}
        if phase.reserved_bytes is not None and found.reserved_bytes is not None:
            pairs["reserved"] = (phase.reserved_bytes, found.reserved_bytes)
        pairs |= {c: (phase.end[c], found.end.get(c, 0)) for c in CATEGORIES if c not in TEMPORARY}
        rows += [
            dict(zip(("step", "micro_step", "phase"), place, strict=True))
            | {"what": what, "predicted_bytes": p, "measured_bytes": m, "error": p / m - 1 if m else None}
            for what, (p, m) in pairs.items()
        ]
    return rows


def foretold(record: Record) -> dict[str, Any] | None:
    """A record's prediction in short, or None: ``verdict, peak_bytes, peak_by_category, died_in, error, by_phase``.

    ``peak_bytes`` is what the reported phases were to reach, with memory enough. ``error`` is signed, of the peak of
    those that were reached. ``by_phase`` has for each phase the highest peak predicted and measured, and the error.
    """
    predicted = _report(record.prediction)
    if predicted is None:
        return None
    peaks: dict[str, dict[str, Any]] = {}
    for row in beside(record):
        if row["what"] == "peak":
            best = peaks.setdefault(row["phase"], row)
            if row["measured_bytes"] > best["measured_bytes"]:
                peaks[row["phase"]] = row
    by_phase = {
        phase: {key: row[key] for key in ("predicted_bytes", "measured_bytes", "error")} for phase, row in peaks.items()
    }
    highest = max(by_phase.values(), key=lambda row: row["measured_bytes"], default=None)
    assert record.prediction is not None
    return {
        "verdict": record.prediction["verdict"], "peak_bytes": predicted.peak_bytes,
        "peak_by_category": predicted.category_peaks, "died_in": record.prediction["died_in"],
        "error": highest["error"] if highest else None, "by_phase": by_phase,
    }  # fmt: skip


def _report(prediction: dict[str, Any] | None) -> MemoryReport | None:
    return MemoryReport.from_dict(prediction) if prediction and "phases" in prediction else None
