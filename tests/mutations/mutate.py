"""Remove the guards of ``guards.py`` one by one, and see which test notices.

    python tests/mutations/mutate.py [--only NAME] [--list]

Each guard is taken out of a copy of the tracked files, and the tests named beside it run on the copy. Tests that come
to no end without the guard have noticed too. Where none notices the exit code is 1, as it is where a test fails without
a change. By hand, or last in ``make bench``.
"""

import argparse
import contextlib
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from guards import GUARDS, ROOT, Guard

WORKERS = 2
BOUND_S = 300.0
"""What tests may take as the code is."""

LEAST_S, TIMES_LONGER = 90.0, 5
"""What they may take without a guard: so many times as long as with it, and never less than that. Tests have bounds of
their own up to a minute, which say better what went wrong."""

PLUGINS = ("-p", "no:cacheprovider", "-p", "no:nbmake", "-p", "of_the_copy")
"""Nothing is kept between runs; what executes notebooks takes seconds to load; and one of our own."""

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", re.MULTILINE)
"""A test that failed, in pytest's summary; without ``::`` it is a file that could not even be read."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the tests said. ``noticed`` is the first that failed; ``problem`` says why the run tells nothing; not
    ``in_time`` were those that had to be killed."""

    noticed: str = ""
    problem: str = ""
    seconds: float = 0.0
    said: str = ""
    in_time: bool = True


def copy_to(folder: Path) -> Path:
    """The tracked files as they are now, without anything that is built, in a folder of their own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if os.path.lexists(ROOT / name):  # one that was deleted is tracked until it is committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def run_tests(copy: Path, tests: Sequence[str], bound_s: float = BOUND_S) -> Outcome:
    """Run tests on a copy, up to the first that fails. After ``bound_s`` they are killed."""
    env = os.environ | {
        # what imports labkit, in whatever process and folder, gets the copy's
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "tests" / "mutations")]),
        # a change in the same second that keeps the size would find the old bytecode
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "LABKIT_COPY": str(copy),
    }
    # a folder of its own: those that pytest shares between its runs are tidied by several at once
    own = f"--basetemp={copy.with_name(copy.name + '-tmp')}"
    command = [sys.executable, "-m", "pytest", "-x", "-q", own, *PLUGINS, *tests]
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:  # whatever outlives pytest keeps no pipe open
        child = subprocess.Popen(
            command, cwd=copy, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(bound_s)
        except subprocess.TimeoutExpired:
            return Outcome(problem=f"no end within {bound_s:.0f} s", seconds=bound_s, in_time=False)
        finally:
            with contextlib.suppress(ProcessLookupError):  # there is nothing left of it
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    problem, failed = "", _FAILED.search(said)
    if code not in (0, 1):
        problem = f"pytest ended with exit code {code}"
    elif code == 1 and failed is None:
        problem = "pytest failed and named no test"
    return Outcome(
        noticed=failed[1] if failed and not problem else "", problem=problem, seconds=time.monotonic() - started,
        said=said,
    )  # fmt: skip


@contextlib.contextmanager
def removed(copy: Path, guard: Guard) -> Iterator[None]:
    """The copy without a guard, while this lasts."""
    path = copy / guard.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(guard.removed_from(whole), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(whole, encoding="utf-8")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown; the first is the head."""
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def check(guards: Sequence[Guard]) -> bool:
    """Print the table; whether all tests pass as the code is, and a test notices each guard that is gone."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as place, ThreadPoolExecutor(WORKERS) as pool:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(WORKERS):
            copies.put(copy_to(Path(place) / str(number)))

        def as_it_is(tests: Sequence[str]) -> Outcome:
            copy = copies.get()
            try:
                return run_tests(copy, tests)
            finally:
                copies.put(copy)

        def without(guard: Guard) -> Outcome:
            bound_s = max(LEAST_S, TIMES_LONGER * sum(took[file] for file in {_file(test) for test in guard.tests}))
            copy = copies.get()
            try:
                with removed(copy, guard):
                    outcome = run_tests(copy, guard.tests, bound_s)
            finally:
                copies.put(copy)
            if not outcome.in_time:
                outcome = replace(outcome, noticed=outcome.problem)
            print(f"{guard.name}: {outcome.noticed or outcome.problem or 'UNNOTICED'}", file=sys.stderr, flush=True)
            return outcome

        by_file: dict[str, list[str]] = {}
        for test in sorted({test for guard in guards for test in guard.tests}):
            by_file.setdefault(_file(test), []).append(test)
        took = {}
        for file, outcome in zip(by_file, pool.map(as_it_is, by_file.values()), strict=True):
            if outcome.noticed or outcome.problem:
                print(f"{outcome.said}\nwithout a change: {outcome.noticed or outcome.problem}", file=sys.stderr)
                return False
            took[file] = outcome.seconds
        outcomes = list(pool.map(without, guards))
    rows = [("guard", "file", "noticed by", "s")]
    for guard, outcome in zip(guards, outcomes, strict=True):
        noticed = f"`{outcome.noticed}`" if outcome.noticed else f"**{outcome.problem or 'no test'}**"
        rows.append((guard.name, f"`{guard.file}`", noticed, f"{outcome.seconds:.1f}"))
    print(table(rows))
    unnoticed = sum(not outcome.noticed for outcome in outcomes)
    endless = sum(not outcome.in_time for outcome in outcomes)
    print(f"\n{len(guards)} guards removed one by one, {unnoticed} unnoticed, {endless} by tests that came to no end.")
    return not unnoticed


def _file(test: str) -> str:
    return test.partition("::")[0]


def _versions() -> str:
    from importlib.metadata import version

    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "transformers", "pytest"))
    where = f"{os.cpu_count()} cores, no GPU needed, Python {platform.python_version()}"
    return f"{where}, {libraries}, commit {commit.stdout.strip()}"


def main() -> int:
    """Remove all guards, or the one that is named; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="this guard; may be given several times")
    parser.add_argument("--list", action="store_true", help="say what each guard is for, and run nothing")
    args = parser.parse_args()
    if unknown := set(args.only or ()) - {guard.name for guard in GUARDS}:
        parser.error(f"no guard is called {', '.join(sorted(unknown))}; --list names them")
    guards = [guard for guard in GUARDS if not args.only or guard.name in args.only]
    if args.list:
        print("\n".join(f"{guard.name}: {guard.why} ({guard.file})" for guard in guards))
        return 0
    for guard in guards:
        guard.removed_from((ROOT / guard.file).read_text(encoding="utf-8"))  # before anything runs
    print(f"{_versions()}\n")
    return 0 if check(guards) else 1


if __name__ == "__main__":
    sys.exit(main())
