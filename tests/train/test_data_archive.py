"""A data set comes from its address whole or not at all: a real server on the loopback, a real archive of a real data
set, and all that can go wrong between them."""

import dataclasses
import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from address import Address
from PIL import Image

from labkit.cli import main
from labkit.config.datasets import DATASETS
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.train import data_archive
from labkit.train.data import load_samples
from labkit.train.data_archive import bring, check_room, plan, samples_here
from labkit.train.errors import DataError

NAME = "gourmetgram_caption"
SAMPLES = 6
CHILD = """
import dataclasses, sys
from labkit.cli import main
from labkit.config.datasets import DATASETS
DATASETS[{name!r}] = dataclasses.replace(DATASETS[{name!r}], address={url!r})
sys.exit(main(sys.argv[1:]))
"""


def packed(*members):
    """An archive of (name, content) or ready members, below one folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for entry in members:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            name, content = entry
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def saved(folder, **columns):
    """An archive of what ``save_to_disk`` writes, as ``tar`` packs its folder."""
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)}).save_to_disk(folder)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(folder, "gourmetgram")
    return stream.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Noise is what photos are to gzip: it does not shrink."""
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(SAMPLES)]
    texts = [f"dish {i}" for i in range(SAMPLES)]
    return saved(tmp_path_factory.mktemp("saved") / "set", image=images, text=texts)


@pytest.fixture
def address(archive, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(data_archive, "WAIT_S", 0.0)
    with Address(archive) as address:
        monkeypatch.setitem(DATASETS, NAME, dataclasses.replace(DATASETS[NAME], address=address.url))
        yield address


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data folder of a workspace, not made yet."""
    root = tmp_path / "workspace"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "baseline.yaml").write_bytes((Workspace.find().configs / "baseline.yaml").read_bytes())
    monkeypatch.setenv("LABKIT_WORKSPACE", str(root))
    return root / "data"


def fetch(data):
    planned = plan(NAME, data)
    check_room(planned)
    return bring(planned)


def error_of(data):
    with pytest.raises(DataError) as caught:
        fetch(data)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert NAME in text
    return text


def names(data):
    return sorted(path.name for path in data.iterdir()) if data.exists() else []


def parts(data):
    return [path for path in data.iterdir() if path.suffix == ".part"]


# -- it comes, once, and a run reads it


def test_a_data_set_comes_once_and_a_run_reads_it(address, data, archive, capsys):
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # which is about the hub
    assert main(["fetch", "--data", NAME, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    folder = data / NAME
    assert row == {"data": NAME, "folder": str(folder), "samples": SAMPLES, "downloaded_bytes": len(archive)}
    assert names(data) == [NAME]
    config = RunConfig(capacity_gib=1, dataset=NAME, num_train_samples=SAMPLES, batch_size=2)
    samples, _ = load_samples(config, data)
    assert {samples[i][1] for i in range(SAMPLES)} == {f"dish {i}" for i in range(SAMPLES)}
    address.asked.clear()
    assert main(["fetch", "--data"]) == 0
    assert capsys.readouterr().out == f"{NAME} is here: {SAMPLES} samples in {folder}\n"
    assert address.asked == []


def test_the_command_says_what_it_will_download_before_it_does(address, data, capsys):
    assert main(["fetch", "--data"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{NAME}: ")
    assert " to download, " in first
    assert first.endswith(f" free, {data}")
    assert second == f"  {SAMPLES} samples in {data / NAME}"


def test_a_plan_downloads_two_bytes_and_writes_nothing(address, data, archive):
    planned = plan(NAME, data)
    assert (planned.size_bytes, planned.have_bytes, planned.download_bytes) == (len(archive), 0, len(archive))
    assert address.asked == ["0-1"]
    assert not data.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fetch", "--data", "gourmetgram"], f"Did you mean '{NAME}'?"),
        (["fetch", "--data", "fluent_emoji"], "ships with labkit"),
        (["fetch", "Salesforce/blip2-opt-2.7b", "--data"], "does not go with --data"),
    ],
)
def test_what_cannot_be_brought_is_one_line(address, data, capsys, arguments, words):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    assert address.asked == []


# -- connections that end too early


def test_a_connection_that_is_cut_resumes_where_it_was(address, data):
    address.cuts = [1000, 500]
    assert fetch(data) == SAMPLES
    assert address.asked == ["0-1", "0-", "1000-", "1500-"]


def test_tries_have_an_end_and_the_next_call_resumes(address, data, archive):
    address.cuts = [100] * data_archive.TRIES
    text = error_of(data)
    assert "it was cut after" in text
    assert f"labkit fetch --data {NAME}" in text
    have_bytes = 100 * data_archive.TRIES
    (part,) = parts(data)
    assert part.read_bytes() == archive[:have_bytes]
    assert names(data) == [part.name]
    address.asked.clear()
    planned = plan(NAME, data)
    assert planned.download_bytes == len(archive) - have_bytes
    assert bring(planned) == SAMPLES
    assert address.asked == ["0-1", f"{have_bytes}-"]
    assert names(data) == [NAME]


def test_a_part_from_another_place_is_not_written_after_what_is_there(address, data):
    address.shifts = True
    address.cuts = [1000]
    assert fetch(data) == SAMPLES


def test_a_server_without_ranges_sends_all_of_it_again(address, data):
    address.ranges = False
    address.cuts = [1000]
    assert fetch(data) == SAMPLES
    assert address.asked == ["0-1", "0-", "1000-"]


def test_a_server_that_does_not_say_how_much_it_sends_is_read_to_its_end(address, data, capsys):
    address.ranges = address.told = False
    assert main(["fetch", "--data"]) == 0
    assert "an unknown size to download" in capsys.readouterr().out
    assert samples_here(NAME, data) == SAMPLES


def test_the_beginning_of_another_version_is_not_taken_for_this_ones(address, data):
    address.cuts = [1000] * data_archive.TRIES
    error_of(data)
    address.etag = '"two"'
    address.asked.clear()
    assert fetch(data) == SAMPLES
    assert address.asked == ["0-1", "0-"]
    assert names(data) == [NAME]


@pytest.mark.slow
def test_a_fetch_that_was_killed_leaves_its_part_and_nothing_else(address, data, archive):
    address.cuts, address.stalls = [5000], True
    command = [sys.executable, "-c", CHILD.format(name=NAME, url=address.url), "fetch", "--data"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while not (data.exists() and parts(data) and parts(data)[0].stat().st_size == 5000):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert names(data) == [parts(data)[0].name]
    address.stalls = False
    assert plan(NAME, data).download_bytes == len(archive) - 5000
    assert fetch(data) == SAMPLES


def test_what_was_unpacked_when_it_was_killed_is_unpacked_again_and_not_downloaded(address, data, archive):
    planned = plan(NAME, data)
    half = data / f".{NAME}.unpacked"
    half.mkdir(parents=True)
    (half / "dataset_dict.json").write_text("{")
    planned.part.write_bytes(archive)
    assert plan(NAME, data).download_bytes == 0
    address.asked.clear()
    assert fetch(data) == SAMPLES
    assert address.asked == ["0-1"]
    assert names(data) == [NAME]


@pytest.mark.slow
def test_two_at_once_do_not_write_one_part(address, data):
    address.cuts, address.stalls = [5000], True
    command = [sys.executable, "-c", CHILD.format(name=NAME, url=address.url), "fetch", "--data"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while not (data.exists() and parts(data) and parts(data)[0].stat().st_size == 5000):
            assert child.poll() is None
        assert "another labkit" in error_of(data)
        assert parts(data)[0].stat().st_size == 5000
        address.released.set()
        assert child.wait(60) == 0
    assert samples_here(NAME, data) == SAMPLES


# -- what is no archive


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"status": 404}, "moved or removed"),
        ({"status": 403}, "refuses"),
        ({"status": 503}, "later run"),
        ({"kind": "text/html; charset=utf-8", "content": b"<html>sign in</html>"}, "web page"),
        ({"content": b"<html>sign in</html>"}, "no gzip archive"),
        ({"content": b""}, "no gzip archive"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_an_answer_that_is_no_archive_is_said_and_nothing_is_written(address, data, wrong, words, ranges):
    vars(address).update(wrong, ranges=ranges)
    text = error_of(data)
    assert words in text
    assert address.url in text
    assert not data.exists()


def test_a_login_page_in_place_of_the_rest_is_not_written_into_the_part(address, data, archive):
    planned = plan(NAME, data)
    address.kind, address.content, address.ranges = "text/html", b"<html>sign in</html>", False
    with pytest.raises(DataError, match="web page"):
        bring(planned)
    assert planned.part.read_bytes() == b""


def test_an_address_out_of_reach_says_how_to_bring_it_by_hand(address, data, monkeypatch):
    with Address() as gone:
        pass  # its port is free again
    monkeypatch.setitem(DATASETS, NAME, dataclasses.replace(DATASETS[NAME], address=gone.url))
    text = error_of(data)
    assert "out of reach" in text
    assert gone.url in text and f"copy it to {data / NAME}.tar.gz here" in text
    assert text.endswith(f"mkdir {data / NAME} && tar -xzf {data / NAME}.tar.gz --strip-components=1 -C {data / NAME}")
    assert not data.exists()


def removed(data):
    """What is said of an archive that is of no use; nothing of it may be left."""
    text = error_of(data)
    assert "it was removed" in text
    assert f"labkit fetch --data {NAME}" in text
    assert names(data) == []
    return text


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, -6])  # the last is the checksum of all
def test_a_damaged_archive_is_removed(address, data, archive, place):
    at = int(place * len(archive)) if place > 0 else len(archive) + place
    address.content = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
    assert "damaged" in removed(data)
    address.content = archive
    assert fetch(data) == SAMPLES


def test_an_archive_that_ends_in_the_middle_is_removed(address, data, archive):
    address.content = archive[: len(archive) // 2]
    assert "damaged" in removed(data)


def member(name, kind, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "bad",
    [
        ("set/../../outside", b"x"),
        ("set/a/../../../outside", b"x"),
        member("set/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("set/link", tarfile.SYMTYPE, "inside"),
        member("set/link", tarfile.LNKTYPE, "../outside"),
        member("set/pipe", tarfile.FIFOTYPE),
        member("set/device", tarfile.CHRTYPE),
    ],
    ids=lambda bad: "-".join([bad[0]] if isinstance(bad, tuple) else [bad.name, bad.linkname]),
)
def test_an_archive_with_anything_but_its_own_files_is_removed(address, data, bad):
    address.content = packed(bad)
    assert "not safe" in removed(data)
    assert [path.name for path in data.parent.iterdir() if path.name == "outside"] == []


def test_an_absolute_name_stays_inside(address, data):
    target = data.parent / "outside"
    address.content = packed((f"set/{target}", b"x"))
    assert "laid out" in removed(data)
    assert not target.exists()


def test_an_archive_of_too_much_is_refused_before_it_or_removed(address, data, archive, monkeypatch):
    monkeypatch.setattr(data_archive, "MOST_FILES", 3)
    assert "more than 3 files" in removed(data)
    monkeypatch.setattr(data_archive, "MOST_FILES", 100)
    monkeypatch.setattr(data_archive, "MOST_BYTES", 10**6)
    address.content = packed(("set/zeros", bytes(10**6 + 1)))
    assert len(address.content) < 10**4
    assert "more than" in removed(data)
    address.content = packed(("set/zeros", bytes(10**6))) + gzip.compress(bytes(10**6))  # after the tar's end
    assert "no end" in removed(data)
    monkeypatch.setattr(data_archive, "MOST_BYTES", len(address.content) - 1)
    address.asked.clear()
    assert "is not this data set" in error_of(data)
    assert address.asked == ["0-1"]
    address.ranges = address.told = False  # it does not say how much it will send
    assert "gives more than" in removed(data)


IMAGE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda folder: packed(("set/readme.txt", b"hello")), ""),
        (lambda folder: packed(("dataset_dict.json", b"{}")), ""),  # no folder around it
        (lambda folder: saved(folder, image=[IMAGE], caption=["a dish"]), "it lacks ['text']"),
        (lambda folder: saved(folder, image=["a.png"], text=["a dish"]), "holds no image"),
        (lambda folder: saved(folder, image=[], text=[]), "cannot be read"),
    ],
    ids=["text", "flat", "another column", "names of images", "empty"],
)
def test_another_layout_is_removed(address, data, tmp_path, content, words):
    address.content = content(tmp_path / "set")
    text = removed(data)
    assert "not laid out as a run reads it" in text
    assert words in text


# -- the disk


def test_a_disk_without_room_is_said_before_anything_is_written(address, data, archive, monkeypatch):
    need_bytes = 2 * len(archive) + data_archive.SPARE_BYTES
    planned = dataclasses.replace(plan(NAME, data), free_bytes=need_bytes)
    check_room(planned)
    with pytest.raises(DataError, match="make room") as caught:
        check_room(dataclasses.replace(planned, free_bytes=need_bytes - 1))
    assert str(data) in str(caught.value)
    assert not data.exists()


def test_a_disk_that_is_full_while_it_unpacks_keeps_the_archive(address, data, archive, monkeypatch):
    planned = plan(NAME, data)
    with monkeypatch.context() as patch:
        patch.setattr(data_archive.shutil, "disk_usage", lambda path: Full)
        with pytest.raises(DataError, match="is full; make room") as caught:
            bring(planned)
    assert f"labkit fetch --data {NAME}" in str(caught.value)
    assert names(data) == [planned.part.name]
    address.asked.clear()
    assert fetch(data) == SAMPLES
    assert address.asked == ["0-1"]


class Full:
    """What ``shutil.disk_usage`` says of a full disk."""

    free = 0


def test_a_disk_that_is_full_while_it_downloads_keeps_what_came(address, data, archive, monkeypatch):
    planned = plan(NAME, data)

    class FullFile:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, chunk):
            self.file.write(chunk[:1000])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    receive = data_archive._receive
    with monkeypatch.context() as patch:
        patch.setattr(data_archive, "_receive", lambda planned, part: receive(planned, FullFile(part)))
        with pytest.raises(DataError, match="is full; make room"):
            bring(planned)
    assert address.asked == ["0-1", "0-"]  # asking again makes no room
    assert parts(data)[0].stat().st_size == 1000
    assert fetch(data) == SAMPLES


def test_a_data_folder_that_cannot_be_written_is_said(address, data):
    data.write_text("a file, which holds for root too")
    assert "make that folder writable" in error_of(data)


# -- what is in the way


def test_a_folder_that_is_half_there_is_left_and_said(address, data, capsys):
    assert fetch(data) == SAMPLES
    folder = data / NAME
    (arrow,) = folder.glob("train/*.arrow")
    arrow.unlink()
    assert main(["fetch", "--data"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"mv {folder} {folder}.old" in said
    assert (folder / "dataset_dict.json").exists()
    config = RunConfig(capacity_gib=1, dataset=NAME, num_train_samples=SAMPLES, batch_size=2)
    with pytest.raises(DataError, match=f"cannot be read.*'labkit fetch --data {NAME}'"):
        load_samples(config, data)
    folder.rename(f"{folder}.old")
    assert main(["fetch", "--data"]) == 0


def test_an_empty_folder_is_filled_and_a_file_is_in_the_way(address, data):
    (data / NAME).mkdir(parents=True)
    assert samples_here(NAME, data) is None
    assert fetch(data) == SAMPLES
    other = data.parent / "other"
    other.mkdir()
    (other / NAME).write_text("")
    with pytest.raises(DataError, match="in the way: it is not a folder"):
        samples_here(NAME, other)
