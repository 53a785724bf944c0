"""``labkit grade``."""

import argparse
import json
import math
import os
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say

HELP = """\
A row a student, from archives that 'labkit submit' made. Points, runs, answers committed before the run, right
answers, checks, GPU minutes, and what does not fit together. Questions and checks are computed again from the runs.
Nothing in an archive is executed or unpacked to disk.

  labkit grade handed-in                                 the table
  labkit grade handed-in --details abc123                one student in full
  labkit grade handed-in --csv grades.csv --price-per-hour 2.5
  labkit grade submission-abc123.tar.gz                  one archive
  labkit grade handed-in --roster canvas.csv --deadline 2026-12-24T18:00+01:00 --gradebook points.csv

A roster is what Canvas or Moodle exports, or a CSV with a column 'Name'; who is on it and handed in nothing has a row,
and --gradebook gives its columns back with the points, for the same system to import. --points is a YAML file:

  committed: 1            # an answer committed before its run, right or wrong
  right: 1                # and right
  task: 2                 # a task that is passed
  late_a_day: 0.1         # of the points, for each day that has begun
  most_late: 0.5
  labs: {00_setup: 0}     # a factor; 0 leaves a lab out
  single: {03_precision/lost_updates: 5}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("folder", help="a folder with archives, at any depth, or one archive")
    parser.add_argument("--csv", metavar="FILE", help="also write the rows to a CSV file")
    parser.add_argument("--details", metavar="NAME", help="one student in full: the name or its beginning")
    parser.add_argument("--roster", metavar="FILE", help="the students of the class, as CSV")
    parser.add_argument("--points", metavar="FILE", help="what answers, checks and lateness are worth, as YAML")
    parser.add_argument("--deadline", metavar="TIME", help="what is handed in later is late; 2026-12-24T18:00+01:00")
    parser.add_argument("--gradebook", metavar="FILE", help="write the points with the roster's columns, as CSV")
    parser.add_argument("--gradescope", metavar="FILE", help="write results.json for one archive")
    parser.add_argument("--html", metavar="FILE", help="write a page about the class")
    parser.add_argument("--price-per-hour", type=float, help="of one GPU, in any currency; without it no cost is shown")


def main(args: argparse.Namespace) -> int:
    """Print the rows. The exit code is 0 also where an archive is broken: its row says why."""
    price = args.price_per_hour
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ConfigError(f"--price-per-hour={price} is not a price: a number from 0 up.")
    if args.gradebook and not args.roster:
        raise ConfigError("--gradebook has the columns of a roster; give --roster too.")
    from labkit.grading.class_page import class_page
    from labkit.grading.grade import Row, find_archives, grade
    from labkit.grading.gradebook import gradebook, gradescope
    from labkit.grading.points import Points, read_deadline
    from labkit.grading.roster import read_roster
    from labkit.grading.sheet import as_csv, clean, details, facts, table

    workspace = Workspace.find()
    roster = read_roster(Path(args.roster)) if args.roster else None
    points = Points.read(Path(args.points)) if args.points else Points()
    deadline = read_deadline(args.deadline) if args.deadline else None
    paths, others = find_archives(Path(args.folder))
    rows = grade(workspace, paths, price, roster=roster, points=points, deadline=deadline)
    shown: list[Row] = rows
    if args.details is not None:
        wanted = args.details.casefold()
        shown = [r for r in rows if _begins(wanted, r.student, r.file.split("/")[-1])]
        exact = [r for r in shown if r.student.casefold() == wanted]
        if not shown:
            raise ConfigError(f"--details={args.details!r}: no student and no file begins like this.")
        shown = exact or shown
    if args.csv:
        _write("--csv", args.csv, _MARK + as_csv(rows))
    if roster is not None and args.gradebook:
        _write("--gradebook", args.gradebook, gradebook(rows, roster, points))
    if args.gradescope:
        _write("--gradescope", args.gradescope, json.dumps(gradescope(rows, points), indent=1) + "\n")
    if args.html:
        _write("--html", args.html, class_page(rows, points))
    if args.json:
        print(json.dumps([facts(row) for row in shown], indent=1))
        return 0
    say("\n\n".join(details(row) for row in shown) if args.details is not None else table(rows))
    for path in others:
        say(f"passed over {clean(path.name, 60)}: no archive", error=True)
    return 0


def _begins(wanted: str, *names: str) -> bool:
    return any(name.casefold().startswith(wanted) for name in names if name)


_MARK = "\ufeff"
"""Without it spreadsheets take UTF-8 for another code."""


def _write(option: str, name: str, text: str) -> None:
    path = Path(name)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{option}={path} cannot be written: {error.strerror}.") from None
