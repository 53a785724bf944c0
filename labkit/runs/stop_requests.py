"""Stop requests: signals that end a run as Ctrl-C does, and the signal that a job's time is nearly over."""

import _thread
import contextlib
import signal
import threading
from collections.abc import Generator
from typing import Any

from labkit.ledger.records import Record

POLL_S = 0.1


class StopRequested(KeyboardInterrupt):
    """A stop of this process was requested, by a signal that is not Ctrl-C's: SIGTERM, or Slurm's SIGUSR1 before the
    end of the job's time. ``record`` is that of the run in progress, which is stopped as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.time_is_over = number == getattr(signal, "SIGUSR1", None)
        self.record: Record | None = None


@contextlib.contextmanager
def listening(is_first: bool) -> Generator[None]:
    """Raise ``StopRequested`` for SIGTERM and SIGUSR1, where this is the program's main thread.

    Of several ranks the first hears of SIGUSR1, and tells the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    # what waits for a signal is Linux's, as Slurm is
    warned = _warned(is_first) if hasattr(signal, "sigtimedwait") else contextlib.nullcontext()
    try:
        with warned:
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _warned(is_first: bool) -> Generator[None]:
    """Slurm sends SIGUSR1 to every process of a step. So it is blocked here, and in all that is started from here, and
    a thread waits for it."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if signal.sigtimedwait({signal.SIGUSR1}, POLL_S) and not over.is_set():
                over.set()
                _thread.interrupt_main(signal.SIGUSR1)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    before = signal.signal(signal.SIGUSR1, _raise)
    waits = threading.Thread(target=wait, daemon=True)
    if is_first:
        waits.start()
    try:
        yield
    finally:
        over.set()
        if is_first:
            waits.join()
        while signal.sigtimedwait({signal.SIGUSR1}, 0):  # said again meanwhile
            pass
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _raise(number: int, _: Any) -> None:
    raise StopRequested(number)
