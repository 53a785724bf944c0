"""Where the ranks of a launch meet: each message of rank 0 is taken once by each of the others, and none of old
times."""

import pytest

from labkit.ledger.run_folder import RunFolder
from labkit.runs.ranks.rendezvous import Rendezvous


@pytest.fixture
def rendezvous(tmp_path):
    return Rendezvous(tmp_path / ".launched" / "name")


def test_each_message_is_taken_once_by_each_rank(rendezvous, watched):
    assert rendezvous.take_message(1) is None
    rendezvous.leave_message(watched, None)
    message = rendezvous.take_message(1)
    assert (message.run.path, message.saved) == (watched.path, None)
    assert rendezvous.take_message(1) is None
    assert not rendezvous.have_arrived(3)
    assert rendezvous.take_message(2).mark == message.mark
    assert rendezvous.have_arrived(3)


def test_a_run_that_resumes_leaves_a_new_message(rendezvous, watched):
    rendezvous.leave_message(watched, None)
    first = rendezvous.take_message(1)
    saved = watched.path / "checkpoints" / "step-000002"
    rendezvous.leave_message(watched, saved)
    assert not rendezvous.have_arrived(2)
    again = rendezvous.take_message(1)
    assert (again.run.path, again.saved) == (watched.path, saved)
    assert again.mark != first.mark


def test_a_message_on_a_run_that_no_one_watches_is_an_old_one(rendezvous, watched):
    folder = RunFolder(watched.path.with_name("y"))
    folder.path.mkdir()
    rendezvous.leave_message(folder, None)
    assert rendezvous.take_message(1) is None


def test_a_message_that_changes_while_it_is_read_is_an_old_one(rendezvous, watched, monkeypatch):
    """A rank has read the message of an earlier launch, and looks who watches the run when the next resumes it."""
    rendezvous.leave_message(watched, None)

    def resumed_meanwhile(folder: RunFolder) -> bool:
        rendezvous.open()
        return True

    monkeypatch.setattr(RunFolder, "is_watched", property(resumed_meanwhile))
    assert rendezvous.take_message(1) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1, "saved": null, "mark": "x"}'])
def test_a_damaged_message_is_none(rendezvous, watched, text):
    rendezvous.leave_message(watched, None)
    rendezvous._message.write_text(text)
    assert rendezvous.take_message(1) is None
