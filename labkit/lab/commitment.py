"""Commitment: which questions of a lab are open, what has told them, and what may be shown before they are answered."""

from collections.abc import Callable, Collection

from labkit.lab.journal import Journal
from labkit.lab.lesson import Lesson, Question

HashOf = Callable[[str, str | None], str]
"""The settings of a run, by its name in lessons and on a machine (None for this one), as a hash."""


class Commitments:
    """The questions of one lab on one profile.

    What has been told is a run of the course (``has_run`` knows them) or a line ``told`` in the journal: the config
    hash of a prediction, or what else a cell has shown (``Question.told_by``). A question is told when all that it is
    about is.
    """

    def __init__(
        self, lab: str, lesson: Lesson, journal: Journal, profile: str, hash_of: HashOf, has_run: Callable[[str], bool]
    ) -> None:
        self.lab, self.lesson, self.journal, self.profile = lab, lesson, journal, profile
        self._hash_of, self._has_run = hash_of, has_run

    def tell(self, what: str) -> None:
        """Remember, once, that it was told."""
        if not self._was_shown(what):
            self.journal.add("told", lab=self.lab, what=what, profile=self.profile)

    def is_told(self, question: Question, *besides: str, by_a_run: bool = False) -> bool:
        """Whether anything has answered it, in this notebook or another; ``besides`` count as told too."""
        return all(self._is_told(name, question, besides, by_a_run) for name in question.about)

    def is_answered(self, question: Question) -> bool:
        """Whether the student has committed an answer, or passed."""
        return bool(self.journal.entries("answer", lab=self.lab, question=question.id, profile=self.profile))

    def withholds(self, *told: str, by_a_run: bool = False) -> Question | None:
        """The question that has to be answered before these are shown, since they would answer it. A run tells what a
        prediction does, and more."""
        for question in self.lesson.questions:
            if self.is_answered(question) or self.is_told(question):
                continue
            if self.is_told(question, *told, by_a_run=by_a_run):
                return question
        return None

    def _is_told(self, name: str, question: Question, besides: Collection[str], by_a_run: bool) -> bool:
        if name.startswith("?"):
            planned, _, machine = question.told_by.partition(" on ")
            what = self._hash_of(planned, machine) if machine else question.told_by
            return what in besides or self._was_shown(what)
        if self._has_run(name):
            return True
        what = self._hash_of(name, None)
        if question.measured:
            return by_a_run and what in besides
        return what in besides or self._was_shown(what)

    def _was_shown(self, what: str) -> bool:
        return bool(self.journal.entries("told", what=what, profile=self.profile))
