"""Attempts: several archives under one name. One replaces another only where it continues the same work.

Anyone can write a name into an archive. Only its owner has the work: the lines of the journal, to which labkit only
adds, and the runs. So an archive that holds all lines of an earlier one is the same student's, later; one that does not
may be another student's, or be made on another machine, and both count.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from labkit.grading.archive import ANSWERS, Submission
from labkit.grading.signs import Sign

if TYPE_CHECKING:
    from labkit.grading.grade import Row


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A row with what tells whose it is: ``lines`` of the journal, and the digests of the configs of its ``runs``."""

    row: "Row"
    lines: frozenset[bytes]
    runs: frozenset[str]

    @classmethod
    def of(cls, row: "Row", submission: Submission) -> "Attempt":
        """The attempt in a submission."""
        lines = frozenset(line.strip() for line in submission.texts.get(ANSWERS, b"").split(b"\n"))
        runs = {digest for name, digest in submission.sha256.items() if name.endswith("/config.json")}
        return cls(row=row, lines=lines - {b""}, runs=frozenset(runs))

    def continues(self, other: "Attempt") -> bool:
        """Whether all of ``other`` that cannot be lost is in this one too. Runs can: a student may delete some."""
        if not other.lines:
            return not other.runs or bool(other.runs & self.runs)
        return other.lines <= self.lines


def identity(name: str) -> str:
    """The same for a name and what people make of it: capitals, blanks, and letters that Unicode has twice."""
    return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def rows_that_count(attempts: Iterable[Attempt], now: datetime) -> "list[Row]":
    """Of every student the archive that counts, which names those that it replaced. Where two under one name have
    different work both are here, each with a sign."""
    standing: dict[str, list[Attempt]] = {}
    for one in sorted(attempts, key=lambda a: (min(a.row.created or now, now), a.row.file)):
        others = standing.setdefault(identity(one.row.student), [])
        # the time is the archive's own word: one that lacks what was there before is not the later one
        ahead = next((other for other in others if other.continues(one) and not one.continues(other)), None)
        if ahead is not None:
            _replaced(ahead.row, one.row)
            continue
        for other in [other for other in others if one.continues(other)]:
            others.remove(other)
            _replaced(one.row, other.row)
        others.append(one)
    for others in standing.values():
        for one in others:
            for other in others:
                if other is not one:
                    text = (
                        f"{other.row.file} of {other.row.created:%F %T} has the same name and other work: both stand. "
                        "Ask the student which is theirs"
                    )
                    one.row.signs.append(Sign(kind="same name", text=text))
    return [one.row for others in standing.values() for one in others]


def _replaced(row: "Row", other: "Row") -> None:
    text = f"handed in more than once: {row.file} counts, {other.file} of {other.created:%F %T} does not"
    row.signs = [*(sign for sign in other.signs if sign.kind == "twice"), *row.signs, Sign(kind="twice", text=text)]
