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
A row a student, from archives that 'labkit submit' made. Runs, answers committed before the run, right answers,
checks, GPU minutes, and what does not fit together. Questions and checks are computed again from the runs. Nothing in
an archive is executed or unpacked to disk.

  labkit grade handed-in                                 the table
  labkit grade handed-in --details abc123                one student in full
  labkit grade handed-in --csv grades.csv --price-per-hour 2.5
  labkit grade submission-abc123.tar.gz                  one archive
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("folder", help="a folder with archives, at any depth, or one archive")
    parser.add_argument("--csv", metavar="FILE", help="also write the rows to a CSV file")
    parser.add_argument("--details", metavar="NAME", help="one student in full: the name or its beginning")
    parser.add_argument("--price-per-hour", type=float, help="of one GPU, in any currency; without it no cost is shown")


def main(args: argparse.Namespace) -> int:
    """Print the rows. The exit code is 0 also where an archive is broken: its row says why."""
    price = args.price_per_hour
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ConfigError(f"--price-per-hour={price} is not a price: a number from 0 up.")
    from labkit.grading.grade import Row, find_archives, grade
    from labkit.grading.sheet import as_csv, clean, details, facts, table

    workspace = Workspace.find()
    paths, others = find_archives(Path(args.folder))
    rows = grade(workspace, paths, price)
    shown: list[Row] = rows
    if args.details is not None:
        wanted = args.details.casefold()
        shown = [r for r in rows if _begins(wanted, r.student, r.file.split("/")[-1])]
        exact = [r for r in shown if r.student.casefold() == wanted]
        if not shown:
            raise ConfigError(f"--details={args.details!r}: no student and no file begins like this.")
        shown = exact or shown
    if args.csv:
        _write(Path(args.csv), as_csv(rows))
    if args.json:
        print(json.dumps([facts(row) for row in shown], indent=1))
        return 0
    say("\n\n".join(details(row) for row in shown) if args.details is not None else table(rows))
    for path in others:
        say(f"passed over {clean(path.name, 60)}: no archive", error=True)
    return 0


def _begins(wanted: str, *names: str) -> bool:
    return any(name.casefold().startswith(wanted) for name in names if name)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8-sig")  # spreadsheets take UTF-8 for another code without the mark
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"--csv={path} cannot be written: {error.strerror}.") from None
