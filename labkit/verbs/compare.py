"""``labkit compare``."""

import argparse
import json
from typing import Any

from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.ledger.compare import compare, missing
from labkit.ledger.ledger import Ledger
from labkit.ledger.terminal import console, say
from labkit.verbs.options import EXIT_FAILED, add_profile, say_skipped

HELP = """\
The newest run of every experiment as the course has it, and of each set of values that you typed, one line each. What
changed, how it ended and should have, peak memory by category, time and loss.

  labkit compare                  the table
  labkit compare --json           the same with every phase, for machines
  labkit compare --check          exit code 1 if a run is missing, outdated or ended otherwise than expected
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_profile(parser)
    parser.add_argument("--check", action="store_true", help="exit code 1 unless all is as expected")


def main(args: argparse.Namespace) -> int:
    """Print the table or its rows."""
    workspace = Workspace.find()
    rows = _rows(workspace, args.profile)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(workspace, args.profile, rows)
    return EXIT_FAILED if args.check and missing(workspace, args.profile, rows) else 0


def print_table(profile: str) -> None:
    """The table of a profile's runs, and what is missing in it."""
    workspace = Workspace.find()
    _print(workspace, profile, _rows(workspace, profile))


def _rows(workspace: Workspace, profile: str) -> list[dict[str, Any]]:
    return compare(workspace, Ledger(workspace.runs), profile, on_skipped=say_skipped)


def _print(workspace: Workspace, profile: str, rows: list[dict[str, Any]]) -> None:
    from labkit.ledger.tables import compare_table

    wrong = missing(workspace, profile, rows)
    total = len(load_profile(workspace, profile).expected)
    console().print(compare_table(rows, profile))
    say(f"\n{total - len(wrong)} of {total} as expected. Steps count from 0.")
    say("predicted: the peak with memory enough.")
    say("error: how far the prediction is above (+) or below (-) the measurement, in the phases that were reached.")
    say("Each category shows its own peak; temp is allocated and freed within one phase.")
    say("host is kept in host memory: step counters, and what is offloaded. The simulated GPU tells it by owner.")
    say(f"Records: {workspace.runs / profile}")
    if wrong:
        say("not as expected, outdated or not run: " + ", ".join(wrong))
