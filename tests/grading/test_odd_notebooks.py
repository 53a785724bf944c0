"""Notebooks that are empty, cut off, renamed, or no files at all: what can be packed is, and the rest is said."""

import json
import os
import shutil
import unicodedata

import pytest
from students import hand_in

from labkit.cli import main
from labkit.config.workspace import Workspace
from labkit.grading import archive
from labkit.grading.grade import grade
from labkit.grading.submit import gather

GOOD = json.dumps({"cells": [{"cell_type": "code", "source": ["1 + 1"], "outputs": []}], "nbformat": 4}).encode()


@pytest.fixture
def desk(student, tmp_path, monkeypatch):
    """A student's ledger, and the folder of her notebooks with one good one."""
    ledger = student()
    monkeypatch.setenv("LABKIT_RUNS", str(ledger))
    for name in ("configs", "profiles"):
        shutil.copytree(Workspace.find().root / name, tmp_path / "course" / "workspace" / name)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path / "course" / "workspace"))
    labs = tmp_path / "course" / "labs"
    labs.mkdir()
    (labs / "00_setup.ipynb").write_bytes(GOOD)
    return ledger, labs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\0" * 4096, "it is empty"),
        (GOOD[:60], "it is cut off, or no notebook"),
        (b"[" * 10_000, "it is cut off, or no notebook"),
        (b"{}", "it is not a notebook: it has no list of cells"),
        (b"[1, 2]", "it is not a notebook: it has no list of cells"),
        (b'{"cells": [1]}', "it is not a notebook: it has no list of cells"),
        (b'{"cells": [], "nbformat": 4}', "it has no cell with anything in it"),
        (b"[]," * 1_000_001, "it has more parts than any notebook"),
    ],
)
def test_a_notebook_that_cannot_be_read_is_packed_said_and_not_counted(desk, tmp_path, monkeypatch, capsys, data, why):
    ledger, labs = desk
    (labs / "04_larger_models.ipynb").write_bytes(data)
    found = gather(Workspace.find())
    assert found.members["labs/04_larger_models.ipynb"] == data
    assert found.unread == [f"labs/04_larger_models.ipynb: {why}"]
    assert main(["submit", "--name", "Ann", "--output", str(tmp_path / "b.tar.gz")]) == 0
    assert f"not readable, so not counted: labs/04_larger_models.ipynb: {why}; save it" in capsys.readouterr().out
    (row,) = grade(Workspace.find(), [hand_in(ledger, "Ann", tmp_path / "a.tar.gz", monkeypatch)])
    assert row.notebooks == ["labs/00_setup.ipynb"]
    assert [sign.text for sign in row.signs if sign.kind == "notebook"] == [f"labs/04_larger_models.ipynb: {why}"]


@pytest.mark.slow
def test_notebooks_under_any_name_are_packed_and_judged_as_before(desk, tmp_path, monkeypatch):
    ledger, labs = desk
    names = ["Ann Lee q2", "03_précision_übung", "Ann's lab #1", "lab – final!", "02 [copy]", "ラボ" * 35, "a" * 200,
             " x", "-rf", "\x1b[2J"]  # fmt: skip
    names.append(unicodedata.normalize("NFD", "05_précision"))
    for name in names:
        (labs / f"{name}.ipynb").write_bytes(GOOD)
    there = len(list(labs.glob("*.ipynb")))
    found = gather(Workspace.find())
    packed = {name for name in found.members if name.endswith(".ipynb")}
    assert found.lines() == [] and len(packed) == there
    assert {"labs/Ann Lee q2.ipynb", "labs/03_précision_übung.ipynb", "labs/05_précision.ipynb"} <= packed
    (row,) = grade(Workspace.find(), [hand_in(ledger, "Ann", tmp_path / "a.tar.gz", monkeypatch)])
    assert len(row.notebooks) == there and row.signs == []
    assert (len(row.given), row.right, row.passed) == (4, 3, 4)


@pytest.mark.slow
def test_two_names_that_become_one_are_both_packed(desk):
    _, labs = desk
    for name in ("a#1", "a?1", "A_1"):
        (labs / f"{name}.ipynb").write_bytes(GOOD)
    packed = [name for name in gather(Workspace.find()).members if "_1" in name.casefold()]
    assert len({name.casefold() for name in packed}) == 3


@pytest.mark.slow
def test_what_is_no_file_is_left_out_and_named(desk, tmp_path):
    _, labs = desk
    (tmp_path / "outside.ipynb").write_text('{"cells": ["root:"]}')
    (labs / "folder.ipynb").mkdir()
    (labs / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    (labs / "gone.ipynb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(labs / "pipe.ipynb")
    found = gather(Workspace.find())
    assert found.left_out == [
        "labs/folder.ipynb: it is not a file",
        "labs/gone.ipynb: it is a link",
        "labs/link.ipynb: it is a link",
        "labs/pipe.ipynb: it is not a file",
    ]
    assert b"root:" not in b"".join(found.members.values())


def test_a_device_is_left_out():
    """As for a node made by mknod, which a test cannot make everywhere."""
    with pytest.raises(ValueError, match="it is not a file"):
        archive.open_plain(archive.Path("/dev/zero"))


@pytest.mark.slow
def test_a_file_that_may_not_be_read_is_left_out_and_named(desk, monkeypatch):
    def refuse(path, *rest, real=os.open):
        if str(path).endswith("mine.ipynb"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    (desk[1] / "mine.ipynb").write_bytes(GOOD)
    monkeypatch.setattr(archive.os, "open", refuse)  # root may read all
    assert gather(Workspace.find()).left_out == ["labs/mine.ipynb: Permission denied"]


@pytest.mark.slow
def test_a_file_that_is_no_text_is_left_out_since_it_may_hide_a_secret(desk):
    (desk[1] / "zip.ipynb").write_bytes(b"PK\x03\x04\x14\x00" + os.urandom(500))
    assert gather(Workspace.find()).left_out == ["labs/zip.ipynb: it is not text, and cannot be searched for secrets"]


@pytest.mark.slow
def test_a_huge_file_is_left_out_without_being_read(desk):
    _, labs = desk
    with (labs / "huge.ipynb").open("wb") as file:
        file.truncate(300 * 2**20)  # sparse
    log = next(Workspace.find().runs.glob("tiny/baseline/*/log.txt"))
    with log.open("ab") as file:
        file.truncate(300 * 2**20)
        file.seek(0, 2)
        file.write(b"\nthe end\n")
    found = gather(Workspace.find())
    (line,) = found.left_out
    assert line == "labs/huge.ipynb: it has 300.0 MiB, and 16 are taken; clear the outputs of its largest cells"
    (kept,) = (data for name, data in found.members.items() if name.endswith(f"{log.parent.name}/log.txt"))
    assert len(kept) <= 2**18 and kept.endswith(b"the end\n")
