"""Class page: a class on one page of HTML: who handed in what, which questions were missed, and who is stuck where."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.grading.grade import Row
from labkit.grading.learning import of_class
from labkit.grading.points import Points
from labkit.grading.sheet import WRITTEN, clean
from labkit.lab.lesson import EXERCISES, LABS, Question, lesson_of
from labkit.memory.units import counted, human_bytes

_STYLE = """
:root { color-scheme: light dark; --low: #d1495b; --mid: #edae49; --high: #2f9e6e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #8886; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.lab { min-width: 1.6rem; text-align: center; border: 1px solid Canvas; }
.wide { overflow-x: auto; }
.none { opacity: .55; }
"""


@dataclass(frozen=True, kw_only=True)
class Missed:
    """How one question went in a class: of ``given`` answers so many right and so many committed before the run.

    ``usual`` is the wrong answer that came most often, and ``times`` how often.
    """

    lab: str
    question: Question
    given: int
    right: int
    before: int
    told: int
    usual: str
    times: int

    @property
    def share_right(self) -> float:
        """Of the answers that runs tell of; 1 where none does."""
        return self.right / self.told if self.told else 1.0


def missed(rows: Iterable[Row]) -> list[Missed]:
    """Every question that somebody has answered, the most often missed first."""
    found: dict[tuple[str, str], list] = {}
    for row in rows:
        for one in row.given:
            found.setdefault((one.lab, one.question), []).append(one)
    result = []
    for (lab, id), answers in found.items():
        question = lesson_of(lab).question(id)
        wrong = Counter(_answer(question, one.given) for one in answers if one.right is False)
        usual, times = wrong.most_common(1)[0] if wrong else ("", 0)
        result.append(Missed(
            lab=lab, question=question, given=len(answers), right=sum(one.right is True for one in answers),
            before=sum(one.before is True for one in answers), told=sum(one.right is not None for one in answers),
            usual=usual, times=times,
        ))  # fmt: skip
    return sorted(result, key=lambda one: (one.share_right, LABS.index(one.lab)))


def stuck_in(row: Row, points: Points) -> str | None:
    """The last lab that a student has begun, where less than half of its points are there; None elsewhere."""
    most = points.most()
    begun = [lab for lab in LABS if _begun(row, lab)]
    if not begun or not most[begun[-1]]:
        return None
    return begun[-1] if row.points[begun[-1]] < most[begun[-1]] / 2 else None


def class_page(rows: Sequence[Row], points: Points) -> str:
    """The page. What students wrote is escaped; it runs nothing and loads nothing."""
    handed, broken = [r for r in rows if not r.error and not r.absent], [r for r in rows if r.error]
    absent = [r for r in rows if r.absent]
    late = sum(bool(r.late) for r in handed)
    said = [counted(len(handed), "student") + " handed in"]
    said += [f"{late} of them late"] if late else []
    said += [f"{len(absent)} did not"] if absent else []
    said += [f"{counted(len(broken), 'file')} could not be read"] if broken else []
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>The class</title>',
        f"<style>{_STYLE}</style><h1>The class</h1><p>{_text(', '.join(said))}.</p>",
        *_stuck(handed, points), *_learned(handed), *_questions(handed), *_students(rows, points), *_exercises(handed),
    ]  # fmt: skip
    if broken:
        parts.append("<h2>Not read</h2><ul>")
        parts += [f"<li>{_text(row.file)}: {_text(row.error)}</li>" for row in broken]
        parts.append("</ul>")
    return "\n".join(parts) + "\n</html>\n"


def _stuck(rows: Sequence[Row], points: Points) -> list[str]:
    places: dict[str, list[str]] = {}
    for row in rows:
        if (lab := stuck_in(row, points)) is not None:
            places.setdefault(lab, []).append(row.student)
    parts = ["<h2>Who is stuck</h2>", "<p>The last lab begun, with less than half of its points.</p>"]
    if not places:
        return [*parts, "<p>No student.</p>"]
    names = [f"<tr><td>{lab}<td>{_text(', '.join(sorted(places[lab])), 2000)}" for lab in LABS if lab in places]
    return [*parts, "<table><tr><th>lab<th>students", *names, "</table>"]


def _learned(rows: Sequence[Row]) -> list[str]:
    """The ten questions before the labs and those after, of the students who answered both."""
    found = of_class(row.learned for row in rows)
    if not found.students:
        return []
    said = (
        f"{counted(found.students, 'student')} handed in ten questions before lab 01 and ten of the same kind after "
        f"lab 12. {counted(found.only_one, 'other')} handed in one of the two. "
    )
    if found.gained is None:
        said += "No question was answered both times."
    else:
        answered = sum(kind.both for kind in found.kinds)
        said += (
            f"Of {counted(answered, 'pair')} of questions that the same student answered both times, "
            f"{sum(kind.first for kind in found.kinds) / answered:.0%} were right before and "
            f"{sum(kind.then for kind in found.kinds) / answered:.0%} after: {100 * found.gained:+.0f} points of a "
            "hundred."
        )
    heads = "".join(f"<th class=n>{one}" for one in ("right before", "passed before", "right after", "passed after"))
    parts = ["<h2>What was learnt</h2>", f"<p>{said}</p>", f"<table><tr><th>about{heads}"]
    for kind in found.kinds:
        cells = (kind.before, kind.passed_before, kind.after, kind.passed_after)
        parts.append(f"<tr><td>{kind.about}" + "".join(f"<td class=n>{cell}" for cell in cells))
    return [*parts, "</table>"]


def _questions(rows: Sequence[Row]) -> list[str]:
    head = "<tr><th>lab<th>question<th class=n>answers<th class=n>before the run<th class=n>right<th>usual wrong answer"
    parts = ["<h2>Questions, the most often missed first</h2>", "<table>", head]
    for one in missed(rows):
        usual = f"{one.usual} ({counted(one.times, 'time')})" if one.times else ""
        right = f"{one.right}/{one.told}" if one.told else "no run tells"
        parts.append(
            f"<tr><td>{one.lab}<td>{_text(one.question.text)}<td class=n>{one.given}<td class=n>{one.before}"
            f"<td class=n>{right}<td>{_text(usual)}"
        )
    return [*parts, "</table>"]


def _students(rows: Sequence[Row], points: Points) -> list[str]:
    most = points.most()
    labs = [lab for lab in LABS if most[lab]]
    heads = "".join(f'<th title="{lab}">{lab[:2]}' for lab in labs)
    parts = [
        "<h2>Students</h2>", f"<p>Of {sum(most.values()):g} points.</p>", '<div class="wide"><table>',
        f"<tr><th>student<th class=n>points<th class=n>late{heads}<th>to look at",
    ]  # fmt: skip
    for row in rows:
        if row.error:
            continue
        if row.absent:
            parts.append(f'<tr class="none"><td>{_text(row.student)}<td colspan="{len(labs) + 3}">not handed in')
            continue
        late = f"{row.late.days} d {row.late.seconds // 3600} h" if row.late else ""
        cells = "".join(_cell(lab, row.points[lab], most[lab]) for lab in labs)
        parts.append(
            f"<tr><td>{_text(row.student)}<td class=n>{row.total:.4g}<td class=n>{late}{cells}"
            f"<td>{_text(', '.join(row.kinds))}"
        )
    return [*parts, "</table></div>"]


def _exercises(rows: Sequence[Row]) -> list[str]:
    """What was written, an exercise at a time, for a person to read."""
    parts = ["<h2>Exercises</h2>"]
    for lab in LABS:
        for number in EXERCISES:
            found = [(row.student, row.written[lab][number]) for row in rows if number in row.written.get(lab, {})]
            if found:
                texts = "".join(f"<p><b>{_text(name)}</b> {_text(text, WRITTEN)}" for name, text in found)
                head = f"{lab}, exercise {number}: {counted(len(found), 'answer')}"
                parts.append(f"<details><summary>{head}</summary>{texts}</details>")
    return parts if len(parts) > 1 else []


def _cell(lab: str, got: float, most: float) -> str:
    colour = "var(--high)" if got >= 0.8 * most else "var(--mid)" if got >= 0.4 * most else "var(--low)"
    style = f' style="background: color-mix(in srgb, {colour} 45%, Canvas)"' if got else ""
    return f'<td class="lab" title="{lab}: {got:g} of {most:g}"{style}>{got:.3g}'


def _begun(row: Row, lab: str) -> bool:
    answered = any(one.lab == lab and one.given is not None for one in row.answers)
    return answered or any(one.lab == lab and one.said for one in row.checks)


def _answer(question: Question, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return str(value)
    return human_bytes(value) if question.unit == "memory" else f"{value:.3g}"


def _text(text: str, longest: int = 400) -> str:
    return html.escape(clean(text, longest))
