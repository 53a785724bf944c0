"""What the node says is a student's work: every file, but those as shipped, caches, weights and data sets."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.scripts import loaded

from provisioning import collect, work
from provisioning.errors import RemoteError, UsageError
from provisioning.ssh import REMOTE

SCRIPT = REMOTE / "work.py"
node = loaded(SCRIPT)
MOST = work.MOST_BYTES
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable  # any user may start the system's own


def run(what, folder, record="none", most=MOST, **options):
    """The script as ``Ssh.command`` starts it."""
    command = [PYTHON, "-I", "-X", "utf8", "-c", SCRIPT.read_text(), what, str(folder), str(record), str(most)]
    return subprocess.run(command, capture_output=True, check=True, **options).stdout


def listing(folder, record="none", most=MOST, **options):
    return work.read(run("list", folder, record, most, **options).decode())


def put(folder, name, content=b"x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sparse(folder, name, size):
    with put(folder, name).open("wb") as file:
        file.truncate(size)


def groups(found):
    return {group.name: (group.files, group.size_bytes) for group in found.left_out}


MINE = ["mine.py", "configs/mine.yaml", "notes.md", "data/analysis.ipynb", "runs/tiny/a/record.json", "labs/01.ipynb",
        "runs/tiny/a/adapter.safetensors", "data/small.bin", "data/photo.png", ".home/.bashrc", "cache/own.py",
        "cache/mine/own.py", "checkpoints/own.py", "model/own.py", "labs/.ipynb_checkpoints/own.py",
        "__pycache__/own.py", ".git/HEAD", "site-packages/own.py", "results/gpu_check-h100-94gb.json",
        "a name\nin two lines.py"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MINE)
def test_a_small_file_is_work_wherever_it_lies(tmp_path, name):
    put(tmp_path, name)
    found = listing(tmp_path)
    assert list(found.files) == [name]
    assert found.files[name] == (1, hashlib.sha256(b"x").hexdigest())
    assert found.digest != work.NONE
    assert not found.left_out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "group"),
    [
        ("cache/huggingface/hub/models--a/refs/main", 40, "caches"),
        ("cache/fetch.log", 9, "caches"),
        (".home/.cache/pip/http/a", 9, "caches"),
        ("labs/__pycache__/own.cpython-312.pyc", 9, "caches"),
        ("labs/.ipynb_checkpoints/01-checkpoint.ipynb", 9, "caches"),
        ("runs/tiny/a/model.safetensors", node.WEIGHTS_BYTES + 1, "weights"),
        ("anywhere/LAST.CKPT", node.WEIGHTS_BYTES + 1, "weights"),
        ("data/set/x.csv", node.DATA_BYTES + 1, "data sets"),
        (".home/.local/lib/python3.12/site-packages/x/y.py", 9, "installed packages"),
        (".home/.jupyter/lab/workspaces/default.jupyterlab-workspace", 9, "Jupyter's own state"),
        (".Trash-1000/files/old.py", 9, "trash"),
    ],
)
def test_what_can_be_had_again_is_left_out_and_said_with_its_bytes(tmp_path, name, size, group):
    sparse(tmp_path, name, size)
    found = listing(tmp_path)
    assert (found.digest, found.files) == (work.NONE, {})
    assert groups(found) == {group: (1, size)}
    (line,) = found.lines()
    assert line == f"left out, {group}: 1 files, {work.say_bytes(size)}, the largest {name} {work.say_bytes(size)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runs/a/model.safetensors", "runs/a/big.npy", "data/x.csv"])
def test_a_file_at_the_bound_is_work(tmp_path, name):
    sparse(tmp_path, name, node.DATA_BYTES if name.startswith("data") else node.WEIGHTS_BYTES)
    assert list(listing(tmp_path).files) == [name]


@pytest.mark.slow
def test_many_photos_of_one_folder_are_a_data_set_and_a_notebook_among_them_is_work(tmp_path):
    for i in range(3):
        sparse(tmp_path, f"data/food/train/{i}.jpg", node.DATA_BYTES // 2)
    put(tmp_path, "data/food/look.ipynb")
    put(tmp_path, "data/mine/photo.jpg")
    put(tmp_path, "data/photo.jpg")
    found = listing(tmp_path)
    assert set(found.files) == {"data/food/look.ipynb", "data/mine/photo.jpg", "data/photo.jpg"}
    assert groups(found) == {"data sets": (3, 3 * node.DATA_BYTES // 2)}


@pytest.mark.slow
def test_what_was_shipped_is_no_work_until_it_is_changed_or_has_another_name(tmp_path):
    put(tmp_path, "w/configs/baseline.yaml", b"lr: 1")
    put(tmp_path, "w/labs/01.ipynb", b"lab of an earlier project")
    put(tmp_path, "w/configs/mine.yaml", b"lr: 1")
    record = tmp_path / "shipped"
    shipped = (("configs/baseline.yaml", b"lr: 1"), ("labs/01.ipynb", b"lab of an earlier project"),
               ("labs/01.ipynb", b"the lab as it is now"))  # fmt: skip
    record.write_text("".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in shipped))
    found = listing(tmp_path / "w", record)
    assert list(found.files) == ["configs/mine.yaml"]
    assert groups(found)["as shipped"] == (2, 30)
    put(tmp_path, "w/configs/baseline.yaml", b"lr: 2")
    assert set(listing(tmp_path / "w", record).files) == {"configs/mine.yaml", "configs/baseline.yaml"}


@pytest.mark.slow
def test_the_digest_sees_each_change_of_the_work_and_none_of_what_is_left_out(tmp_path):
    assert listing(tmp_path / "none").digest == work.NONE
    seen = [listing(tmp_path).digest]
    for name in MINE:
        path = put(tmp_path, name)
        seen.append(listing(tmp_path).digest)
        before = path.stat()
        path.write_bytes(b"y")  # as long, and as old
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.append(listing(tmp_path).digest)
    (tmp_path / MINE[0]).unlink()
    seen.append(listing(tmp_path).digest)
    (tmp_path / "link").symlink_to("/elsewhere")
    seen.append(listing(tmp_path).digest)
    assert len(set(seen)) == len(seen)
    sparse(tmp_path, "runs/w.safetensors", node.WEIGHTS_BYTES + 1)
    put(tmp_path, "cache/huggingface/x")
    (tmp_path / "cache/huggingface/y").symlink_to("x")
    os.utime(tmp_path / MINE[1])
    assert listing(tmp_path).digest == seen[-1]


@pytest.mark.slow
def test_links_and_sockets_break_nothing_and_are_said(tmp_path):
    put(tmp_path, "mine.py")
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    found = listing(tmp_path)
    assert list(found.files) == ["mine.py"]
    assert found.links == (("loop", "."), ("out", "/etc/passwd"))
    assert found.others == ("pipe",)
    said = "\n".join(found.lines())
    assert "out -> /etc/passwd" in said
    assert "no files: pipe" in said
    with tarfile.open(fileobj=io.BytesIO(run("archive", tmp_path))) as tar:
        assert tar.getnames() == ["mine.py"]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user to be refused a file")
def test_what_cannot_be_read_is_named_and_the_rest_comes(tmp_path):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others
        folder = Path(name)
        folder.chmod(0o755)
        put(folder, "mine.py").chmod(0o644)
        put(folder, "secret.py").chmod(0)
        put(folder, "closed/own.py")
        (folder / "closed").chmod(0)
        found = work.read(run("list", folder, user=65534, cwd="/").decode())
        assert list(found.files) == ["mine.py"]
        assert [(entry[0], entry[2]) for entry in found.behind] == [
            ("closed/", "cannot be read"), ("secret.py", "cannot be read"),
        ]  # fmt: skip
        assert any("not brought home: closed/" in line for line in found.lines())


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_link_that_takes_a_files_place_is_not_followed(tmp_path, what):
    """Nor is a pipe waited for, while a student's program swaps them between the list and the archive."""
    put(tmp_path, "w/mine.py")
    put(tmp_path, "outside", b"of the node's system")
    found = node.Work(tmp_path / "w", set(), MOST)
    (tmp_path / "w" / "mine.py").unlink()
    if what == "link":
        (tmp_path / "w" / "mine.py").symlink_to(tmp_path / "outside")
    else:
        os.mkfifo(tmp_path / "w" / "mine.py")
    stream = io.BytesIO()
    found.archive(stream)
    assert b"of the node's" not in gzip.decompress(stream.getvalue())


@pytest.mark.slow
def test_what_is_too_large_is_named_and_the_rest_comes(tmp_path):
    put(tmp_path, "mine.py", b"12345")
    put(tmp_path, "results.csv", b"x" * 100)
    found = listing(tmp_path, most=50)
    assert list(found.files) == ["mine.py"]
    assert found.behind == (("results.csv", 100, "too large"),)
    assert found.missing == "results.csv 100 B (too large)"


names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
names = names.filter(lambda raw: raw not in (b".", b".."))
kinds = st.sampled_from(["file", "file", "file", "link", "pipe"])
contents = st.binary(max_size=60)


@pytest.mark.slow
@settings(deadline=None)  # a busy machine makes files slowly
@example({(b"out",): ("link", b""), (b"a\nb\xff",): ("file", b"x")}, 100)
@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.tuples(kinds, contents), max_size=8),
       st.integers(0, 120))  # fmt: skip
def test_every_file_is_in_one_place_and_comes_home_byte_by_byte_whatever_its_name(tree, most):
    with tempfile.TemporaryDirectory() as name:
        made = {}
        for parts, (kind, content) in tree.items():
            path = Path(name, *map(os.fsdecode, parts))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path):
                    continue
            except (FileExistsError, NotADirectoryError):
                continue
            if kind == "link":
                path.symlink_to(os.fsdecode(b"/nowhere\n\xff"))
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.write_bytes(content)
            made[str(path.relative_to(name))] = (kind, content)
        found = node.Work(Path(name), set(), most)
        stream = io.BytesIO()
        found.archive(stream)
        read = work.read(json.dumps(found.listed()))
        there = {name: content for name, (kind, content) in made.items() if kind == "file"}
        left = sum(group.files for group in read.left_out)
        assert len(read.files) + len(read.behind) + left == len(there)
        assert {name for name, _ in read.links} <= {name for name, (kind, _) in made.items() if kind == "link"}
        assert set(read.others) == {name for name, (kind, _) in made.items() if kind == "pipe"}
        assert read.size_bytes <= most
        archive = Path(name) / "archive"
        archive.write_bytes(stream.getvalue())
        assert work.differing(read, archive) == []
        collect.unpack(archive, Path(name) / "home of it")
        for file in read.files:
            assert (Path(name) / "home of it" / file).read_bytes() == there[file]
        assert all(line.isprintable() for line in read.lines())


@pytest.mark.slow
def test_what_changed_or_is_missing_in_the_archive_is_noticed(tmp_path):
    for name in ("same.py", "gone.py", "changed.py"):
        put(tmp_path / "w", name)
    found = listing(tmp_path / "w")
    (tmp_path / "w" / "gone.py").unlink()
    put(tmp_path / "w", "changed.py", b"other")
    archive = tmp_path / "archive"
    archive.write_bytes(run("archive", tmp_path / "w"))
    assert work.differing(found, archive) == ["changed.py", "gone.py"]


def test_a_file_that_shrinks_while_it_is_packed_does_not_end_the_archive():
    assert node.Filled(io.BytesIO(b"ab")).read(4) == b"ab\0\0"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"digest": "../x", "files": [], "behind": [], "links": [], "others": [], "left_out": {}}',
     '{"digest": "a", "files": [["a"]], "behind": [], "links": [], "others": [], "left_out": {}}',
     '{"digest": "a", "files": [], "behind": [], "links": [], "others": [], "left_out": {"a": {}}}'],
)  # fmt: skip
def test_a_list_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(RemoteError, match="list of work cannot be read") as error:
        work.read(text)
    assert "\n" not in str(error.value)


def test_a_machine_without_room_is_told_so_before_anything_is_sent(tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(collect.shutil, "disk_usage", lambda _: free)
    with pytest.raises(UsageError, match="has no room: 220 B are needed for the work, and 100 B are free"):
        collect._check_room(tmp_path, 100)
    collect._check_room(tmp_path, 45)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB")])
def test_bytes_are_said_in_binary_units(count, text):
    assert work.say_bytes(count) == text
