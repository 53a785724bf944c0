"""The command, before any site is asked; and the room as a whole."""

import ast
import dataclasses
import io
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning import booking, cli, status, times
from provisioning.errors import LeaseOverError, UsageError
from provisioning.leases import Lease
from provisioning.sites import HERE, find_node

ROOT = HERE.parent


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up"], "give netIDs or a class list with --class"),
        (["up", "ann"], "give --node"),
        (["up", "ann", "--class", "x.csv"], "give netIDs or a class list"),
        (["up", "--class", "none.csv"], "none.csv cannot be read"),
        (["up", "ann", "--node", "x", "--length", "3"], "'3' is not a length"),
        (["up", "ann", "--node", "x", "--length", "9" * 30 + "h"], "error: '9"),
        (
            ["rotate", "ann", "--node", "x", "--nodes", "0", "--from", "2999-01-01T08:00", "--until", "2999-01-02"],
            "=0 must",
        ),
        (
            ["rotate", "ann", "--node", "x", "--nodes", "1", "--from", "soon", "--until", "2999-01-02"],
            "start 'soon' is no",
        ),
        (["up", "ann", "--node", "x", "--at-once", "0"], "--at-once=0 must be at least 1"),
        (["extend", "ann", "--node", "x", "--by", "soon"], "'soon' is not a length"),
    ],
)
def test_a_value_that_cannot_be_used_is_said_in_one_line(capsys, arguments, says):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("netid", ["", "Ann", "a b", "../a", "-a", "a" * 32, "a;b"])
def test_a_netid_that_would_be_no_name_is_refused_before_logging_in(netid):
    with pytest.raises(UsageError, match="cannot be used: small letters"):
        booking.book(netid, "g1.h100.pci.1")


@pytest.mark.parametrize(("typed", "stops"), [("y\n", True), (" YES \n", True), ("n\n", False), ("\n", False),
                                              ("yo\n", False), ("", False)])  # fmt: skip
def test_only_yes_is_yes(monkeypatch, capsys, typed, stops):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert cli._confirm("Stop it?") is stops
    assert "Stop it? [y/N]" in capsys.readouterr().out


@pytest.mark.slow
def test_help_answers_without_python_chi():
    code = "import sys; sys.modules['chi'] = None; from provisioning.cli import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "down --class class.csv" in done.stdout


def test_clients_are_imported_only_where_a_site_is_asked():
    light = {"chi", "novaclient", "cinderclient", "neutronclient", "blazarclient", "glanceclient", "keystoneauth1"}
    for path in sorted(HERE.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not light & {name.split(".")[0] for name in names}, path.name


def made(tmp_path, node="g1.h100.pci.1", netid="abc"):
    site, kind = find_node(node)
    said = []
    cloud = SimpleNamespace(transport=SimpleNamespace(now=times.now))
    new = booking.Booking(netid, site, kind, cloud, tmp_path, said.append, poll_s=0.0)
    new.said = said
    return new


def test_names_and_tags(tmp_path):
    single, multi = made(tmp_path), made(tmp_path, "gpu_a100_pcie")
    assert (single.name, multi.name) == ("llm_single_abc", "llm_multi_abc")
    assert single.tag == {"labkit_owner": "llm_single_abc"}
    assert single.tag_text == "labkit_owner=llm_single_abc"


def test_a_wait_says_changes_and_ends_at_its_bound(tmp_path):
    one = made(tmp_path)
    states = iter(["BUILD", "BUILD", "SPAWNING", "ACTIVE"])
    assert one.wait("server x", lambda: next(states), ("ACTIVE",), 60) == "ACTIVE"
    assert [line.split(",")[0] for line in one.said] == ["server x: BUILD", "server x: SPAWNING"]
    with pytest.raises(booking.TooSlowError, match="server x is BUILD after 0 s. Run this step again"):
        one.wait("server x", lambda: "BUILD", ("ACTIVE",), 0)
    one.stop.set()
    with pytest.raises(booking.TooSlowError, match="interrupted while BUILD"):
        one.wait("server x", lambda: "BUILD", ("ACTIVE",), 60)


def lease_that_ends_in(minutes, state="ACTIVE"):
    now = times.now()
    end = now + timedelta(minutes=minutes, seconds=30)
    return Lease("id", state, now - timedelta(hours=2), end, "reservation", now)


@pytest.fixture
def site(monkeypatch):
    """A site that says of the lease what a test wants."""

    def says(lease):
        monkeypatch.setattr("provisioning.leases.find", lambda _: lease)
        monkeypatch.setattr("provisioning.leases.find_all", lambda _: [lease] if lease else [])
        for thing in ("servers", "volumes", "addresses"):
            monkeypatch.setattr(f"provisioning.{thing}.find", lambda _: None)
            monkeypatch.setattr(f"provisioning.{thing}.find_all", lambda _: [])

    return says


def test_a_rate_that_is_known_is_charged_and_one_that_is_not_is_said(tmp_path, site):
    one = made(tmp_path)
    site(lease_that_ends_in(50))
    read = status.status(one)
    assert ("cost", "8.0 SU", "2.0 node hours so far, 4 SU an hour") in read.rows
    unknown = dataclasses.replace(one, node=dataclasses.replace(one.node, su_per_hour=None))
    read = status.status(unknown)
    assert ("cost", "unknown rate", "2.0 node hours so far") in read.rows
    assert read.cost.su is None
    site(None)
    assert ("lease", "none", "") in status.status(one).rows


def test_the_table_shows_the_time_left_and_warns_in_the_last_15_minutes(tmp_path, site):
    one = made(tmp_path)
    site(lease_that_ends_in(50))
    read = status.status(one)
    assert "50 min left, until" in str(read)
    assert read.warning == ""
    site(lease_that_ends_in(14))
    read = status.status(one)
    assert "The lease ends in 14 min" in read.warning
    for shown in (str(read), read._repr_html_()):
        assert "Collect your work, or extend the lease, now." in shown
    assert "<td" in read._repr_html_()
    site(lease_that_ends_in(-5))
    assert "The lease ended at" in status.status(one).warning


def test_the_warning_comes_while_the_notebook_runs(tmp_path, site, monkeypatch):
    one = made(tmp_path)
    site(lease_that_ends_in(14))
    status.warn_before_end(one).join(10)
    assert any(line.startswith("! The lease ends in 14 min") for line in one.said)
    # extended meanwhile: it comes later
    later = made(tmp_path)
    site(lease_that_ends_in(60))
    status._warn(later)
    assert len(later.said) == 2
    assert later.said[0].startswith("notice: JupyterLab will not warn")  # there is no server here
    assert later.said[1].startswith("a warning comes at")
    site(None)
    with pytest.raises(LeaseOverError):
        status.warn_before_end(later)


def test_nothing_is_resumed_where_nothing_was_booked(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "new"))
    assert booking.home() == Path(tmp_path / "new")
    with pytest.raises(UsageError, match="Run 1_reserve.ipynb first"):
        booking.resume()


@pytest.mark.slow
def test_a_reader_that_has_heard_enough_gets_no_traceback():
    """As with ``| head -1``; a plan of a rotation asks no site."""
    plan = ["rotate", "ann", "--node", "g1.h100.pci.1", "--nodes", "1"]
    plan += ["--from", "2999-01-01T08:00", "--until", "2999-01-02T08:00"]
    command = [sys.executable, "-m", "provisioning", *plan]
    done = subprocess.run(command, stdout=closed_pipe(), stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def closed_pipe() -> int:
    """The writing end of a pipe that nothing reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing
