"""How long 200 submissions take to be graded, with 25 runs each.

    python tests/benchmarks/grading.py                a course is run first: minutes
    python tests/benchmarks/grading.py LEDGER         one that is there already

Claim: under 30 seconds. One real ledger of the course on the profile ``tiny`` becomes 200 students, each with times and
ids of their own, and answers and checks of all labs. ``make bench`` runs it.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "grading"))
from students import another

from labkit.config.profiles import load_profile
from labkit.config.versions import version_of
from labkit.config.workspace import Workspace
from labkit.grading.grade import find_archives, grade
from labkit.grading.submit import submit_to
from labkit.lab.journal import Journal
from labkit.lab.lab import Lab
from labkit.lab.lesson import LABS
from labkit.ledger.ledger import Ledger
from labkit.runs.runner import run

STUDENTS, RUNS, LIMIT_S = 200, 25, 30.0


def fill(source: Path | None, root: Path) -> None:
    """A ledger of the course with ``RUNS`` runs, every question answered and every check made."""
    os.environ["LABKIT_RUNS"], os.environ["LABKIT_PROFILE"] = str(root), "tiny"
    if source is None:
        for name in load_profile(Workspace.find(), "tiny").expected:
            print(f"running {name}", file=sys.stderr, flush=True)
            run(name)
    else:
        shutil.copytree(source / "tiny", root / "tiny")
        Journal(root).path.unlink(missing_ok=True)
    for lab in LABS:
        one = Lab(lab)
        for question in one.lesson.questions:
            one.ask(question.id, question.choices[0] if question.choices else 2)
        one.check()
    made = Ledger(root).folders()
    for number in range(RUNS - len(made)):  # some ran an experiment again
        old = made[number % len(made)].path
        another_id = f"{old.name[:-4]}{number:04x}"
        shutil.copytree(old, old.with_name(another_id))


def main(arguments: list[str]) -> None:
    """Make the submissions, grade them, and print seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(Path(arguments[0]) if arguments else None, folder / "real")
        (folder / "handed").mkdir()
        for number in range(STUDENTS):
            root = another(folder / "real", folder / "student", -number)
            os.environ["LABKIT_RUNS"] = str(root)
            with (folder / "handed" / f"{number}.tar.gz").open("wb") as file:
                submit_to(Workspace.find(), f"student {number}", file)
            shutil.rmtree(root)
        paths, _ = find_archives(folder / "handed")
        size = sum(path.stat().st_size for path in paths)
        wall, cpu = time.perf_counter(), time.process_time()
        rows = grade(Workspace.find(), paths)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert [row.error for row in rows] == [""] * STUDENTS
    assert {row.runs for row in rows} == {RUNS} and {len(row.given) for row in rows} == {len(rows[0].answers)}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, labkit {version_of('labkit')}, {machine}")
    kb = size / STUDENTS / 1000
    print(f"{STUDENTS} submissions of {RUNS} runs, {kb:.0f} KB each: {wall:.1f} s (CPU {cpu:.1f} s)")
    print(f"{1000 * wall / STUDENTS:.0f} ms a submission; {LIMIT_S:.0f} s are claimed for all")
    first = rows[0]
    print(
        f"the first: {first.right} right of {len(first.given)}, {first.passed} checks passed, {first.said_passed} said"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
