"""A student's work over real SSH: all of it comes home byte by byte, and a teardown sees every change."""

import os

import pytest
from conftest import VM, lent
from rig.remains import remains
from test_paths import command

from provisioning import chameleon, collect, errors, running, servers, work

MINE = {
    "mine.py": b"print('mine')\n",
    "configs/mine.yaml": b"lr: 1\n",
    "configs/example.yaml": b"lr: 3  # a shipped one, edited\n",
    "notes.md": "# Näçhstes\n".encode(),
    "data/analysis.ipynb": b"{}",
    "data/small.bin": bytes(range(256)),
    "runs/tiny/a/record.json": b'{"status": "ok"}',
    "runs/tiny/a/adapter.safetensors": b"\0" * 1000,
    "a name\nin two lines": b"odd",
    "of bytes \udcff.txt": b"odd",
    ".home/.bashrc": b"alias l=ls\n",
}


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def sparse(folder, name, size):
    write(folder, {name: b""})
    os.truncate(folder / name, size)


@pytest.fixture(scope="module")
def lab(plane):
    """A node with a lab that was just started."""
    with lent("work", VM, chameleon.up) as made:
        yield made


@pytest.fixture
def workspace(lab, plane):
    """Its workspace, as it was when it was made."""
    folder = plane.nodes.home(servers.find(lab).id) / "workspace"
    write(
        folder, {"configs/example.yaml": (folder.parent / "labkit-source/workspace/configs/example.yaml").read_bytes()}
    )
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name not in ("example.yaml", "configs"):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    lab.said.clear()
    return folder


def test_what_was_shipped_is_no_work_also_when_the_project_has_changed(lab, workspace, tmp_path, monkeypatch):
    assert chameleon.collect(lab) is None
    assert collect.uncollected(lab) is None
    other = tmp_path / "project"
    write(other / "workspace/configs", {"example.yaml": b"of a newer project"})
    write(other / "docker", {"start": b""})
    monkeypatch.setenv("LABKIT_PROJECT", str(other))
    way = chameleon.ensure_access(lab)
    from provisioning import project

    with (tmp_path / "archive").open("w+b") as file:
        data, digest = project.archive()
        file.write(data)
        file.seek(0)
        way.run("upload", "labkit-source", digest, "labkit-shipped", data=file)
    monkeypatch.undo()
    assert chameleon.collect(lab) is None  # the workspace has the earlier one
    write(workspace, {"configs/example.yaml": b"of a newer project"})
    assert chameleon.collect(lab) is None
    chameleon.build_image(lab)


def test_all_that_a_student_made_or_changed_comes_home_byte_by_byte(lab, workspace):
    write(workspace, MINE)
    sparse(workspace, "runs/tiny/a/model.safetensors", 20 * 2**20)
    sparse(workspace, "data/food/train.arrow", 70 * 2**20)
    write(workspace, {"cache/huggingface/hub/x": b"cached"})
    (workspace / "out").symlink_to("/etc/passwd")
    with pytest.raises(errors.UncollectedWorkError, match="never collected|newer work"):
        chameleon.teardown(lab)
    home = chameleon.collect(lab)
    there = {str(path.relative_to(home.folder)): path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    assert there == MINE
    assert home.files == len(MINE)
    said = "\n".join(lab.said)
    assert "left out, weights: 1 files, 20.0 MiB, the largest runs/tiny/a/model.safetensors 20.0 MiB" in said
    assert "left out, data sets: 1 files, 70.0 MiB, the largest data/food/train.arrow" in said
    assert "left out, caches: 1 files, 6 B" in said
    assert "out -> /etc/passwd" in said
    assert work.read(home.folder.with_name(f"{home.folder.name}.json").read_text()) == home.listing
    lab.said.clear()
    assert collect.uncollected(lab) is None
    assert "left out, weights: 1 files, 20.0 MiB" in "\n".join(lab.said)


@pytest.mark.parametrize("name", sorted(MINE))
def test_each_kind_of_file_alone_is_enough_to_refuse(lab, workspace, name):
    chameleon.collect(lab)
    write(workspace, {name: MINE[name]})
    assert "newer work" in collect.uncollected(lab) or "never collected" in collect.uncollected(lab)


def test_what_is_too_large_is_named_by_collect_and_by_the_refusal(lab, workspace, monkeypatch):
    monkeypatch.setattr(work, "MOST_BYTES", 1000)
    write(workspace, {"mine.py": b"mine", "results.csv": b"x" * 1001})
    home = chameleon.collect(lab)
    assert [path.name for path in home.folder.iterdir()] == ["mine.py"]
    assert any("! not brought home: results.csv 1001 B (too large)" in line for line in lab.said)
    with pytest.raises(errors.UncollectedWorkError, match="collect cannot bring home: results.csv 1001 B"):
        chameleon.teardown(lab)
    (workspace / "results.csv").unlink()
    chameleon.collect(lab)
    assert collect.uncollected(lab) is None


def test_what_changes_while_it_is_brought_home_is_said_and_still_counts(lab, workspace, monkeypatch):
    write(workspace, {"mine.py": b"first"})
    fetch = work.fetch

    def meanwhile(way, to):
        write(workspace, {"mine.py": b"other"})
        fetch(way, to)

    monkeypatch.setattr(work, "fetch", meanwhile)
    chameleon.collect(lab)
    assert any("! changed while it was brought home: mine.py. Collect again." in line for line in lab.said)
    assert "newer work" in collect.uncollected(lab)


def test_the_command_shows_what_is_left_out_and_down_deletes_nothing_of_ones_own(lab, workspace, plane):
    write(workspace, {"mine.py": b"of this test alone: the same bytes are no newer work", ".home/.cache/x": b"12345"})
    down = command("down", "work", "--node", VM)
    assert down.returncode == 1
    assert "UncollectedWorkError" in down.stdout
    assert "left out, caches: 1 files, 5 B" in down.stdout
    assert remains(plane) != {}
    collected = command("collect", "work", "--node", VM)
    assert "1 files in" in collected.stdout
    assert "left out, caches: 1 files, 5 B, the largest .home/.cache/x 5 B" in collected.stdout


def test_what_is_saved_between_the_look_and_the_end_is_not_lost(plane, book, monkeypatch):
    made = book("late")
    chameleon.up(made)
    home = plane.nodes.home(servers.find(made).id)
    (home / "workspace" / "first.txt").write_text("first")
    chameleon.collect(made)
    real = running.stop

    def saved_meanwhile(way):
        (home / "workspace" / "second.txt").write_text("second")  # by a kernel that still runs
        real(way)
        assert not (home / ".docker-state" / "container").exists()

    with monkeypatch.context() as patch:
        patch.setattr(running, "stop", saved_meanwhile)
        with pytest.raises(errors.UncollectedWorkError, match="newer work"):
            chameleon.teardown(made)
    assert (home / ".docker-state" / "container").exists()  # and the lab keeps running
    chameleon.collect(made)
    chameleon.teardown(made)
    (brought,) = made.folder.glob("collected/*/second.txt")
    assert brought.read_text() == "second"
