"""What live panels cost a run: its training time with none, one and twenty of them. ``make bench`` runs it.

Claim: a panel costs a run less than 1%, and twenty do not disturb it.

A real Jupyter server gives the panels to a process that asks as the page does, every 0.7 s a panel. The same run takes
turns with each number of panels, in rounds; each time is divided by the one without panels of the same round. "none,
again" is measured like the others: how far it is from 1 is what the measurement cannot see. Beside it the CPU time
that the server needs for a panel, as a share of one core.
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

from labkit.runs.runner import run

ROOT = Path(__file__).parents[2]
ROUNDS = 9
VALUES = {"max_epochs": 12, "num_workers": 0}
EVERY_S = 0.7
TOKEN = "only-for-this-benchmark"
VARIANTS = {"none": 0, "none, again": 0, "one": 1, "twenty": 20}


class Panels:
    """So many panels of one run, asked for in a thread each until told to stop."""

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
        offset = 0
        self._over.wait(random.uniform(0, EVERY_S))
        while not self._over.wait(EVERY_S):
            request = urllib.request.Request(f"{url}?from={offset}", headers={"Authorization": f"token {TOKEN}"})
            with urllib.request.urlopen(request) as answer:
                offset = json.load(answer)["next"]
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


def main() -> None:
    """Measure and print."""
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
