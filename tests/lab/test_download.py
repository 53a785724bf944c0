"""Download: a link that the server answers where it can, and one that holds the file where it cannot."""

import base64

import pytest

from labkit.lab import download


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_FILES", "/user/a b/files")
    monkeypatch.setenv("LABKIT_FILES_ROOT", str(tmp_path / "root"))
    (tmp_path / "root" / "work space").mkdir(parents=True)
    return tmp_path / "root"


def archive(folder, name="submission-<Ann>&#?.tar.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"packed")
    return folder / name


def test_below_the_servers_root_the_server_gives_it(root):
    shown = download.link(archive(root / "work space"))
    assert 'href="/user/a b/files/work%20space/submission-%3CAnn%3E%26%23%3F.tar.gz?download=1"' in shown
    assert 'download="submission-&lt;Ann&gt;&amp;#?.tar.gz"' in shown and "<Ann>" not in shown


@pytest.mark.parametrize("place", ["../beside", ".hidden", "a/.local/share", "linked"])
def test_what_the_server_does_not_give_is_in_the_link(root, place):
    (root.parent / "elsewhere").mkdir()
    (root / "linked").symlink_to(root.parent / "elsewhere")
    shown = download.link(archive(root / place))
    assert f"data:application/gzip;base64,{base64.b64encode(b'packed').decode()}" in shown


def test_without_a_server_it_is_in_the_link(root, monkeypatch):
    monkeypatch.delenv("LABKIT_FILES")
    assert "data:application/gzip" in download.link(archive(root))


def test_a_large_one_has_no_link_where_the_server_does_not_give_it(root, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_BYTES", 5)
    assert "/files/" in download.link(archive(root))
    assert download.link(archive(root.parent)) == ""
