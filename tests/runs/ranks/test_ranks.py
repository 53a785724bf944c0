"""The launcher of several ranks: which of them ended the run, what the whole ends with, and that nothing is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.wait import wait_for

from labkit.runs.ranks.watch import TIMED_OUT, Ranks

WAIT_S = 60.0
HANG = "import time\ntime.sleep(600)\n"
LOST = "print('[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234')\nraise SystemExit(1)\n"
WAITED = "print('RuntimeError: Timed out waiting 2000ms for recv operation to complete')\nraise SystemExit(1)\n"
ABORTED = "print('Watchdog caught collective operation timeout', flush=True)\nos.abort()\n"
LAUNCHER = """
import sys
import labkit.runs.ranks.watch as ranks
ranks.GRACE_S = 0.5
sys.executable = {python!r}
ranks.main()
"""


def says(**result) -> str:
    """A rank that writes how it ended."""
    return f"said = {result!r}\n" + textwrap.dedent("""
        import json, os, pathlib
        name = f"events.rank{os.environ['RANK']}.jsonl" if os.environ["RANK"] != "0" else "events.jsonl"
        with (folder / name).open("a") as file:
            file.write(json.dumps({"event": "result", "time": 0.0, **said}) + "\\n")
    """)


OK = says(status="ok")


@pytest.fixture
def start(tmp_path):
    """Start the launcher with ranks that do what these texts say, in place of training."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, pathlib, sys\nfolder = pathlib.Path(sys.argv[-1])\n"
        "exec((folder / f\"does{os.environ['RANK']}\").read_text())\n"
    )
    python.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    started = []

    def launch(*does: str) -> tuple[subprocess.Popen, Path]:
        for rank, text in enumerate(does):
            (folder / f"does{rank}").write_text(text)
        (folder / "config.json").write_text(
            json.dumps({"config": {"devices": len(does), "num_nodes": 1, "collective_timeout_s": 2.0}})
        )
        with (folder / "log.txt").open("ab") as log:
            command = [sys.executable, "-c", LAUNCHER.format(python=str(python)), str(folder)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        started.append(process)
        return process, folder

    yield launch
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)
        process.stdin.close()


def last_result(folder: Path) -> dict:
    lines = (folder / "events.jsonl").read_text().splitlines() if (folder / "events.jsonl").exists() else []
    return json.loads(lines[-1]) if lines else {}


def alive(folder: Path) -> list[str]:
    """Command lines of live processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder).encode() in line and state != "Z":
                found.append(line.decode())
    return found


@pytest.mark.slow
def test_all_well_is_well_and_rank_0_has_said_so(start):
    launcher, folder = start(OK, OK)
    assert launcher.wait(WAIT_S) == 0
    assert "rank" not in last_result(folder)
    assert (folder / "log.rank1.txt").exists()


@pytest.mark.slow
def test_ranks_are_told_who_they_are_as_torchrun_tells_it(start):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    text = f"import os\nprint([os.environ[name] for name in {names!r}])\n" + OK
    launcher, folder = start(text, text, text)
    assert launcher.wait(WAIT_S) == 0
    said = [eval((folder / name).read_text()) for name in ("log.txt", "log.rank1.txt", "log.rank2.txt")]
    assert [one[:5] for one in said] == [[str(r), str(r), "3", "3", "127.0.0.1"] for r in range(3)]
    assert len({one[5] for one in said}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "code", "status", "rank", "said"),
    [
        ([LOST, "os.kill(os.getpid(), 9)\n"], -9, "killed", 1, "rank 1 was killed by signal 9 (SIGKILL)"),
        (["os.kill(os.getpid(), 11)\n", LOST], -11, "killed", 0, "rank 0 was killed by signal 11 (SIGSEGV)"),
        # the cause is over later than who lost it
        ([LOST, "import time\ntime.sleep(0.3)\nraise ValueError('wrong shape')\n"], 1, "failed", 1, "rank 1: ended "
         "with exit code 1: ValueError: wrong shape"),
        ([says(status="failed", reason="no such file") + "raise SystemExit(1)", HANG], 1, "failed", 0,
         "rank 0: no such file"),
        ([WAITED, HANG], TIMED_OUT, "timeout", 0, "rank 0 waited 2 s for rank 1, which still ran"),
        ([ABORTED, HANG], TIMED_OUT, "timeout", 0,
         "rank 0 waited 2 s for rank 1"),
        ([HANG, WAITED, HANG], TIMED_OUT, "timeout", 1, "rank 1 waited 2 s for rank 0 and 2"),
    ],
)  # fmt: skip
def test_the_first_rank_that_failed_says_how_the_run_ended(start, does, code, status, rank, said):
    launcher, folder = start(*does)
    assert launcher.wait(WAIT_S) == code
    found = last_result(folder)
    assert (found["status"], found["rank"]) == (status, rank)
    assert found["reason"].startswith(said)
    assert alive(folder) == []


@pytest.mark.slow
def test_what_an_earlier_attempt_has_left_is_no_word_of_this_one(start, tmp_path):
    run = tmp_path / "run"
    result = {"event": "result", "time": 0.0, "status": "failed", "reason": "Connection closed by peer"}
    ended = {"status": "failed", "reason": None, "exit_code": 1, "died_in": None, "wall_seconds": 1.0}
    resumed = {"event": "resumed", "time": 0.0, "step": 1, "samples": 8, "train_seconds": 1.0}
    lines = [json.dumps(event) + "\n" for event in (result, resumed | {"validation_losses": [], "ended": ended})]
    (run / "events.rank1.jsonl").write_text("".join(lines))
    (run / "log.rank1.txt").write_text("Connection closed by peer [127.0.0.1]:1234\n")
    launcher, folder = start(LOST, "import time\ntime.sleep(0.3)\nraise ValueError('wrong shape')\n")
    assert launcher.wait(WAIT_S) == 1
    assert last_result(folder)["reason"] == "rank 1: ended with exit code 1: ValueError: wrong shape"


@pytest.mark.slow
def test_out_of_memory_on_one_rank_is_out_of_memory_there(start):
    died = {"step": 1, "micro_step": 0, "phase": "forward"}
    launcher, folder = start(HANG, says(status="oom", reason="full", died_in=died))
    assert launcher.wait(WAIT_S) == 0  # a result like another, as on one device
    found = last_result(folder)
    assert (found["status"], found["died_in"]) == ("oom", died | {"rank": 1})


@pytest.mark.slow
def test_nothing_outlives_who_watches(start):
    launcher, folder = start(HANG, HANG)
    wait_for(lambda: len(alive(folder)) == 3)
    launcher.stdin.close()
    assert launcher.wait(WAIT_S) == -signal.SIGKILL
    wait_for(lambda: alive(folder) == [])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_every_rank_and_is_no_failure(start, number):
    listens = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "(folder / f\"ready{os.environ['RANK']}\").touch()\ntime.sleep(600)\n"
    )
    launcher, folder = start(listens, listens)
    wait_for(lambda: (folder / "ready0").exists() and (folder / "ready1").exists())
    launcher.send_signal(number)
    launcher.wait(WAIT_S)
    assert last_result(folder) == {}  # how it ended is for the watcher to say, who has asked for it
    assert alive(folder) == []


class Told:
    """A rank that runs, and keeps what it is sent."""

    returncode = None

    def __init__(self):
        self.sent = []

    def poll(self):
        return None

    def send_signal(self, number):
        self.sent.append(number)


@pytest.mark.parametrize("before", [0, 1, 2, 4])
@pytest.mark.parametrize("window", ["before it is listed", "after it is listed"])
def test_a_stop_that_comes_while_ranks_are_started_reaches_each_once(tmp_path, monkeypatch, before, window):
    ranks, started = Ranks(tmp_path, [], 4, WAIT_S), []

    def begin(number, env):
        if window == "after it is listed" and number == before:
            ranks.pass_on(signal.SIGTERM)
        started.append(Told())
        if window == "before it is listed" and number == before:
            ranks.pass_on(signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(ranks, "_start", begin)
    assert not ranks.start()
    if before == 4:
        ranks.pass_on(signal.SIGTERM)
    assert [rank.sent for rank in started] == [[signal.SIGTERM]] * 4
