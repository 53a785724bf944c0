"""Arguments that several verbs have, and exit codes."""

import argparse
import contextlib
import os
from collections.abc import Generator, Sequence

from labkit.config.errors import ConfigError, nearest
from labkit.config.gpus import gpus_named
from labkit.config.launcher import check_launcher
from labkit.config.layers import DEFAULT_PROFILE, course
from labkit.config.profiles import profile_names
from labkit.config.values import pairs as typed
from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.newest import as_it_is
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.terminal import say
from labkit.plan.quiet import quiet_warnings

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def find_machines(args: argparse.Namespace) -> None:
    """Give ``--profile`` and ``--gpu`` the name under which their machine is known: ``a100-80gb`` for ``A100 80GB``.

    Says which GPU is taken where a name may be that of several. What is not a GPU is left for the verb to refuse.
    """
    for option in ("profile", "gpu"):
        typed = getattr(args, option, None)
        if typed is None or typed == DEFAULT_PROFILE or typed in profile_names(Workspace.find()):
            continue
        if found := gpus_named(typed):
            setattr(args, option, found[0].name)
        if len(found) > 1:
            others = ", ".join(gpu.name for gpu in found[1:])
            say(f"({typed} is taken as {found[0].name}; it may also be {others})", error=True)


def add_profile(parser: argparse.ArgumentParser) -> None:
    """``--profile``."""
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="machine to run on (default: %(default)s)")


def add_experiment(parser: argparse.ArgumentParser, needed: bool = False) -> None:
    """An experiment and values that are typed after it; without ``needed`` both may be left out."""
    parser.add_argument("experiment", nargs=None if needed else "?", help="name or YAML file of an experiment")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that differ from the experiment's")


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
        on = "" if args.profile == DEFAULT_PROFILE else f" --profile {args.profile}"
        raise ConfigError(f"'{args.run}' has no run on {args.profile} yet; 'labkit run {args.run}{on}' makes one.")
    folder, last = as_it_is(same, say_skipped)
    if folder is None or last is None:
        try:
            return ledger.find(args.run)
        except LedgerError as error:
            raise LedgerError(f"{error}{nearest(args.run, (e.name for e in course(workspace)))}") from None
    if folder is not last:
        which = f"this is {folder.path.name}, the newest as the experiment is"
        say(f"{args.run}: {len(same)} runs; {which}. The last one is {last.path.name}", error=True)
    elif values := folder.read().overrides:
        own = " ".join(typed(values))
        say(f"{args.run}: this is {folder.path.name}, with {own}; there is no run of it as it is", error=True)
    return folder


def say_skipped(error: LedgerError) -> None:
    """Name a folder of the ledger that cannot be read, in addition to what was asked for."""
    say(f"skipped {error}", error=True)


def quiet_libraries() -> None:
    """What libraries say while they load is not for the user who asked for a caption.

    Raises ``ConfigError`` for an environment in which they would not load.
    """
    check_launcher(os.environ)
    from transformers.utils import logging

    quiet_warnings()
    logging.disable_progress_bar()


@contextlib.contextmanager
def without_compiler() -> Generator[None]:
    """A context in which ``torch.compile`` leaves functions as they are, also in processes that are started there.

    bitsandbytes, which comes with PEFT, asks for it when it is imported, and so loads torch's compiler: more than half
    a second, for kernels of a CPU that no prediction calls. The variable is read in ``torch/_dynamo/eval_frame.py``.
    """
    before = os.environ.get(_NO_COMPILER)
    os.environ[_NO_COMPILER] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_COMPILER]
        if before is not None:
            os.environ[_NO_COMPILER] = before


_NO_COMPILER = "TORCHDYNAMO_DISABLE"


def pairs(items: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` as typed; ``ConfigError`` for anything else."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{item}' is not KEY=VALUE; a value of a run is typed like batch_size=8.")
        pairs[key] = value
    return pairs
