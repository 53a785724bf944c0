"""Learning: the ten questions before the labs and the ten after, judged from the seed that a journal names."""

from collections.abc import Iterable
from dataclasses import dataclass

from labkit.grading.work import Work
from labkit.lab.quiz import KINDS, Mark, read_answers


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What each of a student's answers is. ``before`` and ``after`` are None where one of the ten is lacking."""

    seed: int
    before: list[Mark] | None
    after: list[Mark] | None


def learned(work: Work) -> Learned | None:
    """What a journal tells, without what it says of right and wrong; None where it has no such answers."""
    found = read_answers([entry for entry in work.journal if entry["kind"] == "quiz"])
    if found is None:
        return None
    return Learned(
        seed=found.seed,
        before=None if None in found.before else found.marks("before"),
        after=None if None in found.after else found.marks("after"),
    )


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of question in a class: how many had it right and how many passed it over, before and after.

    ``both`` are those who passed it over neither time; of them ``first`` and ``then`` had it right.
    """

    about: str
    before: int
    passed_before: int
    after: int
    passed_after: int
    both: int
    first: int
    then: int


@dataclass(frozen=True, kw_only=True)
class ClassLearned:
    """Of those who handed in both: each kind of question. ``only_one`` handed in one of the two."""

    students: int
    only_one: int
    kinds: list[Kind]

    @property
    def gained(self) -> float | None:
        """The share of right answers after, less the one before, of the questions that a student passed over neither
        time; None where there is no such. With those passed over a class that guesses only at the end would gain."""
        both = sum(kind.both for kind in self.kinds)
        return (sum(kind.then for kind in self.kinds) - sum(kind.first for kind in self.kinds)) / both if both else None


def of_class(found: Iterable[Learned | None]) -> ClassLearned:
    """The class in numbers."""
    some = [one for one in found if one is not None and (one.before or one.after)]
    both = [(one.before, one.after) for one in some if one.before and one.after]
    kinds = []
    for at, about in enumerate(KINDS):
        pairs = [(before[at], after[at]) for before, after in both]
        answered = [pair for pair in pairs if "passed" not in pair]
        kinds.append(
            Kind(
                about=about,
                before=sum(first == "right" for first, _ in pairs),
                passed_before=sum(first == "passed" for first, _ in pairs),
                after=sum(then == "right" for _, then in pairs),
                passed_after=sum(then == "passed" for _, then in pairs),
                both=len(answered),
                first=sum(first == "right" for first, _ in answered),
                then=sum(then == "right" for _, then in answered),
            )
        )
    return ClassLearned(students=len(both), only_one=len(some) - len(both), kinds=kinds)
