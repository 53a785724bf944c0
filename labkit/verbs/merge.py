"""``labkit merge``."""

import argparse
import json
from pathlib import Path

from labkit.config.catalogue.models import architecture
from labkit.config.schema import read_config
from labkit.ledger.terminal import say
from labkit.train.kept import adapter_of, check_target
from labkit.verbs.options import add_run, find_run, quiet_libraries

HELP = """\
Add a run's adapter to the weights of its base: one model, which plain transformers loads. The base is loaded
unquantized, also for QLoRA.

  labkit merge food_lora merged                          the newest run of an experiment, into the folder merged
  labkit merge xxl_qlora merged --base ./flan-t5-xxl     onto a base that lies elsewhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_run(parser)
    parser.add_argument("folder", help="where to write the model; must not exist")
    parser.add_argument("--base", metavar="MODEL", help="the base as a folder or a name (default: the run's own)")


def main(args: argparse.Namespace) -> int:
    """Write the merged model."""
    folder = find_run(args)
    config = read_config(folder.read().config)
    adapter_of(folder.path)
    check_target(Path(args.folder))
    if args.base is not None:
        architecture(args.base)
    quiet_libraries()
    from labkit.train.trained import merge

    target = merge(config, folder.path, Path(args.folder), args.base)
    if args.json:
        print(json.dumps({"folder": str(target)}))
    else:
        say(f"merged model: {target}")
    return 0
