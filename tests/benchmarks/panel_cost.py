"""What live panels cost a run: its training time with none, one and twenty of them. ``make bench`` runs it.

Claim: a panel costs a run less than 1%, and twenty do not disturb it.

A real Jupyter server gives the panels to a process that asks as the page does, every 0.7 s a panel. The same run takes
turns with each number of panels, in rounds; each time is divided by the one without panels of the same round. "none,
again" is measured like the others: how far it is from 1 is what the measurement cannot see. Beside it the CPU time
that the server needs for a panel, as a share of one core.

Second claim: what a poll costs does not depend on how long the run is. The events of a dead run, some 22 MB of them,
are asked for until nothing is left, and then again. Beside it what reading all of it takes, which each poll did before,
and how long somebody else waits for the server meanwhile.

    python tests/benchmarks/panel_cost.py --polls           the second alone
"""

import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import psutil

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.runs.runner import run

ROOT = Path(__file__).parents[2]
ROUNDS = 9
VALUES = {"max_epochs": 12, "num_workers": 0}
STEPS = 200_000
EVERY_S = 0.7
TOKEN = "only-for-this-benchmark"
VARIANTS = {"none": 0, "none, again": 0, "one": 1, "twenty": 20}


class Panels:
    """So many panels of one run, asked for in a thread each until a stop is requested."""

    def __init__(self, url: str, number: int) -> None:
        self._over = threading.Event()
        self.asked = 0
        self._threads = [threading.Thread(target=self._look, args=(url,)) for _ in range(number)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self, url: str) -> None:
        seen = 0
        self._over.wait(random.uniform(0, EVERY_S))
        while not self._over.wait(EVERY_S):
            request = urllib.request.Request(f"{url}?from={seen}", headers={"Authorization": f"token {TOKEN}"})
            with urllib.request.urlopen(request) as answer:
                seen = json.load(answer)["next"]
            self.asked += 1


def serve(root: Path) -> tuple[subprocess.Popen, str]:
    """A Jupyter server with the panel, and where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "config").mkdir()
    extension = (ROOT / "docker" / "jupyter" / "server_extension.json").read_text()
    (root / "config" / "jupyter_server_config.json").write_text(extension)
    command = [
        sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(root / "config")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/api").close()
            return process, url
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def train_seconds(url: str, runs: Path, number: int) -> float:
    """Training time of one run with so many panels."""
    panels: list[Panels] = []

    def attach(event: dict) -> None:
        if event["event"] == "created":
            path = Path(event["folder"]).relative_to(runs)
            panels.append(Panels(f"{url}/labkit/panel/{path}/feed", number))
            panels[0].start()

    record = run("reduced_batch", VALUES, on_event=attach)
    panels[0].stop()
    assert record.status == "ok", record.reason
    assert not number or panels[0].asked > number
    return record.train_seconds


def dead_run(runs: Path) -> str:
    """A run of 200,000 steps that no one watches and that left no record; where its panel is."""
    config = resolve(Workspace.find(), "reduced_batch", None, "tiny").config
    folder = runs / "tiny" / "reduced_batch" / "20260101-000000-00000000"
    folder.mkdir(parents=True)
    record = Record(
        id=folder.name, experiment="reduced_batch", profile="tiny", status="running", overrides={},
        config=config.to_dict(), config_hash=config.hash, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"record": record.to_dict()}))
    with (folder / "events.jsonl").open("w") as file:
        for step in range(1, STEPS + 1):
            event = {
                "event": "progress",
                "time": 1764000000 + step,
                "step": step,
                "losses": [round(2 + random.random(), 4)],
            }
            file.write(json.dumps(event | {"samples": step, "train_seconds": step / 10}) + "\n")
    return f"labkit/panel/tiny/reduced_batch/{folder.name}/feed"


def asked(url: str) -> tuple[float, bytes]:
    """Seconds of one answer, and the answer."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    begin = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        said = answer.read()
    return time.perf_counter() - begin, said


class Others:
    """Somebody who asks the server for something small all the while, as a notebook does."""

    def __init__(self, url: str) -> None:
        self._over = threading.Event()
        self.waited_s: list[float] = []
        self._thread = threading.Thread(target=self._ask, args=(f"{url}/api/status",))

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self, url: str) -> None:
        while not self._over.wait(0.02):
            self.waited_s.append(asked(url)[0])


def polls() -> None:
    """Measure polls of a long dead run, and print them compared with reading all of it, as each poll did before."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        os.environ["LABKIT_RUNS"] = str(root / "runs")
        path = dead_run(root / "runs")
        server, url = serve(root)
        try:
            asked(f"{url}/labkit/panel/list")
            with Others(url) as others:
                first, said = [], {"more": True, "next": 0}
                while said["more"]:
                    seconds, answer = asked(f"{url}/{path}?from={said['next']}")
                    first.append((seconds, len(answer)))
                    said = json.loads(answer)
            waited_s = max(others.waited_s)
            again = [asked(f"{url}/{path}?from={said['next']}") for _ in range(50)]
            late = [asked(f"{url}/{path}?from=0") for _ in range(20)]
            run_folder = RunFolder(root / "runs" / Path(path).relative_to("labkit/panel").parent)
            begin = time.perf_counter()
            run_folder.read()
            before_s = time.perf_counter() - begin
        finally:
            server.terminate()
            server.wait()
        size = run_folder.events.stat().st_size
    print(f"events of {size / 1e6:.1f} MB, {STEPS} steps; to read all takes {before_s:.2f} s, at each poll before")
    rows = {
        "until all is read": (sum(seconds for seconds, _ in first), max(length for _, length in first), len(first)),
        "a poll after that": (statistics.median(seconds for seconds, _ in again), len(again[0][1]), 1),
        "a page loaded then": (statistics.median(seconds for seconds, _ in late), len(late[0][1]), 1),
    }
    for name, (seconds, most_bytes, count) in rows.items():
        print(
            f"{name:18} {1000 * seconds:8.1f} ms in {count} polls, {seconds / before_s:.4f} of reading all; "
            f"at most {most_bytes:6,} bytes, {most_bytes / size:.6f} of the file"
        )
    print(f"somebody else waited {1000 * waited_s:.0f} ms at most, {waited_s / before_s:.4f} of reading all")


def main() -> None:
    """Measure and print."""
    polls()
    if "--polls" not in sys.argv:
        training()


def training() -> None:
    """What panels cost a run."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        os.environ["LABKIT_RUNS"] = str(root / "runs")
        server, url = serve(root)
        try:
            train_seconds(url, root / "runs", 1)  # the fork server starts, and caches fill
            times: dict[str, list[float]] = {name: [] for name in VARIANTS}
            cpu_s = {name: 0.0 for name in VARIANTS}
            for _ in range(ROUNDS):
                for name in random.sample(list(VARIANTS), len(VARIANTS)):
                    before = sum(psutil.Process(server.pid).cpu_times()[:2])
                    times[name].append(train_seconds(url, root / "runs", VARIANTS[name]))
                    cpu_s[name] += sum(psutil.Process(server.pid).cpu_times()[:2]) - before
        finally:
            server.terminate()
            server.wait()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "jupyter_server"))
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, {versions}; {ROUNDS} rounds")
    for name in VARIANTS:
        ratios = [mine / base for mine, base in zip(times[name], times["none"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        share = (cpu_s[name] - cpu_s["none"]) / sum(times[name])
        print(
            f"{name:12} training {statistics.median(times[name]):.2f} s, {statistics.median(ratios) - 1:+.2%} "
            f"(half of the rounds from {low - 1:+.2%} to {high - 1:+.2%}); the server {share:.1%} of a core"
        )


if __name__ == "__main__":
    main()
