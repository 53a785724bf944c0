"""The same for many students, a few at a time."""

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from provisioning.booking import home
from provisioning.errors import ProvisioningError
from provisioning.roster import Student

AT_ONCE = 4
Action = Callable[[Student, threading.Event], str]


@dataclass(frozen=True)
class Outcome:
    """How it ended for one student."""

    student: Student
    ok: bool
    text: str
    took_s: float

    def __str__(self) -> str:
        return f"{'ok    ' if self.ok else 'FAILED'} {self.student.netid}  {self.text}  ({self.took_s:.0f} s)"


def for_each(students: list[Student], action: Action, at_once: int, say: Callable[[str], None]) -> list[Outcome]:
    """Do ``action`` for all, at most ``at_once`` at a time; says a line as each ends. One failure stops no other.

    Ctrl-C asks those that are running to stop at their next wait, and begins no other.
    """
    stop = threading.Event()

    def one(student: Student) -> Outcome:
        started = time.monotonic()
        try:
            text, ok = action(student, stop), True
        except ProvisioningError as error:
            text, ok = f"{type(error).__name__}: {error}", False
        except Exception as error:  # noqa: BLE001 - a defect for one student must not hide the results of the others
            text, ok = _surprise(student, error), False
        return Outcome(student, ok, text, time.monotonic() - started)

    outcomes = []
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(one, student) for student in students]
        try:
            for done in as_completed(waiting):
                outcomes.append(done.result())
                say(str(outcomes[-1]))
        except KeyboardInterrupt:
            stop.set()
            say("stopping, at the next moment when nothing is half made; Ctrl-C again does not wait")
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(outcomes, key=lambda outcome: students.index(outcome.student))


def _surprise(student: Student, error: Exception) -> str:
    """One line for an unexpected error; all of it in a file."""
    log = home() / "surprises" / f"{student.netid}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    said = " ".join(str(error).split())[:200]
    return f"a defect of this program: {type(error).__name__}: {said}. Report it with {log}; run it again for this one."


def summary(outcomes: list[Outcome]) -> str:
    """How many are well, and for whom it failed, and why."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    lines = [f"{len(outcomes) - len(failed)} of {len(outcomes)} ok"]
    return "\n".join(lines + [f"  {outcome.student.netid}: {outcome.text}" for outcome in failed])
