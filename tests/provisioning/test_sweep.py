"""What a sweep says of what is there, and what it may delete."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from provisioning import access, activity, cli, sweep, teardown
from provisioning.activity import Activity
from provisioning.errors import RemoteError, SshError
from provisioning.inventory import Holding

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def thing(kind, state="ACTIVE", netid="ann", made=-3 * HOUR, end=None, site="KVM@TACC", size="single"):
    owner = f"llm_{size}_{netid}"
    return Holding(kind, owner, f"{kind} of {owner}", owner, state, site, NOW + made, NOW + end if end else None)


def lease(state="ACTIVE", end=2 * HOUR, **more):
    return thing("lease", state, end=end, **more)


OVER = (lease("TERMINATED", -HOUR), thing("server", "SHUTOFF"), thing("volume", "in-use"), thing("key", ""))


@pytest.mark.parametrize(
    ("things", "known", "verdict", "deletable"),
    [
        ((lease(), thing("server")), True, None, None),
        ((lease("PENDING"), thing("volume", "available")), True, None, None),
        (OVER, True, sweep.OVER, True),
        ((thing("address", ""),), True, sweep.OVER, True),
        ((lease("ERROR"), thing("volume", "available")), True, sweep.OVER, True),
        ((lease("TERMINATED", -HOUR), thing("key", "")), True, None, None),  # costs nothing, and tells the cost
        ((lease(), thing("server")), False, sweep.UNLISTED, True),
        ((lease(made=-HOUR / 2),), False, sweep.UNLISTED, False),  # another class's, in the making
        ((lease(), thing("server", "BUILD", made=-HOUR / 60)), False, sweep.UNLISTED, False),
    ],
)
def test_what_the_lists_alone_say(things, known, verdict, deletable):
    found = sweep.judge("ann", things, known, NOW)
    assert (found and found.verdict, found and found.deletable) == (verdict, deletable)


def test_what_it_costs_is_the_sum_of_active_leases_and_unknown_where_one_is(monkeypatch):
    both = (lease(), lease(size="multi", end=HOUR), lease("PENDING", end=9 * HOUR), lease("TERMINATED", -HOUR))
    found = sweep.judge("ann", both, False, NOW)
    assert (found.su_per_hour, found.spare_su) == (4 + 16, 2 * 4 + 16)
    found = sweep.judge("ann", [*both, lease(site="CHI@elsewhere")], False, NOW)
    assert found.su_per_hour is None
    said = sweep.report([found, sweep.judge("ben", OVER, True, NOW)], ["X was not looked at: why."])
    assert "unknown rate" in said and "all of it: 0 SU an hour, and 1 at an unknown rate" in said
    assert "! X was not looked at: why." in said and "--delete removes them" in said


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Nodes that say what a test wants."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))

    def says(things, answer):
        def ask(_):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(activity, "ask", ask)
        clouds = {"KVM@TACC": SimpleNamespace(transport=SimpleNamespace(now=lambda: NOW))}
        return sweep.sweep(sweep.Seen(clouds, {"ann": list(things)}, ()), ["ann"], HOUR / 2, 2)

    return says


BUSY = Activity(True, True, 9 * HOUR, "1 of 1 kernels busy")


@pytest.mark.parametrize(
    ("server", "answer", "says"),
    [
        ("ACTIVE", BUSY, None),
        ("ACTIVE", Activity(True, False, HOUR / 3, "0 of 1"), None),
        ("ACTIVE", Activity(True, False, HOUR, "0 of 1"), "idle for 1 h 00 min: 0 of 1"),
        ("ACTIVE", Activity(False), "Jupyter does not run"),
        ("ACTIVE", Activity(False, stopped_by_guard="11:00"), "stopped by the idle guard at 11:00"),
        ("SHUTOFF", BUSY, "the server is SHUTOFF"),
        (None, BUSY, "no server under its lease"),
    ],
)
def test_a_node_under_a_lease_is_asked_whether_it_is_used(site, server, answer, says):
    found = site([lease(), *([thing("server", server)] if server else [])], answer)
    if says is None:
        assert found == []
        return
    (one,) = found
    assert (one.verdict, one.su_per_hour, one.spare_su, one.deletable) == (sweep.IDLE, 4, 8, False)
    assert says in one.why and "'collect', then 'down'" in sweep.report(found)


def test_a_node_that_cannot_be_asked_is_said_and_one_that_is_just_being_made_is_not_asked(site):
    (one,) = site([lease(), thing("server")], SshError("ssh cc@203.0.113.7: no answer."))
    assert (one.verdict, one.deletable) == (sweep.UNASKED, False)
    assert site([lease(made=-HOUR / 4), thing("server", "BUILD")], BUSY) == []


@pytest.mark.parametrize(
    ("printed", "idle"),
    [
        ('{"running": true, "kernels": 1, "busy_kernels": 1, "cpu_percent": 3, "gpu_percent": 0, "busy": true,'
         ' "quiet_s": 9000}', timedelta(0)),
        ('{"running": true, "kernels": 1, "busy_kernels": 0, "cpu_percent": 3, "gpu_percent": 0, "busy": false,'
         ' "quiet_s": 90}', timedelta(seconds=90)),
        ('{"running": false, "stopped_by_guard": ""}', timedelta(0)),
        ("", None), ("[]", None), ('{"running": true}', None), ("a word", None),
    ],
)  # fmt: skip
def test_what_a_node_prints_is_read_or_refused_in_one_line(monkeypatch, printed, idle):
    monkeypatch.setattr(access, "way_in", lambda *_: SimpleNamespace(run=lambda script: printed))
    booking = SimpleNamespace(name="llm_single_ann")
    if idle is None:
        with pytest.raises(RemoteError, match="activity of llm_single_ann did not say"):
            activity.ask(booking)
    else:
        assert activity.ask(booking).idle == idle


def test_what_is_in_use_again_when_its_turn_comes_is_left_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "class.csv"
    path.write_text("netid,node\nann,x\n")
    clouds = {"KVM@TACC": SimpleNamespace(transport=SimpleNamespace(now=lambda: NOW))}
    first = sweep.Seen(clouds, {"ann": list(OVER), "eve": [lease(netid="eve")], "kim": [lease(made=-HOUR / 2)]}, ())
    again = sweep.Seen(clouds, {"ann": [lease(), *OVER[1:]], "eve": [lease(netid="eve")]}, ())
    looks = iter([first, again, again])
    monkeypatch.setattr(sweep, "look", lambda *_: next(looks))
    gone = []
    monkeypatch.setattr(teardown, "teardown_of", lambda netid, *_: gone.append(netid) or ["lease"])
    assert cli.main(["sweep", "--class", str(path), "--delete", "--at-once", "1"]) == 0
    assert gone == ["eve"]
    assert "ok     ann  in use again: left alone" in capsys.readouterr().out
    assert cli.main(["sweep", "ann", "--node", "x"]) == 2
    assert "give the class list with --class" in capsys.readouterr().err
