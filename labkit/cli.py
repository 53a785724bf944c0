"""The command ``labkit``: reads the command line, calls a verb, says an error on one line."""

import sys
from collections.abc import Sequence

from labkit.cluster.queue import SlurmError
from labkit.config.errors import ConfigError
from labkit.config.secrets import redact
from labkit.config.versions import version_of
from labkit.ledger.errors import LedgerError
from labkit.ledger.terminal import say
from labkit.plan.garbage import collect_seldom
from labkit.train.errors import CheckpointError, DataError
from labkit.verbs import (
    advise,
    caption,
    collect,
    compare,
    configs,
    diagnose,
    doctor,
    fetch,
    grade,
    merge,
    plan,
    profiles,
    run,
    show,
    slurm,
    submit,
)
from labkit.verbs.options import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, find_machines
from labkit.verbs.parser import Parser, as_options, help_text, unknown
from labkit.verbs.streams import Guarded, complaint, guarded_streams

VERBS = (run, plan, advise, compare, show, diagnose, doctor, caption, merge, fetch, configs, profiles)
VERBS += (slurm,)  # clusters
VERBS += (submit, collect, grade)  # handing in

TAKE_VALUES = (run, plan, advise, doctor, slurm)
"""Verbs with ``KEY=VALUE`` arguments."""

CARRY_OUT = (run, slurm)
"""Verbs whose exit code tells how a run ended, whether or not what they printed could be read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if argv is None:  # the process is there for this command alone
        collect_seldom()
    with guarded_streams() as out:
        try:
            carries_out, code = _run(sys.argv[1:] if argv is None else argv)
        except SystemExit as end:  # of help, and of a wrong command line
            if _arrived(out) or end.code:
                raise
            sys.exit(EXIT_FAILED)
        # what a run or a job has come to does not depend on who could read it; other verbs do nothing but print
        return code if _arrived(out) or carries_out else code or EXIT_FAILED


def _arrived(out: Guarded) -> bool:
    """Whether what was printed could be written; says so where it could not."""
    out.flush()
    reason = complaint(out)
    if reason is not None:
        say(f"error: {reason}", error=True)
    return reason is None


def _run(argv: Sequence[str]) -> tuple[bool, int]:
    """Whether the command does more than to print, and the exit code."""
    parser = command_line()
    args, rest = parser.parse_known_args(as_options(argv))
    if args.verb is None:
        if rest:
            parser.error(unknown(rest, parser.options))
        print(parser.format_help(), end="")
        return False, 0
    if rest and args.verb in TAKE_VALUES and all("=" in item and not item.startswith("-") for item in rest):
        args.overrides += rest  # values that stand after an option
    elif rest:
        args.parser.error(unknown(rest, args.parser.options))
    carries_out = args.verb in CARRY_OUT and not getattr(args, "show_config", False)
    try:
        find_machines(args)
        return carries_out, args.verb.main(args)
    except (ConfigError, LedgerError, CheckpointError, DataError, SlurmError) as error:
        say(redact(f"error: {error}"), error=True)
        return carries_out, EXIT_USAGE
    except KeyboardInterrupt:
        say("interrupted; the run is recorded as killed" if args.verb is run else "interrupted", error=True)
        return carries_out, EXIT_INTERRUPTED


def command_line() -> Parser:
    """The parser of the whole command."""
    parser = Parser(
        prog="labkit", description=help_text("Where GPU memory goes when a vision-language model is fine-tuned."),
        epilog=help_text("'labkit VERB --help', or 'labkit help VERB', says more about one of them, with examples."),
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"labkit {version_of('labkit')}")
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(metavar="VERB")
    for verb in VERBS:
        sub = verbs.add_parser(
            verb.__name__.rpartition(".")[2], description=help_text(verb.HELP),
            help=verb.HELP.split(".")[0].replace("\n", " ") + ".",
        )  # fmt: skip
        sub.set_defaults(verb=verb, parser=sub)
        verb.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
