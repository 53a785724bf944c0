"""Predictions of runs, made in the background while they run."""

import contextlib
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.shape import shaped
from labkit.runs.fork_server import Process, close_input, environment, libraries, start

WAIT_S = 60.0
"""How long a run that is over waits for its prediction."""


@dataclass(frozen=True)
class _Predicting:
    """The process that predicts, and the end of a pipe where it says why it does not."""

    process: Process
    said: int


class Background:
    """The prediction of one run, from a process of its own that gives way to the run."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        from labkit.plan.cache import TraceCache

        self._config = config
        self._cache = TraceCache.find()
        self._predicting: _Predicting | None = None
        if not self._cache.has(config):
            said, end = os.pipe()
            try:
                process = start(
                    "labkit.plan.background", [str(folder.path)], environment(), end, imports=libraries(config)
                )
            finally:
                os.close(end)
            self._predicting = _Predicting(process, said)

    @property
    def process(self) -> Process | None:
        """What predicts; None where the prediction was there already, and after ``stop``."""
        return None if self._predicting is None else self._predicting.process

    def stop(self) -> None:
        """End the process, if it is not over."""
        if self._predicting is not None:
            self._predicting.process.kill()
            self._predicting.process.wait()
            close_input(self._predicting.process)
            os.close(self._predicting.said)
            self._predicting = None

    def over(self, wait_s: float) -> bool:
        """Whether the process has ended, within this time."""
        try:
            return self._predicting is None or self._predicting.process.wait(wait_s) is not None
        except subprocess.TimeoutExpired:
            return False

    def result(self, wait_s: float = WAIT_S) -> Predicted | Unpredicted:
        """The prediction, or in a line why there is none."""
        from labkit.plan.background import EXIT_REFUSED
        from labkit.plan.predict import predict

        if self._predicting is not None:
            try:
                self._predicting.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                return Unpredicted(f"the prediction was not ready {wait_s:g} s after the run; 'labkit plan' makes it")
            else:
                if self._predicting.process.returncode == EXIT_REFUSED:
                    return Unpredicted(os.read(self._predicting.said, 65536).decode().strip().splitlines()[-1])
            finally:
                self.stop()
        try:
            if self._cache.has(self._config):  # this process is not to be slowed by executing it here
                return shaped(Predicted, predict(self._config, cache=self._cache).to_dict())
        except ConfigError as error:  # a folder that was the model, and is gone
            return Unpredicted(str(error))
        return Unpredicted("the prediction's process ended without one; 'labkit plan' says why")


@contextlib.contextmanager
def in_background(folder: RunFolder, config: RunConfig) -> Generator[Background]:
    """Predict a run while it runs; nothing is left when the context ends."""
    background = Background(folder, config)
    try:
        yield background
    finally:
        background.stop()
