"""What is said of the lab that runs, and when it may be stopped."""

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from support.scripts import loaded

from provisioning import running, times
from provisioning.errors import LabRunsError, RemoteError
from provisioning.running import Choice
from provisioning.ssh import REMOTE

node = loaded(REMOTE / "running.py")


def ago(**span):
    return (times.now() - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lab(bind="127.0.0.1", **facts):
    kernels = [
        {"path": "labs/01 memory.ipynb", "state": "busy", "last_activity": ago(minutes=1)},
        {"path": "mine.ipynb", "state": "idle", "last_activity": ago(hours=1)},
    ]
    found = {
        "label": f"labkit:old {bind} 8888", "started": ago(hours=2, minutes=3).replace("Z", "789Z"), "kernels": kernels,
        "terminals": 1, "processes": [[700, "python /opt/labkit/venv/bin/labkit run xxl"]], "gpu_mib": 41000,
    }  # fmt: skip
    return running.read(json.dumps(found | facts))


@pytest.fixture
def booking():
    said = []
    return SimpleNamespace(name="llm_single_abc", say=said.append, said=said)


def test_all_that_would_be_stopped_is_named():
    assert str(lab()) == (
        "labkit:old since 2 h 03 min, 2 kernels (labs/01 memory.ipynb busy, last active 1 min ago; mine.ipynb idle, "
        "last active 1 h 00 min ago), 1 terminals, 1 programs (python /opt/labkit/venv/bin/labkit run xxl for 11 min), "
        "41000 MiB of GPU memory in use"
    )
    assert lab().busy
    quiet = {"processes": [], "gpu_mib": None}
    assert "kernels unknown" in str(lab(kernels=None, terminals=None, **quiet))
    assert not lab(kernels=[], **quiet).busy
    odd = [{"path": "a\nb\x1b[2J.ipynb", "state": "idle", "last_activity": ago(minutes=1)}]
    assert str(lab(kernels=odd)).isprintable()


def test_nothing_has_to_be_stopped_where_nothing_runs_or_it_is_what_is_wanted(booking):
    assert running.read("null") is None
    assert running.choose(booking, None, "labkit:new", open_port=True) is Choice.FREE
    assert running.choose(booking, lab(), "labkit:old", open_port=False) is Choice.FREE
    assert running.choose(booking, lab("0.0.0.0"), "labkit:old", open_port=True) is Choice.FREE
    assert running.choose(booking, lab("0.0.0.0"), "labkit:old", open_port=False) is Choice.FREE
    assert booking.said == []


def test_a_changed_project_lets_the_lab_go_on_and_says_so(booking):
    assert running.choose(booking, lab(), "labkit:new", open_port=False) is Choice.KEEP
    (said,) = booking.said
    assert said.startswith("jupyter: keeps running as it is: labkit:old since 2 h 03 min, 2 kernels (labs/01")
    assert "labkit:new; --restart (restart=True) starts that" in said


def test_a_port_that_cannot_be_opened_without_stopping_is_refused_by_name(booking):
    with pytest.raises(LabRunsError, match=r"--open binds another.*would stop labkit:old.*busy.*--restart") as error:
        running.choose(booking, lab(), "labkit:old", open_port=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("open_port", [False, True])
def test_it_is_stopped_when_told_or_when_the_one_who_is_asked_says_yes(booking, open_port):
    assert running.choose(booking, lab(), "labkit:new", open_port, restart=True) is Choice.STOP
    asked = []
    yes = lambda question: asked.append(question) or True  # noqa: E731
    assert running.choose(booking, lab(), "labkit:new", open_port, may_stop=yes) is Choice.STOP
    assert "This would stop labkit:old since 2 h 03 min, 2 kernels" in asked[0]


def test_a_no_keeps_the_lab(booking):
    assert running.choose(booking, lab(), "labkit:new", False, may_stop=lambda _: False) is Choice.KEEP
    with pytest.raises(LabRunsError):
        running.choose(booking, lab(), "labkit:new", True, may_stop=lambda _: False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"label": "a"}', '{"label": "a b"}', "7"])
def test_an_answer_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(RemoteError, match="what runs on the node cannot be read") as error:
        running.read(text)
    assert "\n" not in str(error.value)


def test_a_server_its_kernels_its_health_check_and_shells_are_no_programs_and_all_else_is(monkeypatch):
    table = """\
PID ELAPSED COMMAND
1 900 /sbin/docker-init -- python /opt/labkit/entrypoint.py jupyter lab
2 900 /opt/labkit/venv/bin/python /opt/labkit/venv/bin/jupyter-lab
3 800 /opt/labkit/venv/bin/python -m ipykernel_launcher -f /tmp/jupyter/kernel-1.json
4 800 python -m bash_kernel -f /tmp/jupyter/kernel-2.json
5 700 /bin/bash -l
6 1 python -c import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:8888/api', timeout=5)
7 600 /opt/labkit/venv/bin/python /opt/labkit/venv/bin/labkit run xxl
8 500 bash train.sh
9 400
10 300 [python] <defunct>
"""
    monkeypatch.setattr(node, "said", lambda *_: table)
    assert node.processes("labkit") == [
        [600, "/opt/labkit/venv/bin/python /opt/labkit/venv/bin/labkit run xxl"], [500, "bash train.sh"],
    ]  # fmt: skip
