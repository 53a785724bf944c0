"""A class on a real control plane: a rotation that is booked and kept to, a sweep, the notice and the guard."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from conftest import METAL, VM, lent
from rig.remains import remains

from provisioning import access, activity, booking, chameleon, guard, leases, roster, servers


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "provisioning", *arguments], capture_output=True, text=True, timeout=400
    )


def test_a_rotation_is_booked_written_into_the_class_list_and_kept_to(plane, book, tmp_path):
    for netid in ("rota", "rotb"):
        book(netid, METAL)
    path = tmp_path / "class.csv"
    path.write_text("netid\nrota\nrotb\n")
    begin = (datetime.now(UTC) + timedelta(hours=30)).replace(minute=0, second=0, microsecond=0)
    window = [
        "rotate", "--class", str(path), "--node", METAL, "--nodes", "1", "--from", begin.isoformat(),
        "--until", (begin + timedelta(hours=4)).isoformat(), "--length", "1h", "--turnover", "30m",
    ]  # fmt: skip
    shown = command(*window)
    assert shown.returncode == 0 and "nothing was made" in shown.stdout
    assert remains(plane) == {} and path.read_text() == "netid\nrota\nrotb\n"
    booked = command(*window, "--book")
    assert booked.returncode == 0, booked.stdout + booked.stderr
    listed = roster.read_class(path, None)
    assert [(s.node, s.start, s.length) for s in listed] == [
        (METAL, begin, timedelta(hours=1)), (METAL, begin + timedelta(hours=1, minutes=30), timedelta(hours=1)),
    ]  # fmt: skip
    for student in listed:
        lease = leases.find(booking.book(student.netid, METAL, lambda _: None))
        assert (lease.status, lease.start, lease.end) == ("PENDING", student.start, student.start + student.length)
    again = command(*window, "--book")  # nothing twice
    assert again.returncode == 0 and remains(plane) == {"leases": ["llm_single_rota", "llm_single_rotb"]}
    later = command(*["1h45m" if word == "1h" else word for word in window], "--book")
    assert later.returncode == 1 and "NoSlotError: lease llm_single_rota is there already" in later.stdout

    up = command("up", "--class", str(path))
    assert up.returncode == 0 and up.stdout.count("run 'up' again when the lease has started") == 2
    over = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    path.write_text(f"netid,node,start,length\nrotc,{METAL},{over},1h\nrota,{METAL},{over},3h\n")
    status = command("status", "--class", str(path), "--cost")
    assert "did not start:\n  rotc: time began at" in status.stdout and "no lease" in status.stdout
    assert "all" in status.stdout and "0.0 SU" in status.stdout and "rates: https://chameleoncloud.org" in status.stdout
    gone = command("up", "--class", str(path), "--dry-run")
    assert "rotc  its time was over at" in gone.stdout
    assert command("down", "--class", str(path)).returncode == 0
    assert command("down", "rotb", "--node", METAL).returncode == 0
    assert remains(plane) == {}


@pytest.fixture(scope="module")
def lab(plane):
    """A node whose Jupyter runs."""
    with lent("swept", METAL, chameleon.up) as made:
        yield made


@pytest.fixture
def node(lab, plane):
    """The node, and its home."""
    home = plane.nodes.home(servers.find(lab).id)
    (home / ".faults").unlink(missing_ok=True)
    return lab, home


def test_jupyter_is_told_when_the_lease_ends_and_again_when_it_is_extended(node):
    made, home = node
    told = datetime.fromisoformat(json.loads((home / "lease.json").read_text())["end"])
    assert told == leases.find(made).end
    chameleon.extend(made, timedelta(minutes=20))
    assert datetime.fromisoformat(json.loads((home / "lease.json").read_text())["end"]) == told + timedelta(minutes=20)
    assert "notice: JupyterLab says when the lease ends, and warns 30 and 10 minutes before" in made.said
    (home / ".faults").write_text("docker exec --interactive: 1 no such container\n")
    chameleon.extend(made, timedelta(minutes=20))  # the lease is longer all the same
    assert any("JupyterLab will not warn before the lease ends (notice on" in line for line in made.said)
    assert leases.find(made).end == told + timedelta(minutes=40)


def test_the_guard_is_installed_and_taken_away_over_ssh(node, plane):
    made, home = node
    guard.set_guard(made, "30")
    assert "watch.sh" in (home / "labkit-idle.service").read_text()
    calls = plane.nodes.calls(servers.find(made).id)
    assert "systemctl enable --now labkit-idle.timer" in calls
    assert (home / ".labkit-idle" / "activity.sh").exists()
    guard.set_guard(made, "off")
    assert not (home / ".labkit-idle").exists()
    assert made.said[-2:] == ["idle guard: stops Jupyter after 30 min without use", "idle guard: off"]


def test_a_sweep_lists_and_removes_what_is_over_or_unlisted_and_nothing_with_work(
    node, plane, book, tmp_path, monkeypatch
):
    from provisioning import sweep

    made, home = node
    path = tmp_path / "class.csv"
    path.write_text(f"netid,node\nswept,{METAL}\nleft,{VM}\n")
    left, stray, worked = book("left", VM), book("stray", VM), book("worked", VM)
    for one in (left, worked):  # a volume, and no lease any more
        lease = chameleon.ensure_lease(one)
        volume = chameleon.ensure_volume(one)
        leases.delete(one, lease)
    worked.cloud.cinder.volumes.set_metadata(volume.id, {"labkit_work": "yes"})
    chameleon.ensure_lease(stray)
    idle = {"running": True, "kernels": 1, "busy_kernels": 0, "cpu_percent": 0, "gpu_percent": 0, "busy": False}
    (home / "activity.json").write_text(json.dumps(idle | {"quiet_s": 4000}))
    assert activity.ask(made).idle == timedelta(seconds=4000)

    listed = command("sweep", "--class", str(path), "--idle", "1m")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    rows = {
        line.split()[0] + " " + line.split()[1]: line for line in listed.stdout.splitlines() if line.count("  ") > 2
    }
    assert "no lease" in rows["over left"] and "volume at KVM@TACC" in rows["over left"]
    for netid in ("stray", "worked"):  # just made, so only listed
        assert "left alone" in rows[f"unlisted {netid}"]
    assert "4 SU an hour" in rows["unlisted stray"]
    there = remains(plane)

    monkeypatch.setattr(sweep, "YOUNG", timedelta(0))
    found = sweep.sweep(sweep.look(lambda _: None), ["swept", "left"], timedelta(0), 2)
    verdicts = {one.netid: (one.verdict, one.deletable) for one in found}
    assert verdicts == {
        "swept": ("idle", False), "left": ("over", True), "stray": ("unlisted", True), "worked": ("unlisted", True),
    }  # fmt: skip
    assert remains(plane) == there
    from provisioning import cli

    assert cli.main(["sweep", "--class", str(path), "--delete"]) == 1  # the work is not lost
    assert remains(plane)["leases"] == [made.name]
    assert sorted(remains(plane)["volumes"]) == [worked.name]
    assert access.way_in(made).run("hello") == "hello\n"
    assert cli.main(["sweep", "--class", str(path), "--delete", "--discard"]) == 0
    assert "volumes" not in remains(plane) and remains(plane)["servers"] == [made.name]
