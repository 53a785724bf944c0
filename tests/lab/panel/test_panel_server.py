"""The panel of real runs, asked as a browser asks it, of a real Jupyter server."""

import json
import os
import urllib.error
from pathlib import Path

import pytest
from panel_runs import phase, progress, result, start

from labkit.lab.panel import Panel
from labkit.runs.runner import run


def whole(server, path, seen=0):
    """Ask until there is no more to read."""
    found = server.json(f"{path}/feed?from={seen}")
    while found["more"]:
        found = server.json(f"{path}/feed?from={found['next']}")
    return found


@pytest.mark.slow
def test_a_run_is_shown_while_it_runs_and_whole_to_those_who_come_later(server, ledger):
    told, path = [], ""

    def look(event):
        nonlocal path
        if event["event"] == "created":
            path = "/labkit/panel/" + str(Path(event["folder"]).relative_to(server.runs))
        told.append(server.json(f"{path}/feed"))

    record = run("reduced_batch", {"max_steps": 3, "report_every": 1}, on_event=look)
    assert record.status == "ok"
    assert [found["status"] for found in told[:-1]] == ["running"] * (len(told) - 1)
    counts = [found["losses"]["count"] for found in told]
    assert counts == sorted(counts) and counts[0] == 0
    late = whole(server, path)
    assert (late["status"], late["peak_bytes"]) == ("ok", record.peak_bytes)
    assert (late["title"], late["id"], late["steps"]) == ("reduced_batch max_steps=3 report_every=1", record.id, 3)
    assert late["losses"]["mean"] == pytest.approx(record.losses, rel=1e-5)
    shown = late["phases"][-1]["peak"]
    assert shown == {category: record.memory.phases[-1].peak[category] for category in shown}
    assert server.json(f"{path}/feed?from={late['next']}") == {"next": late["next"], "more": False}
    assert whole(server, path, 999999999)["losses"] == late["losses"]  # a number of another server
    assert server.json("/labkit/panel/list")[0]["id"] == record.id
    page = server.get(path)
    assert f'"run": "{path.removeprefix("/labkit/panel/")}"' in page and "/user/someone/labkit/panel" in page


@pytest.mark.slow
@pytest.mark.parametrize("saves", [False, True])
def test_a_stop_that_the_panel_requests_ends_the_run_and_its_record_says_so(server, ledger, saves):
    path = ""

    def stop_it(event):
        nonlocal path
        if event["event"] == "created":
            path = "/labkit/panel/" + str(Path(event["folder"]).relative_to(server.runs))
        if event["event"] == "progress":
            server.post(f"{path}/stop")

    values = {"max_epochs": 1000, "report_every": 1}
    record = run("reduced_batch", values | {"enable_checkpointing": saves}, on_event=stop_it)
    folder = ledger.find(record.id)
    assert record.status == folder.read().status == "killed"
    assert record.reason.startswith("stopped because a stop was requested")
    assert ("is saved, and the same command resumes there" in record.reason) == saves
    assert record.diagnosis.kind == "interrupted" and "requested a stop" in record.diagnosis.happened
    assert whole(server, path)["reason"] == record.reason
    assert not folder.stop_requested


@pytest.mark.slow
def test_a_stop_of_an_attempt_without_an_end_does_not_stop_the_next(server, ledger):
    values = {"max_steps": 40, "report_every": 1, "enable_checkpointing": True, "save_every": 1}

    def stop_it(event):
        if event["event"] == "progress" and event["step"] >= 2:
            ledger.folders()[-1].request_stop()

    record = run("reduced_batch", values, on_event=stop_it)
    assert record.status == "killed"
    ledger.find(record.id).stop.touch()
    assert run("reduced_batch", values).status == "ok"


@pytest.mark.slow
def test_a_run_whose_watcher_is_gone_says_so_and_damage_too(server, runs):
    folder = runs.add("20260101-000000-aaaa", start(), progress(1, 1.0), "torn")
    found = whole(server, "/labkit/panel/tiny/reduced_batch/20260101-000000-aaaa")
    assert (found["status"], "was killed" in found["reason"]) == ("killed", True)
    folder.config.write_text("{")
    found = whole(server, "/labkit/panel/tiny/reduced_batch/20260101-000000-aaaa")
    assert found["status"] == "unreadable"


@pytest.mark.slow
def test_two_hundred_thousand_losses_come_in_a_short_answer_with_every_spike(server, runs):
    losses = [99.0 if at in (7, 123_456) else 2.0 + at % 3 for at in range(200_000)]
    losses[5000] = float("nan")
    lines = [progress(at + 100, *losses[at : at + 100]) for at in range(0, 200_000, 100)]
    runs.add("long", start(200_000), phase(0), *lines, result())
    path = "/labkit/panel/tiny/reduced_batch/long"
    found = whole(server, path)["losses"]
    assert (found["count"], found["lost"], found["high"].count(99.0)) == (200_000, 1, 2)
    said = server.get(f"{path}/feed")
    assert len(said) < 100_000 and "NaN" not in said


@pytest.mark.slow
def test_a_run_folder_that_vanishes_while_it_is_looked_at_says_so(server, runs):
    folder = runs.add("vanishes", start(), progress(1, 1.0))
    path = "/labkit/panel/tiny/reduced_batch/vanishes"
    seen = whole(server, path)["next"]
    folder.path.rename(server.runs / "elsewhere")
    with pytest.raises(urllib.error.HTTPError) as gone:
        server.get(f"{path}/feed?from={seen}")
    assert gone.value.code == 404
    said = json.loads(gone.value.read())["message"]
    assert "tiny/reduced_batch/vanishes" in said and "deleted" in said


@pytest.mark.slow
def test_a_pipe_in_the_ledger_stops_nothing(server, runs):
    for name in ("events.jsonl", "config.json", "record.json", "lock"):
        folder = runs.add(f"pipe-{name}", start())
        (folder.path / name).unlink(missing_ok=True)
        os.mkfifo(folder.path / name)
    for name in ("events.jsonl", "config.json", "record.json", "lock"):
        found = whole(server, f"/labkit/panel/tiny/reduced_batch/pipe-{name}")
        assert found["status"] == ("killed" if name == "lock" else "unreadable")
    assert server.get("/api/status")


@pytest.mark.slow
def test_the_gpus_are_those_of_nvidia_smi(server):
    one, other = server.json("/labkit/panel/gpus")
    assert one == {
        "index": "0", "name": "NVIDIA H100 NVL", "busy_percent": 37.0, "used_mib": 20480.0, "total_mib": 95830.0,
    }  # fmt: skip
    assert other["busy_percent"] is None


def test_no_quote_ends_the_address_in_a_cell():
    shown = Panel("/user/a\"' onload='x/panel/t/x/1", "<\"'>").html()
    assert 'src="/user/a&quot;&#x27; onload=&#x27;x/panel/t/x/1" title="run &lt;&quot;&#x27;&gt;"' in shown


@pytest.mark.slow
def test_a_cell_has_the_panel_where_a_server_shows_its_ledger(monkeypatch, tmp_path):
    assert Panel.of(str(tmp_path / "runs/tiny/x/1")) is None
    monkeypatch.setenv("LABKIT_PANEL", "/user/a/labkit/panel")
    monkeypatch.setenv("LABKIT_PANEL_RUNS", str(tmp_path / "runs"))
    found = Panel.of(str(tmp_path / "runs/tiny/x/1"))
    assert found.url == "/user/a/labkit/panel/tiny/x/1"
    assert 'src="/user/a/labkit/panel/tiny/x/1"' in found.html()
    assert Panel.of(str(tmp_path / "other/tiny/x/1")) is None
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "other")  # the server would refuse it
    assert Panel.of(str(tmp_path / "runs/linked/x/1")) is None
    assert Panel.of(str(tmp_path / "runs/tiny/x/.hidden")) is None
    assert Panel.of(str(tmp_path / "runs/tiny/../../other/x")) is None
