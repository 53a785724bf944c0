"""Where the ranks of a launch meet: each word of rank 0 is taken once by each of the others, and none of old times."""

import fcntl

import pytest

from labkit.ledger.run_folder import RunFolder
from labkit.runs.ranks.meeting import Meeting


@pytest.fixture
def watched(tmp_path):
    """A run's folder that somebody watches."""
    folder = RunFolder(tmp_path / "tiny" / "reduced_batch" / "x")
    folder.path.mkdir(parents=True)
    with (folder.path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture
def meeting(tmp_path):
    return Meeting(tmp_path / ".launched" / "name")


def test_each_word_is_taken_once_by_each_rank(meeting, watched):
    assert meeting.take_word(1) is None
    meeting.leave_word(watched, None)
    word = meeting.take_word(1)
    assert (word.run.path, word.saved) == (watched.path, None)
    assert meeting.take_word(1) is None
    assert not meeting.have_come(3)
    assert meeting.take_word(2).mark == word.mark
    assert meeting.have_come(3)


def test_a_run_that_goes_on_is_a_new_word(meeting, watched):
    meeting.leave_word(watched, None)
    first = meeting.take_word(1)
    saved = watched.path / "checkpoints" / "step-000002"
    meeting.leave_word(watched, saved)
    assert not meeting.have_come(2)
    again = meeting.take_word(1)
    assert (again.run.path, again.saved) == (watched.path, saved)
    assert again.mark != first.mark


def test_a_word_on_a_run_that_nobody_watches_is_an_old_one(meeting, watched):
    folder = RunFolder(watched.path.with_name("y"))
    folder.path.mkdir()
    meeting.leave_word(folder, None)
    assert meeting.take_word(1) is None


def test_a_word_that_changes_while_it_is_read_is_an_old_one(meeting, watched, monkeypatch):
    """A rank has read the word of an earlier launch, and looks who watches the run when the next goes on with it."""
    meeting.leave_word(watched, None)

    def goes_on_meanwhile(folder: RunFolder) -> bool:
        meeting.open()
        return True

    monkeypatch.setattr(RunFolder, "is_watched", property(goes_on_meanwhile))
    assert meeting.take_word(1) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1, "saved": null, "mark": "x"}'])
def test_a_damaged_word_is_none(meeting, watched, text):
    meeting.leave_word(watched, None)
    meeting._word.write_text(text)
    assert meeting.take_word(1) is None
