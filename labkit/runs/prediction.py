"""Predictions of runs, made in the background while they run."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.ledger.run_folder import RunFolder
from labkit.runs.fork_server import Process, environment, libraries, start

WAIT_S = 60.0
"""How long a run that is over waits for its prediction."""


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
