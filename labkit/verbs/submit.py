"""``labkit submit``."""

import argparse
import json
import sys
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say
from labkit.memory.units import counted

HELP = """\
Pack your work into one archive to hand in. The runs, answers and notebooks as they are on disk, without data and
weights. Secrets are redacted in the archive, and it is said where. Save the notebooks first. What has no answer yet,
and which tasks were never passed, is said too.

  labkit submit --name abc123                      workspace/submission-abc123.tar.gz
  labkit submit --name abc123 --output mine.tar.gz
  labkit submit --name abc123 --output -           to standard output, for a pipe
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("--name", help="who hands in: a name or netID, as the instructor knows it")
    parser.add_argument("--output", metavar="FILE", help="where to write the archive; '-' is standard output")


def main(args: argparse.Namespace) -> int:
    """Write the archive and say where."""
    from labkit.grading.submit import submit, submit_to
    from labkit.lab.unanswered import unanswered

    if not args.name:
        raise ConfigError("who hands in? Say it with --name, such as 'labkit submit --name abc123'.")
    workspace = Workspace.find()
    if args.output == "-":
        if args.json:
            raise ConfigError("--json does not go with --output -, which is the archive itself.")
        try:
            lines = submit_to(workspace, args.name, sys.stdout.buffer).lines()
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"--output -: the archive is cut off ({why}); hand in again.") from None
        for line in lines:
            say(line, error=True)
        return 0
    path, found = submit(workspace, args.name, Path(args.output) if args.output else None)
    if args.json:
        said = {"left_out": found.left_out, "redacted": found.redacted, "unread": found.unread}
        said["unanswered"] = unanswered(workspace)
        print(json.dumps({"path": str(path), "members": len(found.members), **said}, indent=1))
        return 0
    say(f"{path}: {counted(len(found.members), 'file')}, {path.stat().st_size / 2**20:.2f} MiB")
    for line in [*found.lines(), *unanswered(workspace)]:
        say(f"  {line}")
    return 0
