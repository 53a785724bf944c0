"""The picture of the rooms in docs is the one that its script draws."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import test_rooms as table
from support.scripts import loaded

SCRIPT = Path(__file__).parents[1] / "docs" / "rooms.py"


@pytest.fixture(scope="module")
def rooms():
    return loaded(SCRIPT)


@pytest.mark.slow
def test_the_committed_picture_is_the_scripts(rooms):
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), "labkit has changed: python docs/rooms.py"


@pytest.mark.slow
def test_it_shows_every_folder_of_labkit_and_no_room_below_one_that_it_may_import(rooms):
    folders = {path.name for path in table.LABKIT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    shown = rooms.in_order()
    assert set(shown) >= folders
    for place, room in enumerate(shown):
        assert not table.MAY_IMPORT[room] & set(shown[place:])
    words = "".join(ElementTree.fromstring(rooms.draw()).itertext())
    assert [room for room in shown if room not in words] == []


@pytest.mark.slow
def test_its_arrows_are_the_imports(rooms):
    arrows = rooms.importing()
    assert ("train", "config") in arrows
    assert ("config", "train") not in arrows
    assert all(other in table.MAY_IMPORT[room] for room, other in arrows if room != other)


def test_the_lines_are_those_of_the_files(rooms):
    found = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in table.MODULES)
    assert sum(rooms.lines().values()) == pytest.approx(found, abs=rooms.ROUNDED_TO / 2 * len(rooms.lines()))
