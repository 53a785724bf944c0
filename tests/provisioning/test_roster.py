"""Class lists, and doing the same for all of a class."""

import csv
import threading
import time
from types import SimpleNamespace

import pytest

from provisioning import access, steps
from provisioning.errors import QuotaError, UsageError
from provisioning.many import for_each, summary
from provisioning.roster import Student, read_class, read_netids

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
        ("name,node\nann,x\n", "must start with the line 'netid,node,public_key,start,length'"),
        ("netid,gpu\nann,x\n", "must start with the line"),
        ("netid;node\nann;x\n", "with commas; all but netid may be missing. It has 'netid;node'"),
        ("NetID,node\nann,x\n", "in small letters with commas; all but netid may be missing. It has 'NetID,node'"),
        ("", "must start with the line"),
        ("netid,node\n", "has no students"),
        ("netid,node\nann,x\nann,y\n", "has ann more than once"),
        ("netid,node\n,x\n", "line 2: there is no netid"),
        ("netid,node\nann,\n", "line 2: ann has no node"),
        ("netid,node,public_key\nann,x,-----BEGIN OPENSSH PRIVATE KEY-----\n", "public_key of ann is a private key"),
        ("netid,node\nann,x\n\nANN ,y\n", r"has ann more than once .line 2, line 4"),
        ("netid,node\nann,x\n../x,y\n", r"line 3: netID '../x' cannot be used"),
        ("netid,node\nAnn,x\n", "line 2: netID 'Ann' cannot be used: small letters"),
        ("netid,node\na b,x\n", "line 2: netID 'a b' cannot be used"),
        ("netid,node\n" + "a" * 300 + ",x\n", "line 2: netID 'a{40}[.]{3}' cannot be used"),
        ("netid,node\na\x1b[2J,x\n", r"line 2: netID 'a[?]\[2J' cannot be used"),
        ("netid,node,start\nann,x,noon\n", "line 2: start 'noon' is not a time"),
        ("netid,node,start\nann,x,\nben,x,9999-12-31T23:59-12:00\n", "line 3: start '9999-12-31T23:59-12:00' is no"),
        ("netid,node,length\nann,x,3\n", "line 2: '3' is not a length"),
        ("netid,node\nann,x,extra,columns\n", "is not a CSV file"),
    ],
)
def test_a_class_list_that_cannot_be_used_is_said_with_the_line(tmp_path, text, says):
    path = tmp_path / "class.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as error:
        read_class(path, None)
    assert "\n" not in str(error.value)


TWO = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (f"{KEY}\n{TWO} eve", "has 2 lines, and a key has one"),
        (f"{KEY}\r{TWO}", "has 2 lines"),
        (f"{KEY}\u2028{TWO}", "has 2 lines"),
        (f"{KEY} {TWO}", "has two keys"),
        (f"{TWO} AAAAC3NzaC1lZDI1NTE5AAAA", "has two keys"),
        (f'command="rm -rf ~" {KEY}', "has options before the key"),
        (f'no-pty,permitopen="x:1" {KEY}', "has options before the key"),
        (f"cert-authority {KEY}", "has options before the key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n", "is a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "is a private key"),
        ("ssh-ed25519", "is not a public key: what follows ssh-ed25519 is not such a key"),
        ("ssh-ed25519 bm90IGEga2V5", "is not a public key: what follows"),
        ("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "is not a public key: what follows ssh-rsa"),
        ("ssh-ed25519 AAAA!", "is not a public key: what follows"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "is not a public key"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "is not a public key"),
        (f"{KEY}\x1b[2J", "characters that cannot be printed"),
        (f"{KEY} {'x' * 9000}", "or too many"),
    ],
)
def test_anything_but_one_public_key_is_refused_by_name(tmp_path, key, says):
    path = tmp_path / "class.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["netid", "node", "public_key"], ["ann", "x", key]])
    with pytest.raises(UsageError, match=says) as error:
        read_class(path, None)
    assert "public_key of ann" in str(error.value) and "\n" not in str(error.value)
    asked = SimpleNamespace()
    for ask in (lambda: steps.up(asked, also=key), lambda: access.ensure(asked, key)):
        with pytest.raises(UsageError, match=says):  # before a service is asked: this booking has none
            ask()


def test_netids_that_are_typed_are_looked_at_before_the_first_node_is_made():
    assert [student.netid for student in read_netids(["ann", "ben"], "x")] == ["ann", "ben"]
    with pytest.raises(UsageError, match=r"the command has ann more than once .place 1, place 3"):
        read_netids(["ann", "ben", "Ann"], "x")
    with pytest.raises(UsageError, match="netID '../b' cannot be used"):
        read_netids(["ann", "../b"], "x")


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


def test_a_defect_for_one_hides_neither_the_others_nor_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))

    def act(student, stop):
        if student.netid == "s1":
            raise KeyError("a mistake of the program")
        return "well"

    outcomes = for_each([Student(f"s{i}", "x") for i in range(3)], act, 1, print)
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    log = tmp_path / "surprises" / "s1.log"
    assert "a defect of this program: KeyError: 'a mistake" in outcomes[1].text and str(log) in outcomes[1].text
    assert "in act\n" in log.read_text()  # the traceback
    assert summary(outcomes).startswith("2 of 3 ok\n  s1: a defect")


def test_ctrl_c_tells_those_that_go_on_and_begins_no_other():
    begun, stopped = [], []

    def act(student, stop):
        begun.append(student.netid)
        stopped.append(stop.wait(10) if student.netid == "s1" else False)
        return "well"

    said = []

    def interrupt(line):
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt

    students = [Student(f"s{i}", "node") for i in range(8)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for_each(students, act, 2, interrupt)
    assert time.monotonic() - started < 9
    assert True in stopped or "s1" not in begun
    assert said[1:] == ["stopping, at the next moment when nothing is half made; Ctrl-C again does not wait"]
