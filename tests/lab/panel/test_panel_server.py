"""The panel, asked as a browser asks it, of a real Jupyter server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from labkit.config.workspace import Workspace
from labkit.lab.panel import Panel
from labkit.runs.records import Ledger
from labkit.runs.runner import run

ROOT = Path(__file__).parents[3]
TOKEN = "only-for-this-test"
WAIT_S = 60
SMI = """#!/bin/sh
echo "0, NVIDIA H100 NVL, 37, 20480, 95830"
echo "1, NVIDIA H100 NVL, [N/A], 1, 95830"
echo "a line that is none"
"""


class Server:
    def __init__(self, root):
        self.runs = root / "runs"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (root / "bin").mkdir()
        (root / "bin" / "nvidia-smi").write_text(SMI)
        (root / "bin" / "nvidia-smi").chmod(0o755)
        (root / "config").mkdir()
        extension = (ROOT / "docker" / "jupyter" / "server_extension.json").read_text()
        (root / "config" / "jupyter_server_config.json").write_text(extension)
        env = os.environ | {
            "LABKIT_RUNS": str(self.runs), "JUPYTER_CONFIG_DIR": str(root / "config"),
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--ip=127.0.0.1",
            f"--port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.base_url=/user/someone", f"--ServerApp.root_dir={root}",
        ]  # fmt: skip
        with (root / "server.log").open("w") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self.get("/labkit/panel")
                break
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None, (root / "server.log").read_text()
                time.sleep(0.1)

    def get(self, path, token=TOKEN):
        headers = {"Authorization": f"token {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/user/someone{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.read().decode()

    def json(self, path):
        return json.loads(self.get(path))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.process.terminate()
    found.process.wait(WAIT_S)


@pytest.fixture
def ledger(server, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(server.runs))
    return Ledger(Workspace.find().runs)


def test_a_run_is_told_as_it_goes_on_and_whole_to_whoever_comes_later(server, ledger):
    told, path, starts = [], "", []

    def look(event):
        nonlocal path
        if event["event"] == "created":
            path = "/labkit/panel/" + str(Path(event["folder"]).relative_to(server.runs))
        found = server.json(f"{path}/feed?from={told[-1]['next'] if told else 0}")
        told.append(found)
        starts.append(event["event"])

    record = run("reduced_batch", {"max_steps": 3, "report_every": 1}, on_event=look)
    assert record.status == "ok"
    assert [found["status"] for found in told[:-1]] == ["running"] * (len(told) - 1)
    last = server.json(f"{path}/feed?from={told[-1]['next']}")
    assert (last["status"], last["peak_bytes"]) == ("ok", record.peak_bytes)
    live = [event for found in [*told, last] for event in found["events"]]
    late = server.json(f"{path}/feed?from=0")
    assert late["events"] == live
    assert (late["title"], late["id"], late["micro_steps"]) == (
        "reduced_batch max_steps=3 report_every=1",
        record.id,
        1,
    )
    assert [loss for event in live for loss in event.get("losses", [])] == record.losses
    phases = [event for event in live if event["event"] == "phase"]
    assert [event["peak"] for event in phases] == [phase.peak for phase in record.report.phases]
    assert server.json(f"{path}/feed?from={late['next']}")["events"] == []
    again = server.json(f"{path}/feed?from=999999999")  # of a file that is not this one any more
    assert again["restart"] and again["events"] == live
    assert server.json("/labkit/panel/list")[0]["id"] == record.id
    page = server.get(path)
    assert f'"run": "{path.removeprefix("/labkit/panel/")}"' in page and "/user/someone/labkit/panel" in page


def test_a_run_whose_watcher_is_gone_says_so(server, ledger):
    folder = server.runs / "tiny" / "baseline" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    source = ledger.find(run("reduced_batch", {"max_steps": 1}).id).path
    (folder / "config.json").write_text((source / "config.json").read_text())
    (folder / "events.jsonl").write_text((source / "events.jsonl").read_text() + "torn")
    found = server.json("/labkit/panel/tiny/baseline/20260101-000000-aaaa/feed")
    assert (found["status"], "was killed" in found["reason"]) == ("killed", True)
    (folder / "config.json").write_text("{")
    found = server.json("/labkit/panel/tiny/baseline/20260101-000000-aaaa/feed")
    assert found["status"] == "unreadable"


def test_a_long_file_comes_in_parts(server, ledger, tmp_path):
    source = ledger.find(run("reduced_batch", {"max_steps": 1}).id).path
    folder = server.runs / "tiny" / "baseline" / "20260101-000001-bbbb"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((source / "config.json").read_text())
    line = json.dumps(
        {"event": "progress", "time": 1.0, "step": 1, "losses": [1.0], "samples": 1, "train_seconds": 1.0}
    )
    (folder / "events.jsonl").write_text((line + "\n") * 1200)
    offset, counts = 0, []
    while True:
        found = server.json(f"/labkit/panel/tiny/baseline/20260101-000001-bbbb/feed?from={offset}")
        counts.append(len(found["events"]))
        offset = found["next"]
        if not found["more"]:
            break
    assert counts == [500, 500, 200]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/labkit/panel/tiny/baseline/none", 404),
        ("/labkit/panel/tiny/baseline/none/feed", 404),
        ("/labkit/panel/..%2f..%2fetc/x/y/feed", 404),
        ("/labkit/panel/tiny/../x/feed", 404),
        ("/labkit/panel/.hidden/x/y", 404),
        ("/labkit/panel/tiny/baseline/20260101-000001-bbbb/feed?from=-1", 400),
        ("/labkit/panel/tiny/baseline/20260101-000001-bbbb/feed?from=x", 400),
        ("/labkit/panel/tiny/baseline/20260101-000001-bbbb/feed?from=%3Cscript%3E", 400),
    ],
)
def test_what_is_no_run_is_refused(server, path, code):
    if code == 400:
        folder = server.runs / "tiny" / "baseline" / "20260101-000001-bbbb"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").touch()
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(path)
    assert refused.value.code == code
    assert "<script>" not in refused.value.read().decode()


@pytest.fixture
def there(server):
    """The path of a run that exists; the page, the list and the feed name it to whoever may look."""
    folder = server.runs / "tiny" / "baseline" / "20260101-000002-cccc"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return str(folder.relative_to(server.runs))


@pytest.mark.parametrize("path", ["", "/list", "/gpus", "/{there}", "/{there}/feed"])
def test_without_the_token_nothing_is_said(server, there, path):
    path = f"/labkit/panel{path.format(there=there)}"
    whole = server.get(path)
    assert "FACTS" in whole or there.rpartition("/")[2] in whole or "H100" in whole
    # a page leads to the log-in, which is one too
    try:
        said = server.get(path, token=None)
    except urllib.error.HTTPError as refused:
        with refused:
            said = refused.read().decode()
    assert said != whole and "FACTS" not in said and '"events"' not in said


def test_a_folder_beside_the_ledger_is_no_run(server, there):
    outside = server.runs.parent / "outside" / "x" / "y"
    outside.mkdir(parents=True)
    (outside / "config.json").write_text("{}")
    for path in ("..%2foutside/x/y", f"tiny/baseline/..%2fbaseline%2f{there.rpartition('/')[2]}"):
        for what in ("", "/feed"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                server.get(f"/labkit/panel/{path}{what}")
            with refused.value:
                assert refused.value.code == 404


def test_the_gpus_are_those_of_nvidia_smi(server):
    one, other = server.json("/labkit/panel/gpus")
    assert one == {
        "index": "0", "name": "NVIDIA H100 NVL", "busy_percent": 37.0, "used_mib": 20480.0, "total_mib": 95830.0,
    }  # fmt: skip
    assert other["busy_percent"] is None


def test_a_cell_has_the_panel_where_a_server_shows_its_ledger(monkeypatch, tmp_path):
    assert Panel.of(str(tmp_path / "runs/tiny/x/1")) is None
    monkeypatch.setenv("LABKIT_PANEL", "/user/a/labkit/panel")
    monkeypatch.setenv("LABKIT_PANEL_RUNS", str(tmp_path / "runs"))
    found = Panel.of(str(tmp_path / "runs/tiny/x/1"))
    assert found.url == "/user/a/labkit/panel/tiny/x/1"
    assert 'src="/user/a/labkit/panel/tiny/x/1"' in found.html()
    assert Panel.of(str(tmp_path / "other/tiny/x/1")) is None
    assert Panel.of("tiny/x/1") is None
    html = Panel('/x" onload="y', "<b>").html()
    assert 'src="/x&quot; onload=&quot;y"' in html and "<b>" not in html
