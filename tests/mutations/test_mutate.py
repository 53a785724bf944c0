"""What is made of tests on a copy: they pass, they fail, they cannot be read, or they come to no end."""

import mutate
import pytest

pytestmark = pytest.mark.slow

BODIES = {
    "they pass": ("def test_it(): pass\n", "", ""),
    "one fails": ("def test_it(): assert False\n", "test_copy.py::test_it", ""),
    "they cannot be read": ("def test_it(:\n", "", "pytest ended with exit code "),
}


@pytest.mark.parametrize(("body", "noticed", "problem"), BODIES.values(), ids=BODIES)
def test_what_tests_say(tmp_path, monkeypatch, body, noticed, problem):
    monkeypatch.setattr(mutate, "PLUGINS", ("-p", "no:cacheprovider"))
    copy = tmp_path / "0"
    copy.mkdir()
    (copy / "test_copy.py").write_text(body)
    outcome = mutate.run_tests(copy, ["test_copy.py::test_it"])
    assert (outcome.noticed, outcome.in_time) == (noticed, True)
    assert outcome.problem.startswith(problem) and bool(outcome.problem) == bool(problem)


def test_tests_that_come_to_no_end_are_killed_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, "PLUGINS", ("-p", "no:cacheprovider"))
    copy = tmp_path / "0"
    copy.mkdir()
    (copy / "test_copy.py").write_text("import time\ndef test_it(): time.sleep(600)\n")
    outcome = mutate.run_tests(copy, ["test_copy.py::test_it"], bound_s=3)
    assert (outcome.noticed, outcome.in_time, outcome.problem) == ("", False, "no end within 3 s")
