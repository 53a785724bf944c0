"""``labkit show``."""

import argparse
import json

from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.terminal import console, say
from labkit.verbs.options import add_run, find_run

HELP = """\
How one run ended, and what held memory in every reported phase.

  labkit show baseline            the newest run of an experiment
  labkit show 20260102-1504       the run whose id begins like this
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_run(parser)


def main(args: argparse.Namespace) -> int:
    """Print one record."""
    record = find_run(args).read()
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
        return 0
    from labkit.ledger.predicted import prediction_rows
    from labkit.ledger.summary import summary
    from labkit.ledger.tables import phase_table, prediction_table
    from labkit.runs.ranks.text import rank_table

    out = console()
    say(summary(record))
    say(f"  config {record.config_hash}, started {record.created} (UTC), {record.device or 'no device'}\n")
    if kept := record.diagnosis:
        say("\n".join([*kept.lines(), ""]))
    if (ranks := rank_table(record)) is not None:
        out.print(ranks)
        say("")
    out.print(phase_table(record))
    if rows := prediction_rows(record):
        say("")
        rank = record.prediction.rank if isinstance(record.prediction, Predicted) else 0
        out.print(prediction_table(rows, rank or 0))
    elif isinstance(record.prediction, Unpredicted):
        say(f"\n  no prediction: {record.prediction.error}")
    return 0
