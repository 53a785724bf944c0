"""Arguments that several verbs have, and exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence

from labkit.config.errors import ConfigError
from labkit.config.launcher import check_launcher
from labkit.config.layers import DEFAULT_PROFILE, course
from labkit.config.values import pairs as typed
from labkit.config.workspace import Workspace
from labkit.plan.quiet import quiet_warnings
from labkit.runs.newest import as_it_is
from labkit.runs.records import Ledger, LedgerError, RunFolder

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def add_profile(parser: argparse.ArgumentParser) -> None:
    """``--profile``."""
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="machine to run on (default: %(default)s)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The name of a run, and the profile it was on."""
    parser.add_argument("run", help="id of a run, its beginning, or the name of an experiment")
    add_profile(parser)


def find_run(args: argparse.Namespace) -> RunFolder:
    """The run that is named by its id, or of an experiment the newest as it is, without values of one's own.

    Says on standard error which of several it took, where that may not be the one that was meant.
    """
    workspace = Workspace.find()
    ledger = Ledger(workspace.runs)
    same = ledger.folders(args.profile, args.run)
    if not same and args.run in [experiment.name for experiment in course(workspace)]:
        raise ConfigError(f"'{args.run}' has no run on {args.profile} yet; 'labkit run {args.run}' makes one.")
    folder, last = as_it_is(same, say_skipped)
    if folder is None or last is None:
        return ledger.find(args.run)
    if folder is not last:
        print(f"{args.run}: {len(same)} runs; this is {folder.path.name}, the newest as the experiment is. The last "
              "one "
              f"is {last.path.name}", file=sys.stderr)  # fmt: skip
    elif values := folder.read().overrides:
        own = " ".join(typed(values))
        print(f"{args.run}: no run of it as it is; this is {folder.path.name}, with {own}", file=sys.stderr)
    return folder


def say_skipped(error: LedgerError) -> None:
    """Name a folder of the ledger that cannot be read, beside what was asked for."""
    print(f"skipped {error}", file=sys.stderr)


def quiet_libraries() -> None:
    """What libraries say while they load is not for whoever asked for a caption.

    Raises ``ConfigError`` for an environment in which they would not load.
    """
    check_launcher(os.environ)
    import transformers

    quiet_warnings()
    transformers.utils.logging.disable_progress_bar()


def pairs(items: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` as typed; ``ConfigError`` for anything else."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{item}' is not KEY=VALUE.")
        pairs[key] = value
    return pairs
