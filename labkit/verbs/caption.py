"""``labkit caption``."""

import argparse
import json
from pathlib import Path

from labkit.config.schema import RunConfig
from labkit.verbs.options import add_run, find_run, quiet_libraries

HELP = """\
What a run has learnt: its captions for images of your own. A run keeps its weights with save_model=true. For a run
with adapters also the captions of its base, without them.

  labkit caption food_lora apple.png         the newest run of an experiment
  labkit caption 20260102-1504 *.png         the run whose id begins like this
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_run(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")


def main(args: argparse.Namespace) -> int:
    """Print a caption for each image."""
    folder = find_run(args)
    config = RunConfig(**folder.read().config)
    quiet_libraries()
    from labkit.train.captions import captions_of_run

    rows = captions_of_run(config, folder.path, [Path(image) for image in args.images])
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['image']}\n  {row['caption']}")
        if "base_caption" in row:
            print(f"  {row['base_caption']}   (without the adapter)")
    return 0
