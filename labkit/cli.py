"""The command ``labkit``: reads the command line, calls a verb, says an error on one line."""

import argparse
import sys
from collections.abc import Sequence

from labkit.config.errors import ConfigError
from labkit.config.secrets import redact
from labkit.runs.records import LedgerError
from labkit.runs.slurm.queue import SlurmError
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
from labkit.verbs.options import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE

VERBS = (run, plan, advise, compare, show, diagnose, doctor, caption, merge, fetch, configs, profiles)
VERBS += (slurm,)  # clusters
VERBS += (submit, collect, grade)  # handing in


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if (
        rest
        and args.verb in (run, plan, advise, doctor, slurm)
        and all("=" in item and not item.startswith("-") for item in rest)
    ):
        args.overrides += rest  # values that stand behind an option
    elif rest:
        parser.error(redact(f"unrecognized arguments: {' '.join(rest)}"))
    try:
        return args.verb.main(args)
    except (ConfigError, LedgerError, CheckpointError, DataError, SlurmError) as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted; the run is recorded as killed" if args.verb is run else "interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, say 'head', has seen enough
        sys.stderr.close()
        return EXIT_FAILED if args.verb is run else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labkit", description="Where GPU memory goes when a vision-language model is fine-tuned."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        sub = verbs.add_parser(
            verb.__name__.rpartition(".")[2], description=verb.HELP,
            help=verb.HELP.split(".")[0].replace("\n", " ") + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(verb=verb)
        verb.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
