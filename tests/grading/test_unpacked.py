"""Submissions that a browser, a system or a student has unpacked or packed again, and what strangers make of such."""

import os
import shutil
import tarfile
import zipfile

import pytest
from students import manifest, packed

from labkit.cli import main
from labkit.grading import unpacked
from labkit.grading.archive import MIB, ArchiveError, read_archive
from labkit.grading.grade import find_archives
from labkit.grading.unpacked import read_submission

RUN = "runs/tiny/baseline batch_size=8/20261121-120000-0000beef"
MEMBERS = {
    "manifest.json": manifest("Ann"),
    "answers.jsonl": b'{"kind": "answer"}\n',
    f"{RUN}/record.json": b"{}",
    "labs/01.ipynb": b"",
}


@pytest.fixture
def archive(tmp_path):
    return packed(tmp_path / "a.tar.gz", *MEMBERS.items())


@pytest.fixture
def folder(tmp_path, archive):
    """What a browser has made of the archive, and what a system has left in it."""
    target = tmp_path / "unpacked" / "submission-ann"
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    for left in (".DS_Store", "labs/.ipynb_checkpoints/01-checkpoint.ipynb", "labs/Thumbs.db", "._manifest.json"):
        (target / left).parent.mkdir(exist_ok=True)
        (target / left).write_bytes(b"?")
    return target


def zipped(path, members=None, packing=zipfile.ZIP_DEFLATED, top=""):
    with zipfile.ZipFile(path, "w", packing) as out:
        for name, data in (members or MEMBERS).items():
            out.writestr(f"{top}{name}", data)
    return path


def test_a_folder_is_what_the_archive_is(folder, archive):
    found = read_submission(folder)
    assert found == read_archive(archive)
    assert found.faults == {"labs/01.ipynb": "it is empty"}


@pytest.mark.parametrize("top", ["", "submission-ann/"])
def test_a_zip_of_it_is_too_with_its_folder_or_without(top, archive, tmp_path):
    path = zipped(tmp_path / "a.zip", MEMBERS, top=top)
    with zipfile.ZipFile(path, "a") as more:
        more.writestr(f"__MACOSX/{top}._manifest.json", b"?")
        more.writestr(f"{top}labs/.DS_Store", b"?")
    assert read_submission(path) == read_archive(archive)
    assert read_submission(archive) == read_archive(archive)


@pytest.mark.slow
def test_a_class_hands_in_all_forms(student, handed, tmp_path, capsys):
    ledger = student()
    one = handed(ledger, "Ann")
    with tarfile.open(handed(student(), "Bob")) as tar:
        tar.extractall(one.parent / "bob", filter="data")
        members = {member.name: tar.extractfile(member).read() for member in tar}
    (one.parent / "Bob.tar.gz").unlink()
    cy = {**members, "manifest.json": members["manifest.json"].replace(b'"Bob"', b'"Cy"')}
    zipped(one.parent / "cy.zip", cy)
    found, others = find_archives(one.parent)
    assert ([path.name for path in found], others) == (["Ann.tar.gz", "cy.zip", "bob"], [])
    assert main(["grade", str(one.parent)]) == 0
    out = capsys.readouterr().out
    assert "3 students" in out and all(name in out for name in ("Ann", "Bob", "Cy"))


HOSTILE = {
    "a way out": {"../answers.jsonl": b""},
    "a path from the root": {"/etc/passwd": b""},
    "a backslash": {"labs\\..\\x.ipynb": b""},
    "another file": {"labs/x.py": b""},
    "another folder": {"elsewhere/manifest.json": b"{}", "deep/er/manifest.json": b"{}"},
    "too large": {"labs/a.ipynb": b"\0" * (16 * MIB + 1)},
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_belong_into_a_zip_is_refused_on_one_line(members, tmp_path):
    path = zipped(tmp_path / "a.zip", MEMBERS | members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError) as caught:
        read_submission(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_in_a_zip_twice_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as more:
        more.writestr("answers.jsonl", b"others")
    with pytest.raises(ArchiveError, match="in it twice"):
        read_submission(path)


def test_a_size_that_a_zip_does_not_tell_is_not_believed(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", MEMBERS | {"answers.jsonl": b"x" * 1000})
    monkeypatch.setattr(unpacked, "most_bytes", lambda name: 600)
    real = unpacked.check_member

    def small(name, size_bytes):
        if size_bytes != 1000:  # as if it had announced less
            real(name, size_bytes)
        if size_bytes == 601:
            raise ArchiveError("more came than was announced")

    monkeypatch.setattr(unpacked, "check_member", small)
    with pytest.raises(ArchiveError, match="more came"):
        read_submission(path)


def test_sums_and_numbers_of_members_have_an_end(tmp_path, folder, monkeypatch):
    path = zipped(tmp_path / "a.zip")
    monkeypatch.setattr(unpacked, "MEMBERS", 2)
    for source in (path, folder):
        with pytest.raises(ArchiveError, match="more than 2 members"):
            read_submission(source)
    monkeypatch.setattr(unpacked, "MEMBERS", 100)
    monkeypatch.setattr(unpacked, "TOTAL_BYTES", 10)
    for source in (path, folder):
        with pytest.raises(ArchiveError, match="MiB that it may have"):
            read_submission(source)


def test_links_pipes_and_encryption_are_refused(tmp_path, folder, archive):
    link = zipfile.ZipInfo("answers.jsonl")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as out:
        out.writestr("manifest.json", manifest())
        out.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="is a link"):
        read_submission(tmp_path / "link.zip")
    data = bytearray(zipped(tmp_path / "secret.zip", packing=zipfile.ZIP_STORED).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        read_submission(tmp_path / "secret.zip")
    with pytest.raises(ArchiveError, match="packed in a way"):
        read_submission(zipped(tmp_path / "lzma.zip", packing=zipfile.ZIP_LZMA))
    (folder / "answers.jsonl").unlink()
    (folder / "answers.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveError, match="it is a link"):
        read_submission(folder)
    (folder / "answers.jsonl").unlink()
    os.mkfifo(folder / "answers.jsonl")
    with pytest.raises(ArchiveError, match="not a file"):
        read_submission(folder)
    (tmp_path / "there").symlink_to(folder)
    with pytest.raises(ArchiveError):
        read_submission(tmp_path / "there")


def test_a_zip_of_archives_says_what_to_do(tmp_path, archive):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as out:
        out.write(archive, "ann/a.tar.gz")
    with pytest.raises(ArchiveError, match="unpack it, and grade the folder"):
        read_submission(tmp_path / "all.zip")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"text", os.urandom(3000)])
def test_what_is_no_zip_is_refused(data, tmp_path):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged, or no .zip"):
        read_submission(tmp_path / "a.zip")


def test_a_zip_that_is_cut_or_changed_is_refused_or_differs(tmp_path, archive):
    whole = zipped(tmp_path / "a.zip").read_bytes()
    expected = read_archive(archive)
    for cut in range(0, len(whole), 7):
        (tmp_path / "a.zip").write_bytes(whole[:cut])
        with pytest.raises(ArchiveError):
            read_submission(tmp_path / "a.zip")
    for place in range(0, len(whole), 5):
        (tmp_path / "a.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = read_submission(tmp_path / "a.zip")
        except ArchiveError:
            continue
        assert found.texts == expected.texts or found.sha256 != expected.sha256


def test_a_folder_without_a_manifest_is_no_submission(folder, tmp_path):
    (folder / "manifest.json").unlink()
    with pytest.raises(ArchiveError, match="has no manifest.json"):
        read_submission(folder)
    shutil.rmtree(folder)
