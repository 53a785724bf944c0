"""A log read as a sequence: the last failure that the program did not survive is what ended it.

Signs of life, which are lines of progress that had not been printed before, divide a log. A failure with such lines
after it was caught, or met another process; what comes after the last of them ended the program. There, a cause counts
before a sign of one, and both before what follows when one process has died.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.help.diagnosis.symptoms import SYMPTOMS
from labkit.help.diagnosis.symptoms.symptom import Symptom

_LIFE = re.compile(
    r"^[^\n]{0,120}?(?:\d{1,3}%\|[^\n|]{0,60}\||\b\d+/\d+ +\[\d|\d(?:it/s|s/it)\b"
    r"|\b(?:epoch|step|iter|iteration|batch|global_step|steps)\b[ \t]*[:=#\[|]{0,2}[ \t]*\d"
    r"|[{,] ?'(?:train_|eval_)?loss': |\b(?:retry|retrying|restarting|resuming|skipping|skipped)\b)",
    re.MULTILINE | re.IGNORECASE,
)
_CHANGES = re.compile(r"\[\d[^\n\]]*\]?|\d+(?:\.\d+)?(?:it/s|s/it)|\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?")
"""Times and speeds, which differ when a bar is drawn once more."""

_TRACE = re.compile(r"^[^\n]{0,60}?Traceback \(most recent call last\)", re.MULTILINE)
_CHAINED = re.compile(r"direct cause of the following exception|During handling of the above exception")
_IGNORED = re.compile(
    r"^[^\n]{0,40}?Exception ignored in[^\n]*(?:\n(?:[^\n]{0,40}?Traceback \(|[^\n]{0,40}?[ \t]{2,})[^\n]*)*"
    r"(?:\n[^\n]*)?",
    re.MULTILINE,
)
_QUIET = re.compile(
    r"(?-i:(?<!NCCL )\bWARN(?:ING)?\b|\bINFO\b|\bDEBUG\b)|\b\w*Warning:|\"level\": ?\"(?:warn|info|debug)"
    r"|\bskipping\b|\bretry(?:ing)?\b|\bfall(?:ing"
    r"|s)? ?back\b"
    r"|\bcaught (?:an? )?(?:exception|error|oom)\b",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"train_runtime|`(?:Trainer\.fit|max_\w+=\d+)` (?:stopped|reached)|`Trainer\.fit` stopped|"
                       r"Training completed", re.IGNORECASE)  # fmt: skip
_FAILURE = re.compile(r"error|fail|out of memory", re.IGNORECASE)

_STOPPING = 20
"""Lines of progress that a program may still print after it was asked to end."""

_MOST = 200
"""Matches of one symptom looked at, from the end of a log."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A symptom with its ``number`` in the table, and where it was found: ``line`` is where its last line begins.

    ``quiet`` is a warning, or an error that the program handled itself; ``lives`` counts the signs of life after it.
    """

    symptom: Symptom
    number: int
    match: re.Match[str]
    line: int
    quiet: bool
    lives: int

    @property
    def survived(self) -> bool:
        """Whether the program continued."""
        return self.lives > (_STOPPING if self.symptom.final else 0)


@dataclass(frozen=True, kw_only=True)
class End:
    """What ended a program: the ``event``, all matches of its symptom in the same part of the log, what else is
    ``beside`` it there, and the ``survived`` failures before it."""

    event: Event
    matches: list[re.Match[str]]
    beside: list[Event]
    survived: list[Event]


def find_end(text: str, symptoms: Sequence[Symptom] = SYMPTOMS) -> End | None:
    """What ended the program that printed ``text``; None where nothing in it tells."""
    events = _events(text, symptoms)
    open_ = [event for event in events if not event.survived]
    loud = [event for event in open_ if not event.quiet and event.symptom.tier != "note"]
    chosen = _pick(text, loud)
    if chosen is not None and chosen.symptom.reaches_back:
        earlier = [event for event in events if event.survived and not event.quiet and event.symptom.tier == "cause"]
        chosen = _pick(text, earlier) or chosen
    if chosen is None and not _ends_in_a_trace(text):
        notes = [event for event in open_ if event.symptom.tier == "note"]
        chosen = notes[-1] if notes else _pick(text, [event for event in open_ if event.quiet and _tells(text, event)])
    if chosen is None:
        return None
    kind = chosen.symptom
    return End(
        event=chosen,
        matches=[event.match for event in events if event.symptom is kind and event.survived == chosen.survived],
        beside=_others(chosen, [e for e in open_ if e.symptom.tier in ("cause", "sign", "note")]),
        survived=[e for e in events if e.survived and e.symptom.kind != kind.kind and e.symptom.tier == "cause"],
    )


def _events(text: str, symptoms: Sequence[Symptom]) -> list[Event]:
    lives = _lives(text)
    ignored = [match.span() for match in _IGNORED.finditer(text)]
    events = []
    for number, symptom in enumerate(symptoms):
        for match in list(symptom.pattern.finditer(text))[-_MOST:]:
            start = text.rfind("\n", 0, match.start()) + 1
            quiet = _QUIET.search(text, max(start, match.start() - 400), _line_end(text, match.start())) is not None
            quiet = quiet or symptom.tier == "warning" or any(a <= match.start() < b for a, b in ignored)
            after = len(lives) - bisect_right(lives, match.end())
            line = text.rfind("\n", 0, match.end() - 1) + 1
            events.append(
                Event(symptom=symptom, number=number, match=match, line=line, quiet=quiet, lives=after)
            )  # fmt: skip
    return sorted(events, key=lambda event: (event.match.start(), event.number))


def _lives(text: str) -> list[int]:
    """Where lines of progress stand that had not been printed before."""
    seen: set[str] = set()
    lives = []
    for match in _LIFE.finditer(text):
        line = text[match.start() : min(_line_end(text, match.start()), match.start() + 400)]
        key = _CHANGES.sub("", line)
        if key not in seen:
            seen.add(key)
            lives.append(match.start())
    return lives


def _pick(text: str, events: list[Event]) -> Event | None:
    """The event that tells most: the last cause, or what began its chain of exceptions; else the first sign.

    Where several fit one line, the symptom that stands first in the table.
    """
    for tier in ("cause", "sign", "follow_up", "warning"):
        found = [event for event in events if event.symptom.tier == tier]
        if not found:
            continue
        chosen = found[-1] if tier == "cause" else found[0]
        if tier == "cause":
            for event in reversed(found[:-1]):
                between = text[event.match.end() : chosen.match.start()]
                if event.symptom.kind != chosen.symptom.kind and _CHAINED.search(between):
                    chosen = event
        return min((event for event in found if event.line == chosen.line), key=lambda event: event.number)
    return None


def _others(chosen: Event, events: list[Event]) -> list[Event]:
    """The last event of each other kind, where it is another text."""
    apart = [e for e in events if e.symptom.kind != chosen.symptom.kind and e.line != chosen.line]
    return list({event.symptom.kind: event for event in apart}.values())


def went_well(text: str) -> bool:
    """Whether a program was at work to the end of what it printed, and no exception came after that."""
    return bool(_lives(text) or _FINISHED.search(text)) and not _ends_in_a_trace(text)


def _ends_in_a_trace(text: str) -> bool:
    """Whether the last that was printed is an exception which no symptom knows, rather than something survived."""
    ignored = [match.span() for match in _IGNORED.finditer(text)]
    traces = [match.start() for match in _TRACE.finditer(text) if not any(a <= match.start() < b for a, b in ignored)]
    lives = _lives(text)
    return bool(traces) and (not lives or traces[-1] > lives[-1])


def _tells(text: str, event: Event) -> bool:
    """Whether a warning may be taken for the end: not one of a program that has finished, unless it says it failed."""
    start = text.rfind("\n", 0, event.match.start()) + 1
    line = text[start : _line_end(text, event.match.end())]
    return not _FINISHED.search(text) or bool(_FAILURE.search(line))


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
