"""``labkit configs``."""

import argparse
import json

from labkit.config.catalogue.models import ARCHITECTURES
from labkit.config.datasets import DATASETS
from labkit.config.layers import course
from labkit.config.schema import RunConfig, key_docs, key_type, keys
from labkit.config.workspace import Workspace
from labkit.ledger.compare import changes
from labkit.ledger.terminal import say
from labkit.verbs.options import add_profile

HELP = """\
The experiments of the course, what each changes and what it shows.

  labkit configs                  in order, with what they change
  labkit configs --keys           every key: type, default, meaning
  labkit configs --models         the models and data sets that have a name
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_profile(parser)
    parser.add_argument("--keys", action="store_true", help="list the keys of a config")
    parser.add_argument("--models", action="store_true", help="list models and data sets")


def main(args: argparse.Namespace) -> int:
    """List experiments, keys, or models."""
    if args.keys:
        defaults = {key: getattr(RunConfig, key) for key in keys()}
        rows = [{"key": k, "type": key_type(k), "default": defaults[k], "meaning": key_docs()[k]} for k in keys()]
        text = [
            f"{r['key']}  ({r['type']}; {'empty' if r['default'] is None else r['default']})\n"
            f"    {r['meaning'].replace('``', '')}"
            for r in rows
        ]
        text.append("In brackets: what it takes, and what it is by default. KEY= with nothing after it is empty.")
    elif args.models:
        rows = [{"model": a.name, "language": a.language} for a in ARCHITECTURES.values()]
        rows += [{"dataset": d.name, "about": d.about} for d in DATASETS.values()]
        text = [f"{a.name:34} language model: {a.language}" for a in ARCHITECTURES.values()]
        text += [f"{d.name:34} {d.about}" for d in DATASETS.values()]
    else:
        from labkit.ledger.words import changed_words

        workspace = Workspace.find()
        rows = [
            {"number": e.number, "experiment": e.name, "lesson": e.lesson, "compare_with": e.compare_with,
             "changed": changes(workspace, e, args.profile)}
            for e in course(workspace)
        ]  # fmt: skip
        text = [
            f"{'' if r['number'] is None else r['number']:>3} {r['experiment']}\n    {r['lesson']}"
            + (f"\n    against {r['compare_with']}: {changed_words(r['changed'])}" if r["compare_with"] else "")
            for r in rows
        ]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        say("\n".join(text))
    return 0
