"""Submitting: what is packed, what is not, and what is left where it cannot be written."""

import base64
import json
import shutil
import sys
from html import escape

import pytest
from students import NOTEBOOKS

from labkit.cli import main
from labkit.config.workspace import Workspace
from labkit.grading import submit as submit_module
from labkit.grading.archive import ArchiveError, read_archive
from labkit.grading.submit import gather, submit
from labkit.lab.button import Button
from labkit.lab.lab import Lab
from labkit.lab.unanswered import unanswered

SECRET = "s3cret-of-a-student-0123456789"


@pytest.fixture
def runs(student, monkeypatch):
    """A student's ledger, in which the commands work."""
    folder = student()
    monkeypatch.setenv("LABKIT_RUNS", str(folder))
    return folder


def one_run(runs):
    return next(runs.glob("tiny/baseline/*"))


def packed_of(path):
    found = read_archive(path)
    return found, {name.rpartition("/")[2] for name in found.sha256}


@pytest.mark.slow
def test_runs_answers_and_notebooks_are_packed_and_nothing_else(runs, tmp_path):
    run = one_run(runs)
    (run / "checkpoints" / "step-2").mkdir(parents=True)
    (run / "checkpoints" / "step-2" / "place.json").write_text("{}")
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"x" * 1000)
    (run / "record.json.bak").write_text("{}")
    path, gathered = submit(Workspace.find(), "Ann", tmp_path / "mine.tar.gz")
    found, names = packed_of(path)
    assert (path, gathered.lines()) == (tmp_path / "mine.tar.gz", [])
    assert len(gathered.members) == len(found.sha256) == 3 * 4 + 1 + NOTEBOOKS
    kinds = {"config.json", "record.json", "events.jsonl", "log.txt", "answers.jsonl"}
    assert {name for name in names if not name.endswith(".ipynb")} == kinds
    assert (run / "events.jsonl").read_bytes() == found.texts[f"runs/tiny/baseline/{run.name}/events.jsonl"]
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


@pytest.mark.slow
def test_secrets_stay_at_home(runs, tmp_path, monkeypatch):
    workspace = tmp_path / "course" / "workspace"
    (workspace / "configs").mkdir(parents=True)
    (workspace / "configs" / "baseline.yaml").touch()
    labs = tmp_path / "course" / "labs"
    labs.mkdir()
    token = "hf_" + "a1" * 15
    output = {
        "output_type": "stream",
        "name": "stdout",
        "text": [f'key="{SECRET}"\n', f"http://x/lab?token={SECRET}\n"],
    }
    cell = {"cell_type": "code", "source": [f"login('{token}')"], "outputs": [output], "metadata": {}}
    (labs / "00_setup.ipynb").write_text(json.dumps({"cells": [cell], "nbformat": 4}))
    (labs / "broken.ipynb").write_text(f"<html>{token}")
    run = one_run(runs)
    with (run / "log.txt").open("a") as log:
        log.write("x" * 2**20 + f"\nBearer {SECRET}\n")
    with (run / "events.jsonl").open("a") as events:
        events.write(json.dumps({"event": "print", "text": f"line\n{token}"}) + "\n")
    monkeypatch.setenv("MY_API_KEY", SECRET)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(workspace))
    found = gather(Workspace.find())
    members = found.members
    assert found.left_out == []
    everything = b"".join(members.values())
    assert SECRET.encode() not in everything
    assert token.encode() not in everything
    assert everything.count(b"[redacted]") >= 5
    notebook = json.loads(members["labs/00_setup.ipynb"])
    assert notebook["cells"][0]["source"] == ["login('[redacted]')"]
    log = members[f"runs/tiny/baseline/{run.name}/log.txt"]
    assert len(log) <= 2**18 and log.endswith(b"Bearer [redacted]\n")


@pytest.mark.slow
def test_links_and_files_that_are_too_large_are_left_out_and_named(runs, tmp_path):
    run, other = one_run(runs), next(runs.glob("tiny/reduced_batch/*"))
    (run / "log.txt").unlink()
    (run / "log.txt").symlink_to("/etc/passwd")
    (run / "events.jsonl").write_bytes(b"{}\n" * 3 * 2**20)
    (runs / "tiny" / "reduced_batch" / "20260101-000000-0000beef").symlink_to(other)
    (runs / "tiny" / "bad\x1bname").mkdir()
    run.rename(runs / "tiny" / "bad\x1bname" / run.name)
    run = runs / "tiny" / "bad\x1bname" / run.name
    good = runs / "tiny" / "baseline" / run.name
    left_out = gather(Workspace.find()).left_out
    assert len([line for line in left_out if "a name that a submission cannot have" in line]) == 4
    run.rename(good)
    found = gather(Workspace.find())
    assert found.left_out == [
        f"runs/tiny/baseline/{run.name}/events.jsonl: it has 9.0 MiB, and 8 are taken",
        f"runs/tiny/baseline/{run.name}/log.txt: it is a link",
    ]
    assert not [name for name in found.members if "0000beef" in name]
    assert b"root:" not in b"".join(found.members.values())


@pytest.mark.slow
def test_a_run_that_still_runs_is_packed_as_far_as_it_is(runs, tmp_path):
    run = one_run(runs)
    (run / "record.json").unlink()
    with (run / "events.jsonl").open("a") as events:
        events.write('{"event": "progr')
    assert gather(Workspace.find()).members[f"runs/tiny/baseline/{run.name}/events.jsonl"].endswith(b'"progr')


@pytest.mark.slow
def test_nothing_is_ever_written_over(runs, tmp_path):
    workspace = Workspace.find()
    first, _ = submit(workspace, "Ann", tmp_path / "a.tar.gz")
    before = first.read_bytes()
    made = {submit(workspace, "Ann", first)[0] for _ in range(3)}
    assert len(made) == 3 and first not in made
    assert first.read_bytes() == before
    assert all(path.name.startswith("a-20") and path.name.endswith(".tar.gz") for path in made)


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_what_was_interrupted_leaves_nothing(runs, tmp_path, monkeypatch, error):
    def interrupted(file, *rest):
        file.write(b"half")
        raise error

    monkeypatch.setattr(submit_module, "write_archive", interrupted)
    with pytest.raises(ArchiveError if isinstance(error, OSError) else type(error)) as raised:
        submit(Workspace.find(), "Ann", tmp_path / "a.tar.gz")
    if isinstance(error, OSError):
        assert "No space left on device" in str(raised.value) and "--output" in str(raised.value)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.slow
def test_a_folder_that_is_not_there_is_said(runs, tmp_path):
    with pytest.raises(ArchiveError, match="cannot be written: No such file"):
        submit(Workspace.find(), "Ann", tmp_path / "nowhere" / "a.tar.gz")


def test_an_empty_ledger_has_nothing_to_hand_in(ledger):
    with pytest.raises(ArchiveError, match="nothing to hand in"):
        submit(Workspace.find(), "Ann")


@pytest.mark.slow
def test_the_command_says_where_it_is(runs, tmp_path, capsys):
    path = tmp_path / "mine.tar.gz"
    assert main(["submit", "--name", "Ann", "--output", str(path)]) == 0
    assert f"{path}: {3 * 4 + 1 + NOTEBOOKS} files" in capsys.readouterr().out
    assert main(["submit", "--name", "Ann", "--output", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] != str(path) and said["left_out"] == []
    assert read_archive(path).name == "Ann"


@pytest.mark.slow
def test_the_command_says_what_is_unanswered(runs, tmp_path, capsys):
    found = unanswered(Workspace.find())
    assert main(["submit", "--name", "Ann", "--output", str(tmp_path / "a.tar.gz")]) == 0
    assert capsys.readouterr().out.splitlines()[-len(found) :] == [f"  {line}" for line in found] != []
    assert main(["submit", "--name", "Ann", "--output", str(tmp_path / "a.tar.gz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unanswered"] == found


@pytest.mark.slow
def test_the_command_writes_to_a_pipe(runs, tmp_path, capfdbinary):
    assert main(["submit", "--name", "Ann", "--output", "-"]) == 0
    out, err = capfdbinary.readouterr()
    (tmp_path / "a.tar.gz").write_bytes(out)
    assert read_archive(tmp_path / "a.tar.gz").name == "Ann"
    assert err == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--name"),
        (["--name", ""], "--name"),
        (["--name", "a\x1b[2J"], "--name="),
        (["--name", "n" * 500], "--name="),
        (["--name", "Ann", "--output", "-", "--json"], "--json"),
        (["--name", "Ann", "--output", "/nowhere/a.tar.gz"], "/nowhere/a.tar.gz"),
        (["--name", "Ann", "--output", "/dev/null/a.tar.gz"], "/dev/null"),
    ],
)
def test_bad_input_is_one_line(runs, arguments, says, capsys):
    assert main(["submit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and err.rstrip("\n").isprintable()


@pytest.mark.slow
def test_a_button_packs_only_when_it_is_pressed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    root = tmp_path / "workspace"
    for part in ("configs", "profiles"):
        shutil.copytree(Workspace.find().root / part, root / part)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(root))
    view = Lab("12_compare").submit()
    assert isinstance(view, Button)
    assert "labkit submit --name" in view.text() and "labkit submit --name" in view.html()
    shown = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown and "labkit submit" in shown["text/plain"]
    with pytest.MonkeyPatch.context() as patch:  # what an installation without widgets shows says how to do it
        patch.setitem(sys.modules, "ipywidgets", None)
        assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert not list(root.glob("*.tar.gz"))
    _, (name, button), said = (child if child.__class__.__name__ == "HTML" else child.children
                               for child in view._widget().children)  # fmt: skip
    button.click()
    assert "not done" in said.value and "--name" in said.value
    name.value = "<b>Ann</b>"
    button.click()
    assert "packed" in said.value and "<b>Ann" not in said.value
    (archive,) = root.glob("*.tar.gz")
    assert f'href="data:application/gzip;base64,{base64.b64encode(archive.read_bytes()).decode()}"' in said.value
    open_ = unanswered(Workspace.find())
    assert all(escape(line) in said.value and line in view.text() and escape(line) in view.html() for line in open_)
    assert [read_archive(path).name for path in root.glob("*.tar.gz")] == ["<b>Ann</b>"]
    assert not button.disabled


@pytest.mark.slow
def test_a_damaged_run_is_handed_in_as_it_is(runs):
    run = one_run(runs)
    (run / "config.json").write_text("{")
    found = gather(Workspace.find())
    assert found.members[f"runs/tiny/baseline/{run.name}/config.json"] == b"{" and found.left_out == []
