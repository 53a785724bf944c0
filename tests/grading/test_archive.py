"""Archives: what was written is read again, and what a stranger sends is refused on one line, without a trace."""

import gzip
import json
import os
import pickle
import random
import socket
import tarfile
import tracemalloc

import pytest
from students import manifest, member, packed

from labkit.grading import archive
from labkit.grading.archive import ArchiveError, read_archive, read_json, write_archive

RUN = "runs/tiny/baseline/20261121-120000-0000beef"
MIB = 2**20
NOTEBOOK = b'{"cells": [{"cell_type": "code", "source": ["1"], "outputs": []}], "nbformat": 4}'


class Trap:
    """Says where it was opened, if ever."""

    def __reduce__(self):
        return os.system, ("touch opened-pickle",)


def written(path, name="Ann", **members):
    members = {key.replace("__", "/").replace("_json", ".json"): data for key, data in members.items()}
    with path.open("wb") as file:
        write_archive(file, name, {f"{RUN}/{key}": data for key, data in members.items()}, [])
    return path


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "a.tar.gz"
    members = {f"{RUN}/config.json": b"{}", "labs/00_setup.ipynb": NOTEBOOK, "answers.jsonl": b""}
    with path.open("wb") as file:
        write_archive(file, "Zoë  Müller", members, ["labs/x.ipynb: it is a link"])
    found = read_archive(path)
    assert found.name == "Zoë Müller"
    assert found.texts == {f"{RUN}/config.json": b"{}", "answers.jsonl": b""}
    assert found.sha256 == found.listed and set(found.sha256) == set(members)
    assert found.notebooks == ["labs/00_setup.ipynb"]
    assert found.left_out == ["labs/x.ipynb: it is a link"]


def test_a_browser_that_takes_the_gz_away_leaves_what_is_read_the_same(tmp_path):
    packed_path, plain = tmp_path / "a.tar.gz", tmp_path / "a.tar"
    packed(packed_path, ("manifest.json", manifest("Ann")), ("answers.jsonl", b'{"kind": "answer"}\n'))
    whole = gzip.decompress(packed_path.read_bytes())
    plain.write_bytes(whole)
    assert read_archive(plain) == read_archive(packed_path)
    plain.write_bytes(whole[:900])
    with pytest.raises(ArchiveError, match="cut off"):
        read_archive(plain)
    plain.write_bytes(whole + b"more")
    with pytest.raises(ArchiveError, match="something lies after its end"):
        read_archive(plain)
    plain.write_bytes(packed_path.read_bytes())
    with pytest.raises(ArchiveError):
        read_archive(plain)


def test_tar_reads_it_too(tmp_path):
    with tarfile.open(written(tmp_path / "a.tar.gz", config_json=b"{}")) as tar:
        assert tar.getnames() == ["manifest.json", f"{RUN}/config.json"]


HOSTILE = {
    "out of the folder": [("../outside.json", b"x")],
    "out of the folder, below runs": [("runs/tiny/../../../record.json", b"x")],
    "absolute": [("/etc/cron.d/record.json", b"x")],
    "backslashes": [("runs\\..\\record.json", b"x")],
    "a link": [(member("answers.jsonl", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "a hard link": [(member("answers.jsonl", tarfile.LNKTYPE, "../../outside"), b"")],
    "a device": [(member("answers.jsonl", tarfile.CHRTYPE), b"")],
    "a pipe": [(member("answers.jsonl", tarfile.FIFOTYPE), b"")],
    "a folder": [(member("runs", tarfile.DIRTYPE), b"")],
    "a sparse file": [(member("answers.jsonl", tarfile.GNUTYPE_SPARSE), b"")],
    "a long name": [(f"runs/tiny/{'b' * 300}/{'i' * 300}/record.json", b"{}")],
    "weights": [(f"{RUN}/model.safetensors", b"x")],
    "a pickle": [(f"{RUN}/record.pkl", pickle.dumps(Trap()))],
    "a script": [("labs/run.py", b"import os")],
    "a name that begins with a dash": [("labs/-rf.ipynb", b"{}")],
    "a hidden name": [("labs/.ipynb_checkpoints.ipynb", b"{}")],
    "an escape in a name": [("labs/\x1b[2Jx.ipynb", b"{}")],
    "a name read from right to left": [("labs/\u202egnp.ipynb", b"{}")],
    "twice the same": [("answers.jsonl", b"1"), ("answers.jsonl", b"2")],
    "two manifests": [("manifest.json", manifest("Bob"))],
    "a huge member": [("answers.jsonl", b"{}\n" * 3 * MIB)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_belong_is_refused_on_one_line_and_nothing_is_written(members, tmp_path, monkeypatch):
    inside = tmp_path / "in" / "here"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    path = packed(tmp_path / "a.tar.gz", ("manifest.json", manifest()), *members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError) as error:
        read_archive(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    header = member("labs/x\udcff.ipynb")
    data = header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(data + b"\0" * 1024))
    with pytest.raises(ArchiveError, match="not UTF-8"):
        read_archive(path)


def bomb(path, count):
    with gzip.open(path, "wb", 6) as out:
        head = member("labs/a.ipynb", size=16 * MIB).tobuf(tarfile.USTAR_FORMAT)
        out.write(head)
        for _ in range(count):
            out.write(b"\0" * MIB)
    return path


@pytest.mark.slow
def test_a_bomb_is_stopped_by_what_it_unpacks_to_and_costs_little_memory(tmp_path):
    path = bomb(tmp_path / "a.tar.gz", 150)
    assert path.stat().st_size < 2 * MIB
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="unpacks to more than|above"):
        read_archive(path)
    assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    tracemalloc.stop()


def test_many_members_that_are_small_each_are_stopped_by_their_sum_and_number(tmp_path, monkeypatch):
    noise = os.urandom(MIB)
    members = [("manifest.json", manifest()), *((f"labs/n{number}.ipynb", noise) for number in range(4))]
    path = packed(tmp_path / "a.tar.gz", *members)
    read_archive(path)
    monkeypatch.setattr(archive, "MEMBERS", 4)
    with pytest.raises(ArchiveError, match="more than 4 members"):
        read_archive(path)
    monkeypatch.setattr(archive, "TOTAL_BYTES", 3 * MIB)
    with pytest.raises(ArchiveError, match="unpacks to more than 3 MiB"):
        read_archive(path)
    monkeypatch.setattr(archive, "LARGEST_BYTES", 2 * MIB)
    with pytest.raises(ArchiveError, match="has 4 MiB, above the 2"):
        read_archive(path)


def test_a_member_above_its_own_limit_is_refused_whatever_it_packs_to(tmp_path):
    noise = os.urandom(4 * MIB + 1)  # no bomb, and far below what all members may have
    with pytest.raises(ArchiveError, match=r"answers.jsonl has 4194305 bytes, above the 4194304 it may have"):
        read_archive(packed(tmp_path / "a.tar.gz", ("manifest.json", manifest()), ("answers.jsonl", noise)))


def test_a_header_that_announces_more_than_there_is_costs_nothing(tmp_path):
    data = member("labs/a.ipynb", size=16 * MIB).tobuf(tarfile.USTAR_FORMAT) + b"x" * 100
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ArchiveError, match="cut off in labs/a.ipynb"):
        read_archive(tmp_path / "a.tar.gz")


def test_a_long_header_is_refused_before_it_is_read(tmp_path):
    """A pax header may announce gigabytes, which Python's tarfile reads into memory."""
    data = member("labs/a.ipynb", tarfile.XHDTYPE, size=8 * 2**30 - 1).tobuf(tarfile.USTAR_FORMAT) + b"x" * 100
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ArchiveError, match="not a plain file"):
        read_archive(tmp_path / "a.tar.gz")


def test_an_archive_cut_anywhere_is_told_from_a_whole_one(tmp_path):
    data = written(tmp_path / "a.tar.gz", config_json=os.urandom(3000), record_json=b"{}" * 500).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for size in [0, 1, 10, *range(20, len(data), 97), len(data) - 8, len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(ArchiveError):
            read_archive(cut)
    cut.write_bytes(data[: len(data) - 400])
    with pytest.raises(ArchiveError, match="of 2 members have come; hand in again"):
        read_archive(cut)


def test_one_changed_byte_is_noticed_wherever_it_is(tmp_path):
    path = written(tmp_path / "a.tar.gz", config_json=random.Random(1).randbytes(2000))
    data = path.read_bytes()
    # after the header of gzip, and but for the last byte of the stream, which may have bits that say nothing
    for at in [*range(10, len(data) - 9, 53), *range(len(data) - 8, len(data))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(ArchiveError):
            read_archive(path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (b"more", "after its end"),
        (gzip.compress(b"\0" * 1024), "after its end"),
    ],
    ids=["bytes", "another stream"],
)
def test_nothing_may_lie_after_the_end(tmp_path, more, says):
    path = written(tmp_path / "a.tar.gz", config_json=b"{}")
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(ArchiveError, match=says):
        read_archive(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x1f\x8b", b"text", pickle.dumps(Trap()), os.urandom(5000)])
def test_what_is_no_archive_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(ArchiveError):
        read_archive(tmp_path / "a.tar.gz")
    assert not (tmp_path / "opened-pickle").exists()


def test_links_pipes_and_sockets_in_the_place_of_an_archive_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name may not be long
    good = written(tmp_path / "good.tar.gz", config_json=b"{}")
    (tmp_path / "link.tar.gz").symlink_to(good)
    os.mkfifo(tmp_path / "pipe.tar.gz")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock.tar.gz")
        for name in ("link", "pipe", "sock", "missing"):
            with pytest.raises(ArchiveError):
                read_archive(tmp_path / f"{name}.tar.gz")
    with pytest.raises(ArchiveError):
        read_archive(tmp_path)


BAD_MANIFESTS = {
    "no JSON": b"{",
    "a list": b"[]",
    "nothing": b"{}",
    "another format": manifest(format=2),
    "no name": manifest(name=""),
    "a number for a name": manifest(name=1),
    "an escape in the name": manifest(name="\x1b]0;hi\x07"),
    "half a character in the name": manifest(name="\ud800"),
    "a long name": manifest(name="n" * 61),
    "no time": manifest(created="yesterday"),
    "a time before time": manifest(created="0001-01-01T00:00:00+23:59"),
    "a number for a digest": manifest(members={"answers.jsonl": 1}),
    "a list of members": manifest(members=[1]),
    "a deep one": b"[" * 100_000,
    "a large number": b'{"format": ' + b"9" * 5000 + b"}",
    "no number": b'{"format": NaN}',
    "UTF-16": manifest().decode().encode("utf-16"),
}


@pytest.mark.parametrize("data", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, data):
    with pytest.raises(ArchiveError) as error:
        read_archive(packed(tmp_path / "a.tar.gz", ("manifest.json", data)))
    assert str(error.value).isprintable() and len(str(error.value)) < 2200


def test_an_archive_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="no manifest.json"):
        read_archive(packed(tmp_path / "a.tar.gz", ("answers.jsonl", b"")))


def test_a_name_is_written_one_way_however_it_was_typed():
    assert archive.read_name(" Ｚｏｅ\u0308\tM ") == "Zoë M"
    for bad in ("", " ", "\x00", "a" * 61, "a\u202eb"):
        with pytest.raises(ArchiveError, match="--name="):
            archive.read_name(bad)


@pytest.mark.parametrize("data", [b"[" * 10**5, b"9" * 10, b'{"a": ' + b"1" * 400 + b"}", b"[Infinity]", b"\xff", b""])
def test_json_that_no_labkit_writes_is_refused_or_plain(data):
    try:
        assert read_json(data) == 9999999999
    except ValueError as error:
        assert str(error)


def test_what_json_may_hold_it_holds():
    data = {"a": [1, 2.5, None, True, 10**20, "ü\n", 1e-300], "b": {"c": "1" * 100}}
    assert read_json(json.dumps(data).encode()) == data
