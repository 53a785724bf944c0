"""``python -m provisioning``: the notebooks' steps as a command, for one student or a class list."""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from provisioning import (
    access,
    booking,
    collect,
    cost,
    guard,
    many,
    notice,
    roster,
    rotation,
    sites,
    slots,
    status,
    steps,
    sweep,
    teardown,
    times,
    timetable,
)
from provisioning.errors import LeaseOverError, ProvisioningError, UsageError
from provisioning.jupyter import tunnel_to
from provisioning.roster import Student

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
HELP = """\
GPU nodes on Chameleon, from a reservation to a Jupyter link, and back to nothing.

  python -m provisioning up abc123 --node g1.h100.pci.1     a node for one student; run again, it does what is missing
  python -m provisioning up --class class.csv --dry-run     for a class list; only the plan
  python -m provisioning rotate --class class.csv --node NODE --nodes 4 --from 2026-11-22T08:00 --until 2026-11-23T20:00
                                                            who has which node when; --book reserves it all
  python -m provisioning status --class class.csv --cost    how things stand, and what it has cost
  python -m provisioning extend abc123 --node NODE --by 1h  let the lease end later
  python -m provisioning collect abc123 --node NODE         bring home all that the student made
  python -m provisioning link abc123 --node NODE            print the Jupyter address with its token, and the tunnel
  python -m provisioning sweep --class class.csv            what is idle, over, or unlisted, and what it costs
  python -m provisioning down --class class.csv             delete all that they have, at all sites; refuses while work
                                                            is not collected

A class list is a CSV file that starts with the line netid,node,public_key,start,length; all but netid may be missing.
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
        print("interrupted; run the same again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m provisioning", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    made = {}
    for verb, does in (
        (_up, "reserve, boot, install, start Jupyter"), (_status, "read everything back"),
        (_extend, "let leases end later"), (_collect, "bring work home"),
        (_link, "print the Jupyter address and the tunnel to it"),
        (_down, "delete it all"), (_rotate, "plan a class over a few nodes, and book it"),
        (_sweep, "list what is idle, over, or unlisted, and what it costs"),
    ):  # fmt: skip
        name = verb.__name__.removeprefix("_")
        made[name] = sub = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
        sub.set_defaults(verb=verb)
        sub.add_argument("netid", nargs="*", help="netIDs of students")
        sub.add_argument("--class", dest="roster", type=Path, metavar="CSV", help="a class list, see above")
        sub.add_argument("--node", help="a node of sites.yaml, such as g1.h100.pci.1")
        sub.add_argument("--at-once", type=int, default=many.AT_ONCE, metavar="N", help="students at a time")
    for name in ("up", "rotate"):
        made[name].add_argument("--length", default="2h50m", help="of a new lease, 2h50m if not given")
    made["up"].add_argument("--start", default="now", help="now, next (free slot), or a time like 2026-11-22T14:00")
    made["up"].add_argument("--dry-run", action="store_true", help="print the plan and make nothing")
    made["up"].add_argument(
        "--idle-guard", metavar="30m", help="have the node stop Jupyter after so long without use; off takes it away"
    )
    made["up"].add_argument("--open", action="store_true", help="open port 8888 to this machine's address")
    made["up"].add_argument("--restart", action="store_true", help="stop a lab that runs, where that is needed")
    made["status"].add_argument("--cost", action="store_true", help="node hours and service units, with the sum")
    made["extend"].add_argument("--by", required=True, help="such as 1h")
    for name in ("down", "sweep"):
        made[name].add_argument("--discard", action="store_true", help="delete work that was not collected, too")
    made["sweep"].add_argument("--idle", default="30m", help="how long nothing was busy on it, 30m if not given")
    made["sweep"].add_argument("--delete", action="store_true", help="remove what is over or unlisted")
    made["rotate"].add_argument("--nodes", type=int, required=True, metavar="M", help="how many at one time")
    made["rotate"].add_argument("--from", dest="begin", required=True, metavar="TIME", help="like 2026-11-22T14:00")
    made["rotate"].add_argument("--until", required=True, metavar="TIME", help="when the last one ends at the latest")
    made["rotate"].add_argument("--turnover", default="20m", help="between two students, 20m if not given")
    made["rotate"].add_argument("--book", action="store_true", help="reserve it, and write it into the class list")
    return parser


def _students(args: argparse.Namespace) -> list[Student]:
    if bool(args.netid) == bool(args.roster):
        raise UsageError("give netIDs or a class list with --class, one of the two.")
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
    after = guard.parse(args.idle_guard) if args.idle_guard else None

    def act(made: booking.Booking, student: Student) -> str:
        asked = None if student.start else slots.starting(made, args.start, length)
        still = timetable.still(student, asked, length, made.now())
        if still is None:
            return f"its time was over at {times.show(timetable.end(student, length))}; nothing was made"
        start, left = still
        if args.dry_run:
            print(steps.plan(made, left, start))
            return "nothing was made"
        may_stop = _confirm if len(students) == 1 and sys.stdin.isatty() else None
        link = steps.up(made, left, start, student.public_key, args.open, args.restart, may_stop)
        if link is not None and after:
            guard.set_guard(made, after)
        if link is None:
            return "reserved; run 'up' again when the lease has started"
        made.say(str(link))
        return f"{link.way.target}, Jupyter's address is in {link.file}"

    return _each(args, students, act)


def _confirm(question: str) -> bool:
    """Ask at the terminal; anything but yes is no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _status(args: argparse.Namespace, students: list[Student]) -> int:
    found: dict[str, status.Status] = {}
    absent: dict[str, str] = {}

    def act(made: booking.Booking, student: Student) -> str:
        read = status.status(made)
        found[student.netid] = read
        if args.roster and (missing := timetable.absent(made, student)):
            absent[student.netid] = missing
        if len(students) == 1:
            print(read)
            return "read"
        warning = f" ! {read.warning}" if read.warning else ""
        return read.line + warning

    code = _each(args, students, act)
    order = [student for student in students if student.netid in found]
    late = [student.netid for student in order if student.netid in absent]
    if late:
        print("did not start:", *(f"  {netid}: {absent[netid]}" for netid in late), sep="\n")
    if args.cost:
        rates = [site.rates for site, _ in (sites.find_node(student.node) for student in order) if site.rates]
        unread = [student.netid for student in students if student.netid not in found]
        print(cost.report({student.netid: found[student.netid].cost for student in order}, rates, unread))
    return code


def _extend(args: argparse.Namespace, students: list[Student]) -> int:
    by = times.parse_length(args.by)
    return _each(args, students, lambda made, _: f"until {times.show(notice.extend(made, by).end)}")


def _collect(args: argparse.Namespace, students: list[Student]) -> int:
    def act(made: booking.Booking, _: Student) -> str:
        home = collect.collect(made)
        if home is None:
            return "no work on the node"
        return "; ".join([f"{home.files} files in {home.archive}", *home.listing.lines()])

    return _each(args, students, act)


def _link(args: argparse.Namespace, students: list[Student]) -> int:
    def act(made: booking.Booking, student: Student) -> str:
        file = made.folder / "jupyter-link"
        if not file.exists():
            raise LeaseOverError(f"{made.name} has no Jupyter from this machine. Run 'up' first.")
        url = file.read_text().strip()
        # with a key of the student's own the line is the student's to type
        tunnel = tunnel_to(url, access.way_in(made), access.JUPYTER_PORT, key=not student.public_key)
        return f"{url}  {tunnel}".strip()

    return _each(args, students, act)


def _down(args: argparse.Namespace, students: list[Student]) -> int:
    alone = len(students) == 1

    def action(student: Student, stop: threading.Event) -> str:
        gone = teardown.teardown_of(student.netid, args.discard, print if alone else lambda _: None, stop)
        return f"gone: {', '.join(gone)}" if gone else "nothing was there"

    return _tell(many.for_each(students, action, args.at_once, print))


def _sweep(args: argparse.Namespace, students: list[Student]) -> int:
    if not args.roster:
        raise UsageError("give the class list with --class: a netID that is not in it counts as unlisted.")
    idle_after = times.parse_length(args.idle, "--idle: ")
    seen, netids = sweep.look(), [student.netid for student in students]
    found = sweep.sweep(seen, netids, idle_after, args.at_once)
    print(sweep.report(found, seen.unseen))
    doomed = [Student(one.netid, "") for one in found if one.deletable and args.delete]

    def action(student: Student, stop: threading.Event) -> str:
        if not sweep.still_deletable(student.netid, netids):
            return "in use again: left alone"
        gone = teardown.teardown_of(student.netid, args.discard, lambda _: None, stop)
        return f"gone: {', '.join(gone)}"

    return _tell(many.for_each(doomed, action, args.at_once, print)) if doomed else 0


def _rotate(args: argparse.Namespace, students: list[Student]) -> int:
    kinds = sorted({student.node for student in students})
    if len(kinds) > 1:
        raise UsageError(f"a rotation is over one kind of node, and the list has {', '.join(kinds)}. Make a list each.")
    length, turnover = times.parse_length(args.length), times.parse_length(args.turnover)
    begin, until = times.parse_start(args.begin), times.parse_start(args.until)
    plan = rotation.rotate([student.netid for student in students], args.nodes, begin, until, length, turnover)
    print(rotation.table(plan, kinds[0]))
    if not args.book:
        print("nothing was made; --book reserves it")
        return 0
    if begin < times.now():
        raise UsageError(f"--from {args.begin} is over. Give a time to come.")
    mine = {slot.netid: slot for slot in plan}
    if args.roster:  # before the leases: where one fails, 'up --class' knows when it was to be
        written = {slot.netid: (kinds[0], slot.start, slot.length) for slot in plan}
        roster.write_times(args.roster, written)

    def act(made: booking.Booking, student: Student) -> str:
        slot = mine[student.netid]
        lease = timetable.reserve(made, slot.start, slot.length)
        return f"{lease.status}, {times.show(lease.start)} until {times.show(lease.end)}"

    return _each(args, students, act)
