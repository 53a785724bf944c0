"""Class lists, and doing the same for all of a class."""

import threading
import time

import pytest

from provisioning.errors import QuotaError, UsageError
from provisioning.many import for_each, summary
from provisioning.roster import Student, read_class

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ann@laptop"


def test_a_class_list_with_all_that_may_be_in_it(tmp_path):
    path = tmp_path / "class.csv"
    path.write_text(f"\ufeffnetid, node, public_key\nann, compute_gigaio, {KEY}\n\nben,,\n", encoding="utf-8")
    assert read_class(path, "g1.h100.pci.1") == [Student("ann", "compute_gigaio", KEY), Student("ben", "g1.h100.pci.1")]
    path.write_text("netid\nann\n")
    assert read_class(path, "g1.h100.pci.1") == [Student("ann", "g1.h100.pci.1")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,node\nann,x\n", "must start with the line 'netid,node,public_key'"),
        ("netid,gpu\nann,x\n", "must start with the line"),
        ("", "must start with the line"),
        ("netid,node\n", "has no students"),
        ("netid,node\nann,x\nann,y\n", "has ann more than once"),
        ("netid,node\n,x\n", "line 2: there is no netid"),
        ("netid,node\nann,\n", "line 2: ann has no node"),
        ("netid,node,public_key\nann,x,-----BEGIN OPENSSH PRIVATE KEY-----\n", "public_key of ann is none"),
        ("netid,node\nann,x,extra,columns\n", "is not a CSV file"),
    ],
)
def test_a_class_list_that_cannot_be_used_is_said_with_the_line(tmp_path, text, says):
    path = tmp_path / "class.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as error:
        read_class(path, None)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="none.csv cannot be read"):
        read_class(tmp_path / "none.csv", "x")
    (tmp_path / "class.csv").write_bytes(b"netid\n\xff\xfe\n")
    with pytest.raises(UsageError, match="Save it as CSV in UTF-8"):
        read_class(tmp_path / "class.csv", "x")


def test_a_few_at_a_time_and_one_failure_stops_no_other():
    running, most, lock = 0, 0, threading.Lock()

    def act(student, stop):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        if student.netid == "s3":
            raise QuotaError("over the project's quota.")
        return "well"

    students = [Student(f"s{i}", "node") for i in range(7)]
    said = []
    outcomes = for_each(students, act, 2, said.append)
    assert most == 2
    assert [outcome.student for outcome in outcomes] == students
    assert [outcome.ok for outcome in outcomes] == [i != 3 for i in range(7)]
    assert len(said) == 7
    assert summary(outcomes) == "6 of 7 ok\n  s3: QuotaError: over the project's quota."
    assert any(line.startswith("FAILED s3  QuotaError") for line in said)


def test_what_is_no_error_of_ours_is_not_hidden():
    def act(student, stop):
        raise KeyError("a mistake of the program")

    with pytest.raises(KeyError):
        for_each([Student("ann", "x")], act, 1, print)


def test_ctrl_c_tells_those_that_go_on_and_begins_no_other():
    begun, stopped = [], []

    def act(student, stop):
        begun.append(student.netid)
        stopped.append(stop.wait(10) if student.netid == "s1" else False)
        return "well"

    def interrupt(line):
        raise KeyboardInterrupt

    students = [Student(f"s{i}", "node") for i in range(8)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for_each(students, act, 2, interrupt)
    assert time.monotonic() - started < 9
    assert True in stopped or "s1" not in begun
