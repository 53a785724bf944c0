"""``python -m provisioning``: the notebooks' steps as a command, for one student or a class list."""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from provisioning import access, booking, collect, leases, many, roster, slots, status, steps, teardown, times
from provisioning.errors import LeaseOverError, ProvisioningError, UsageError
from provisioning.roster import Student

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
HELP = """\
GPU nodes on Chameleon, from a reservation to a Jupyter link, and back to nothing.

  python -m provisioning up abc123 --node g1.h100.pci.1     a node for one student; run again, it does what is missing
  python -m provisioning up --class class.csv --dry-run     for a class list (netid,node,public_key); only the plan
  python -m provisioning status --class class.csv --cost    how things stand, and what it has cost
  python -m provisioning extend abc123 --node NODE --by 1h  let the lease end later
  python -m provisioning collect abc123 --node NODE         bring home all that the student made
  python -m provisioning link abc123 --node NODE            print the Jupyter address with its token
  python -m provisioning down --class class.csv             delete all that they have, at all sites; refuses while work
                                                            is not collected

Exit code: 0 for all well; 1 when it failed for somebody; 2 for a value that cannot be used; 130 after Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = _parser().parse_args(argv)
    try:
        students = _students(args)
        return args.verb(args, students)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ProvisioningError as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; run the same again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m provisioning", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    made = {}
    for verb, does in (
        (_up, "reserve, boot, install, start Jupyter"), (_status, "read everything back"),
        (_extend, "let leases end later"), (_collect, "bring work home"), (_link, "print the Jupyter address"),
        (_down, "delete it all"),
    ):  # fmt: skip
        name = verb.__name__.removeprefix("_")
        made[name] = sub = verbs.add_parser(name, help=does, description=does.capitalize() + ".")
        sub.set_defaults(verb=verb)
        sub.add_argument("netid", nargs="*", help="netIDs of students")
        sub.add_argument("--class", dest="roster", type=Path, metavar="CSV", help="a class list: netid,node,public_key")
        sub.add_argument("--node", help="a node of sites.yaml, such as g1.h100.pci.1")
        sub.add_argument("--at-once", type=int, default=many.AT_ONCE, metavar="N", help="students at a time")
    made["up"].add_argument("--length", default="2h50m", help="of the lease, 2h50m if not given")
    made["up"].add_argument("--start", default="now", help="now, next (free slot), or a time like 2026-11-22T14:00")
    made["up"].add_argument("--dry-run", action="store_true", help="print the plan and make nothing")
    made["up"].add_argument("--open", action="store_true", help="open port 8888 to this machine's address")
    made["up"].add_argument("--restart", action="store_true", help="stop a lab that runs, where that is needed")
    made["status"].add_argument("--cost", action="store_true", help="hours and cost, with the sum")
    made["extend"].add_argument("--by", required=True, help="such as 1h")
    made["down"].add_argument("--discard", action="store_true", help="delete work that was not collected, too")
    return parser


def _students(args: argparse.Namespace) -> list[Student]:
    if bool(args.netid) == bool(args.roster):
        raise UsageError("give netIDs, or a class list with --class.")
    if args.at_once < 1:
        raise UsageError(f"--at-once={args.at_once} must be at least 1.")
    if args.roster:
        return roster.read_class(args.roster, args.node)
    if not args.node and args.verb is not _down:  # which takes all that a netID has, wherever it is
        raise UsageError("give --node, such as g1.h100.pci.1; 'provisioning/sites.yaml' lists them.")
    return roster.read_netids(args.netid, args.node or "")


def _each(args: argparse.Namespace, students: list[Student], act: Callable[[booking.Booking, Student], str]) -> int:
    """Do it for all: one student sees each step, a class one line each and a summary."""
    alone = len(students) == 1

    def action(student: Student, stop: threading.Event) -> str:
        made = booking.book(student.netid, student.node, print if alone else lambda _: None)
        made.stop = stop
        return act(made, student)

    return _tell(many.for_each(students, action, args.at_once, print))


def _tell(outcomes: list[many.Outcome]) -> int:
    if len(outcomes) > 1:
        print(many.summary(outcomes))
    return 0 if all(outcome.ok for outcome in outcomes) else EXIT_FAILED


def _up(args: argparse.Namespace, students: list[Student]) -> int:
    length = times.parse_length(args.length)

    def act(made: booking.Booking, student: Student) -> str:
        start = slots.starting(made, args.start, length)
        if args.dry_run:
            print(steps.plan(made, length, start))
            return "nothing was made"
        may_stop = _confirm if len(students) == 1 and sys.stdin.isatty() else None
        link = steps.up(made, length, start, student.public_key, args.open, args.restart, may_stop)
        if link is None:
            return "reserved; run 'up' again when the lease has started"
        return f"{made.site.ssh_user}@{link.way.address}, Jupyter: {link.file}"

    return _each(args, students, act)


def _confirm(question: str) -> bool:
    """Ask at the terminal; anything but yes is no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _status(args: argparse.Namespace, students: list[Student]) -> int:
    found: list[status.Status] = []

    def act(made: booking.Booking, _: Student) -> str:
        read = status.status(made)
        found.append(read)
        if len(students) == 1:
            print(read)
            return "read"
        warning = f" ! {read.warning}" if read.warning else ""
        return read.line + warning

    code = _each(args, students, act)
    if args.cost:
        unknown = sum(read.cost is None for read in found)
        known = sum(read.cost or 0.0 for read in found)
        print(f"cost: {sum(read.hours for read in found):.1f} node hours, ${known:.2f}, {unknown} at an unknown price")
    return code


def _extend(args: argparse.Namespace, students: list[Student]) -> int:
    by = times.parse_length(args.by)
    return _each(args, students, lambda made, _: f"until {times.show(leases.extend(made, by).end)}")


def _collect(args: argparse.Namespace, students: list[Student]) -> int:
    def act(made: booking.Booking, _: Student) -> str:
        home = collect.collect(made)
        if home is None:
            return "no work on the node"
        return "; ".join([f"{home.files} files in {home.archive}", *home.listing.lines()])

    return _each(args, students, act)


def _link(args: argparse.Namespace, students: list[Student]) -> int:
    def act(made: booking.Booking, _: Student) -> str:
        file = made.folder / "jupyter-link"
        if not file.exists():
            raise LeaseOverError(f"{made.name} has no Jupyter from this machine. Run 'up' first.")
        return f"{file.read_text().strip()}  (ssh {access.way_in(made).target})"

    return _each(args, students, act)


def _down(args: argparse.Namespace, students: list[Student]) -> int:
    alone = len(students) == 1

    def action(student: Student, stop: threading.Event) -> str:
        gone = teardown.teardown_of(student.netid, args.discard, print if alone else lambda _: None, stop)
        return f"gone: {', '.join(gone)}" if gone else "nothing was there"

    return _tell(many.for_each(students, action, args.at_once, print))
