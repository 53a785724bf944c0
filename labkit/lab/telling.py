"""Telling: a session of one lab, in which nothing answers a question before the student has."""

from collections.abc import Callable
from typing import Any

from labkit.config.layers import resolve
from labkit.lab import spoken
from labkit.lab.commitment import Commitments
from labkit.lab.journal import Journal
from labkit.lab.lesson import Lesson
from labkit.lab.result import Blank, Result
from labkit.lab.session import NotDone, Session, empty_keys, showing_errors
from labkit.ledger.view import View


class Telling(Session):
    """What a session shows, written into the ledger as told; what would answer an open question is not shown.

    ``name`` is the lab's and ``lesson`` has its questions. Raises as ``Session`` does.
    """

    def __init__(self, lesson: Lesson, name: str, profile: str | None = None) -> None:
        super().__init__(profile)
        self.name, self.lesson = name, lesson
        self.journal = Journal(self.workspace.runs)
        self.commitments = Commitments(
            name, lesson, self.journal, self.profile.name, lambda *run: self._resolved(*run).config.hash, self._has_run
        )

    @showing_errors
    def predict(self, experiment: str, *, on: str | None = None, **overrides: Any) -> Result | View:
        """As ``Session.predict``; the ledger keeps that it was told. What would answer a question of this lab that has
        no answer yet is not shown."""
        return self._telling(
            self._hash(experiment, overrides, on), lambda: super(Telling, self).predict(experiment, on=on, **overrides)
        )

    @showing_errors
    def run(self, experiment: str, *, timeout_s: float | None = None, **overrides: Any) -> Result | View:
        """As ``Session.run``; not before the question is answered that it would answer."""
        what = None if self.plans_only else self._hash(experiment, overrides)
        if what and (question := self.commitments.withholds(what, by_a_run=True)):
            return spoken.withheld(question)
        return super().run(experiment, timeout_s=timeout_s, **overrides)

    @showing_errors
    def kill(self, experiment: str, **overrides: Any) -> Result | View:
        """As ``Session.kill``; the ledger keeps that it was told."""
        return self._telling("kill", lambda: super(Telling, self).kill(experiment, **overrides))

    @showing_errors
    def captions(self, result: View, dataset: str, count: int = 24) -> View:
        """As ``Session.captions``; the ledger keeps that it was told."""
        return self._telling(f"captions {dataset}", lambda: super(Telling, self).captions(result, dataset, count))

    @showing_errors
    def rounding(self, *pairs: tuple[str, float]) -> View:
        """As ``Session.rounding``; the ledger keeps that it was told."""
        return self._telling("rounding" if pairs else None, lambda: super(Telling, self).rounding(*pairs))

    @showing_errors
    def advise(self, experiment: str, *, on: str | None = None, **overrides: Any) -> View:
        """As ``Session.advise``; the ledger keeps what was told of the experiment itself."""
        return self._telling(
            self._hash(experiment, overrides, on), lambda: super(Telling, self).advise(experiment, on=on, **overrides)
        )

    def withheld(self, *told: str) -> View | None:
        """The question that has to be answered before these are shown, in words; None where they may be shown."""
        question = self.commitments.withholds(*told)
        return None if question is None else spoken.withheld(question)

    def tell(self, config_hash: str) -> None:
        """Write into the ledger that this was shown."""
        self.commitments.tell(config_hash)

    def _hash(self, experiment: str, overrides: dict[str, Any], on: str | None = None) -> str | None:
        """The settings of a run as a hash; None where something is not filled in."""
        if empty_keys({"on": on, **overrides}):
            return None
        return resolve(self.workspace, experiment, overrides, on or self.profile.name).config.hash

    def _telling(self, what: str | None, show: Callable[[], Any]) -> Any:
        if what and (withheld := self.withheld(what)) is not None:
            return withheld
        found = show()
        if what and not isinstance(found, NotDone | Blank):
            self.tell(what)
        return found
