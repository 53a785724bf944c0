"""The lease ends first, whatever else does not go; and durations are the site's, whatever the clock here says."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from conftest import VM
from rig.install import install_packages
from rig.remains import remains

from provisioning import chameleon, errors, leases, servers, teardown, volumes


def test_a_lease_ends_though_its_volume_does_not_go_and_a_later_run_deletes_that(plane, book, monkeypatch):
    made = book("sticky")
    chameleon.ensure_lease(made)
    volume = chameleon.ensure_volume(made)
    chameleon.ensure_server(made)
    snapshot = made.cloud.cinder.volume_snapshots.create(volume.id, force=True)  # Cinder refuses to delete what has one
    made.wait("snapshot", lambda: made.cloud.cinder.volume_snapshots.get(snapshot.id).status, ("available",), 60)
    with pytest.raises(errors.FailedError, match=r"still there .*volume llm_single_sticky.*Run 'down' again"):
        chameleon.teardown(made)
    assert remains(plane) == {"volumes": [made.name]}
    made.cloud.cinder.volume_snapshots.delete(snapshot.id)
    gone = lambda: "gone" if not made.cloud.cinder.volume_snapshots.list() else "there"  # noqa: E731
    made.wait("snapshot", gone, ("gone",), 60)
    assert chameleon.teardown(made)
    assert remains(plane) == {}


def test_a_lease_ends_though_its_server_does_not_go(plane, book, monkeypatch):
    made = book("stuck")
    for step in (chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server, chameleon.ensure_address):
        step(made)
    monkeypatch.setattr(teardown, "FIRST_S", 2.0)
    monkeypatch.setattr(servers, "STOP_BOUND_S", 2.0)
    monkeypatch.setattr(volumes, "DELETE_BOUND_S", 2.0)
    with plane.frozen("nova-compute"):
        with pytest.raises(errors.FailedError, match=r"still there .*4 SU an hour until .*Run 'down' again") as error:
            chameleon.teardown(made)
        assert "server llm_single_stuck" in str(error.value) and "volume llm_single_stuck" in str(error.value)
        assert any("the lease ends at" in line for line in made.said)
        assert leases.find(made).left(made.now()) < timedelta(minutes=2)
        assert "addresses" not in remains(plane) and "groups" not in remains(plane)
    monkeypatch.undo()
    chameleon.teardown(made)
    assert remains(plane) == {}


def test_a_volume_goes_with_its_server_once_a_teardown_has_begun(plane, book, monkeypatch):
    made = book("along")
    for step in (chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server):
        step(made)

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(leases, "delete", cut_off)  # the laptop is closed right after the server was told to go
    with pytest.raises(KeyboardInterrupt):
        chameleon.teardown(made)
    made.wait("volume", lambda: "there" if "volumes" in remains(plane) else "gone", ("gone",), 60)
    monkeypatch.undo()
    chameleon.teardown(made)


@pytest.mark.parametrize("hours", [4, -4])
def test_a_clock_that_is_hours_off_changes_no_lease(plane, book, hours):
    install_packages({"faketime": "faketime"})
    made = book("clock")
    code = (
        "import json; from provisioning import chameleon as c\n"
        f"b = c.book('clock', '{VM}', lambda _: None); lease = c.ensure_lease(b)\n"
        "print(json.dumps([(lease.end - lease.start).total_seconds(), str(c.status(b))]))"
    )
    argv = ["faketime", "-f", f"{hours:+}h", sys.executable, "-c", code]
    env = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}  # else waits have no end
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    length_s, shown = json.loads(done.stdout.splitlines()[-1])
    assert abs(length_s - 2.8333 * 3600) <= 61
    assert "2 h 49 min left" in shown or "2 h 50 min left" in shown or "2 h 48 min left" in shown
    lease = leases.find(made)
    assert abs(lease.left(made.now()) - timedelta(hours=2, minutes=50)) < timedelta(minutes=3)
    chameleon.teardown(made)
