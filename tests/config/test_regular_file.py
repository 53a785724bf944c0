"""Regular files: anything else is refused by name and at once, and a long one is not read."""

import os
import socket
from pathlib import Path

import pytest

from labkit.config.regular_file import open_regular, read_regular


def test_a_file_is_read_up_to_what_it_may_have(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345678")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_regular(file, 8) == read_regular(link, 100) == b"12345678"
    with pytest.raises(ValueError, match="file has over 7 bytes"):
        read_regular(file, 7)
    with open_regular(file) as opened:
        assert opened.read(3) == b"123"


def test_a_large_file_costs_nothing(tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(2**41)
    with pytest.raises(ValueError, match="over 1 MiB"):
        read_regular(file, 2**20)


@pytest.fixture
def others(tmp_path, monkeypatch):
    """What is not a regular file, by how it is called."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # a socket's name may not be long
        listener.bind("socket")
        yield tmp_path


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_file_is_called_what_it_is(others, kind):
    for call in (lambda path: read_regular(path, 100), open_regular):
        with pytest.raises(ValueError, match=f"{kind} is a {kind}, where a regular file"):
            call(others / kind)


def test_a_pipe_that_takes_a_files_place_is_seen(others, monkeypatch):
    (others / "file").touch()
    before = (others / "file").stat()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda path: before)
        with pytest.raises(ValueError, match="pipe is a pipe"):
            open_regular(others / "pipe")


def test_what_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing", 100)
