"""Grading: honest, lazy, hostile and broken submissions, each a row; nothing in them is executed."""

import csv
import io
import json
import pickle
import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from students import another, manifest, packed

from labkit.cli import main
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml
from labkit.grading.archive import MIB
from labkit.grading.grade import Row, find_archives, grade
from labkit.grading.sheet import as_csv, details, table

RUN = "runs/tiny/baseline/20261121-120000-0000beef"


def graded(*paths, **more):
    return grade(Workspace.find(), paths, **more)


@pytest.mark.slow
def test_an_honest_student_gets_what_she_did(student, handed):
    (row,) = graded(handed(student(), "Ann"))
    assert (row.student, row.runs, row.course_runs, row.signs) == ("Ann", 3, 1, [])
    assert (len(row.given), row.before, row.right, row.untold) == (4, 3, 3, 0)
    assert (row.passed, row.said_passed) == (4, 0)
    wrong = [one for one in row.given if not one.right]
    assert [(one.question, one.given, round(one.truth, 2), one.before) for one in wrong] == [("adam_state", 3, 2, True)]
    assert row.simulated_minutes > 0 and row.gpu_minutes == 0
    said = details(row)
    assert "wrong: 3, it is 2" in said and "nothing to look at" in said and said.count("passed by the runs") == 4


@pytest.mark.slow
def test_a_notebook_that_is_executed_again_keeps_what_was_committed_first(student, handed):
    ledger = student()
    first = json.loads((ledger / "answers.jsonl").read_text().splitlines()[0])
    again = first | {"time": datetime.now(UTC).isoformat(), "committed": "after"}
    with (ledger / "answers.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    assert graded(handed(ledger))[0].before == 3
    with (ledger / "answers.jsonl").open("a") as file:
        file.write(json.dumps(again | {"answer": 60.0}) + "\n" + json.dumps(again) + "\n")
    (row,) = graded(handed(ledger))
    assert (row.before, row.answers[0].given) == (3, first["answer"])  # a change of mind when the run was there
    assert row.answers[0].tries == 4


@pytest.mark.slow
def test_an_empty_notebook_and_a_ledger_without_answers_are_rows_of_zeros(student, handed):
    ledger = student()
    (ledger / "answers.jsonl").unlink()
    (row,) = graded(handed(ledger))
    assert (len(row.given), row.before, row.passed, row.signs) == (0, 0, 0, [])
    assert {one.outcome for one in row.checks} == {"open"}


@pytest.mark.slow
def test_a_check_that_only_the_journal_tells_of_is_counted_apart(student, handed):
    ledger = student()
    said = {"kind": "check", "time": datetime.now(UTC).isoformat(), "lab": "03_precision", "outcome": "passed"}
    said |= {"check": "true_loses_updates", "left": 0.9, "right": 0.1, "runs": {"?rounding": "rounding"}}
    with (ledger / "answers.jsonl").open("a") as file:
        file.write(json.dumps(said | {"profile": "tiny", "mode": "run"}) + "\n")
    (row,) = graded(handed(ledger))
    assert (row.passed, row.said_passed, row.signs) == (4, 1, [])
    assert "4+1/" in table([row])


@pytest.mark.slow
def test_who_only_planned_is_judged_by_what_ships_with_the_course(student, handed):
    ledger = student()
    lines = [json.loads(line) for line in (ledger / "answers.jsonl").read_text().splitlines()]
    for entry in lines:
        entry |= {"mode": "plan", "profile": "h100-94gb"}
        if "runs" in entry:
            entry["runs"] = dict.fromkeys(entry["runs"], "planned")
    (ledger / "answers.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    (row,) = graded(handed(ledger))
    assert {one.source for one in row.given} == {"reference"}
    assert {one.question: one.right for one in row.given}["does_it_fit"] is True
    assert {one.question: one.right for one in row.given}["adam_state"] is False
    assert row.passed == 3 and row.signs == []
    assert {one.check for one in row.checks if one.source == "journal"} == {
        "prediction_holds"
    }  # not of what is planned


@pytest.mark.slow
def test_of_several_archives_the_newest_counts_and_the_others_are_named(student, handed):
    ledger = student()
    old = handed(ledger, "Ann", "old")
    with (ledger / "answers.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "answer", "lab": "x", "time": datetime.now(UTC).isoformat()}) + "\n")
    shutil.rmtree(next(ledger.glob("tiny/reduced_batch/*")))  # a student may clear up
    new = handed(ledger, "ANN ", "new")
    for paths in ((new, old), (old, new)):
        (row,) = graded(*paths, now=datetime.now(UTC) + timedelta(hours=2))
        assert (row.file, row.kinds) == ("handed/new.tar.gz", ["twice"])
        assert "handed/old.tar.gz of" in row.signs[-1].text
    (row,) = graded(old, handed(ledger, "Ann", "again"), new)
    assert [sign.kind for sign in row.signs] == ["twice", "twice"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Ann", "ANN", " ann", "A nn", "Ａｎｎ"])
def test_an_archive_under_her_name_with_other_work_does_not_replace_hers(student, handed, tmp_path, name):
    hers = handed(student(), "Ann", "hers")
    his = handed(student(), name, "his")
    nothing = packed(
        tmp_path / "nothing.tar.gz", ("manifest.json", manifest(name, created="2999-01-01T00:00:00+00:00"))
    )
    rows = graded(his, hers, nothing, now=datetime.now(UTC) + timedelta(hours=2))
    assert sorted(row.file for row in rows) == ["handed/hers.tar.gz", "handed/his.tar.gz"]
    for row in rows:
        assert "same name" in row.kinds and (row.right, row.passed) == (3, 4)
    (other,) = (sign.text for sign in rows[0].signs if sign.kind == "same name")
    assert "has the same name and other work: both stand" in other
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(lines) == 2 and all("same name" in line["to_look_at"] for line in lines)


@pytest.mark.slow
def test_an_archive_that_says_it_is_the_newest_and_has_less_is_not(student, handed, tmp_path):
    ledger = student()
    hers = handed(ledger, "Ann", "hers")
    lines = (ledger / "answers.jsonl").read_bytes().splitlines(keepends=True)
    stolen = packed(tmp_path / "stolen.tar.gz", ("manifest.json", manifest("ann", created="2999-01-01T00:00:00+00:00")),
                    ("answers.jsonl", b"".join(lines[:2])))  # fmt: skip
    (row,) = graded(stolen, hers)
    assert row.file == "handed/hers.tar.gz" and row.right == 3
    assert "stolen.tar.gz of 2999" in row.signs[-1].text


@pytest.mark.slow
def test_runs_without_answers_are_replaced_by_an_archive_that_has_one_of_them(student, handed):
    ledger = student()
    journal = (ledger / "answers.jsonl").read_bytes()
    (ledger / "answers.jsonl").unlink()
    old = handed(ledger, "Ann", "a")
    (ledger / "answers.jsonl").write_bytes(journal)
    (row,) = graded(old, handed(ledger, "Ann", "b"))
    assert row.file == "handed/b.tar.gz"
    assert len(graded(old, handed(student(), "Ann", "c"))) == 2


@pytest.mark.slow
def test_minutes_on_a_gpu_cost_and_simulated_ones_do_not(student, handed):
    ledger = student()
    run = next(ledger.glob("tiny/baseline/*/record.json"))
    for name in ("config.json", "record.json"):
        data = json.loads((run.parent / name).read_text())
        for holder in (data, data.get("record", data)):
            holder["config"]["device"] = "cuda"
        data.get("record", data)["wall_seconds"] = 1800.0
        (run.parent / name).write_text(json.dumps(data))
    (row,) = graded(handed(ledger), price_per_hour=3.0)
    assert row.gpu_minutes == 30 and row.cost == 1.5
    assert 0 < row.simulated_minutes < 30
    assert graded(handed(ledger))[0].cost is None


def hostile(path, *members, name="Eve"):
    return packed(path, ("manifest.json", manifest(name)), *members)


@pytest.fixture
def traps(student, handed, tmp_path, monkeypatch):
    """A folder with an honest archive among all that a hostile student has thought of, and a place to see traces."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "handed"
    ledger = student()
    handed(ledger, "Ann")
    script = 'import pathlib; pathlib.Path("executed").touch()'
    notebook = {"cells": [{"cell_type": "code", "source": [script], "outputs": [
        {"output_type": "display_data", "data": {"text/html": "<script>alert(1)</script>"}, "metadata": {}},
    ]}], "nbformat": 4}  # fmt: skip

    class Trap:
        def __reduce__(self):
            return exec, (script,)

    record = json.loads(next(ledger.glob("tiny/reduced_batch/*/record.json")).read_text())
    config = {"record": record, "config": record["config"], "origins": {}}
    answers = (ledger / "answers.jsonl").read_bytes()

    def with_record(**values):
        wild = json.dumps(record | values).encode()
        return [(f"{RUN}/config.json", json.dumps(config).encode()), (f"{RUN}/record.json", wild)]

    entry = {
        "kind": "answer",
        "time": "2026-11-21T12:00:00+00:00",
        "lab": "02_batch_and_accumulation",
        "profile": "tiny",
    }
    wild_answers = [
        entry | {"question": question, "answer": answer}
        for question in ("activations_fall", "lowest_loss", "nothing")
        for answer in ([], {}, None, True, "\x1b[2J", 10**20, -1, 1e308, "baseline")
    ]
    odd = entry | {"question": "activations_fall", "answer": 2}
    wild_answers += [odd | {"profile": p} for p in ("../../x", "a\0b", {}, "9GiB")]
    check = {"kind": "check", "lab": "00_setup", "check": "prediction_holds"}
    wild_answers += [check | {"outcome": o, "runs": r, "time": t}
                     for o in ("passed", [], None) for r in (None, [], {"reduced_batch max_steps=2": {}}, {"?": 1})
                     for t in ("", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")]  # fmt: skip
    members = {
        "notebook": [("labs/00_setup.ipynb", json.dumps(notebook).encode())],
        "pickle": [(f"{RUN}/record.json", pickle.dumps(Trap())), (f"{RUN}/config.json", pickle.dumps(Trap()))],
        "pickled answers": [("answers.jsonl", pickle.dumps(Trap()))],
        "deep": [("answers.jsonl", b"[" * 10**5), (f"{RUN}/config.json", b'{"a":' * 10**5)],
        "wide": [(f"{RUN}/config.json", b"[" + b"[]," * 300_000 + b"[]]")],
        "numbers": [(f"{RUN}/config.json", b'{"a": ' + b"9" * 10**5 + b"}"), (f"{RUN}/events.jsonl", b"[1" * 999)],
        "no config": [(f"{RUN}/record.json", json.dumps(record).encode())],
        "answers": [("answers.jsonl", "".join(json.dumps(one) + "\n" for one in wild_answers).encode())],
        "many lines": [("answers.jsonl", b"{}\n" * 10**5)],
        "bad bytes": [("answers.jsonl", b"\xff\xfe\x00" * 1000 + b"\n" + answers)],
        "no phases": with_record(memory={"source": "\x1b[31m", "capacity_bytes": 1, "phases": []}),
        "odd phases": with_record(memory={"source": "x", "capacity_bytes": None, "phases": [
            {"phase": "?", "step": -1, "micro_step": 10**20, "end": {}, "peak": {"x" * 999: 10**20}, "highest": {}}]}),
        "no peaks": with_record(peak_bytes=0, losses=[None], train_seconds=0.0, samples=-1),
        "odd config": with_record(config={"accumulate_grad_batches": 0, "device": ["cuda"], "model_name": "../../etc"}),
        "odd values": with_record(overrides={"a\x1b": {}}, experiment="=cmd()", profile="../..", id="x" * 10**5),
        "infinite": [(name, data.replace(b'"wall_seconds": ', b'"wall_seconds": 1e999, "x": '))
                     for name, data in with_record()],
        "prediction": with_record(prediction={"source": "", "capacity_bytes": 0, "phases": [], "verdict": None,
                                              "died_in": {}}),
        "formula": [],
        "escape in a file name \x1b[2J": [],
    }  # fmt: skip
    for number, (file, what) in enumerate(members.items()):
        hostile(folder / f"{file}.tar.gz", *what, name='=HYPERLINK("http://x")' if file == "formula" else f"E{number}")
    (folder / "cut.tar.gz").write_bytes((folder / "Ann.tar.gz").read_bytes()[:4000])
    (folder / "empty.tar.gz").touch()
    (folder / "link.tar.gz").symlink_to("/etc/passwd")
    (folder / "zip.tar.gz").write_bytes(b"PK\x03\x04" * 100)
    (folder / "zeros.tar.gz").write_bytes(b"\0" * MIB)
    packed(folder / "out.tar.gz", ("manifest.json", manifest()), ("../../../executed", b"x"))
    return folder


@pytest.mark.slow
def test_hostile_submissions_are_rows_and_do_nothing(traps, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    paths, _ = find_archives(traps)
    rows = grade(Workspace.find(), paths)
    assert len(rows) == len(paths)
    assert sorted(tmp_path.rglob("*")) == before, "something was written or executed"
    assert sum(bool(row.error) for row in rows) == 6
    by_name = {row.file.removeprefix("handed/").removesuffix(".tar.gz"): row for row in rows}
    assert by_name["Ann"].kinds == ["copied"] and by_name["Ann"].right == 3  # others have taken from her
    assert by_name["notebook"].notebooks == ["labs/00_setup.ipynb"]
    for file in ("pickle", "deep", "wide", "numbers", "no config", "many lines"):
        assert "unread" in by_name[file].kinds, file
    assert len(by_name["bad bytes"].given) == 4
    for row in rows:
        assert row.simulated_minutes < 10 and row.gpu_minutes == 0 and not row.passed + row.right or row.student in (
            "Ann", by_name["bad bytes"].student
        )  # fmt: skip


@pytest.mark.slow
def test_what_is_printed_has_no_escapes_and_fits_the_terminal(traps, tmp_path, capsys, monkeypatch):
    file = tmp_path / "grades.csv"
    assert main(["grade", str(traps), "--csv", str(file)]) == 0
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in out + err)
    rows = out[: out.index("runs: ended")].splitlines()
    assert len(rows) > 15
    assert "not read: handed/cut.tar.gz: it is cut off" in out
    assert main(["grade", str(traps), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(out.splitlines()) - 7
    assert main(["grade", str(traps), "--details", ""]) == 0
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["grade", str(traps)]) == 0
        narrow = capsys.readouterr().out
        assert max(map(len, narrow[: narrow.index("runs: ended")].splitlines())) <= width
        numbers = set(re.findall(r"\d+[.+/]\d+", out[: out.index("runs: ended")]))
        assert numbers and all(number in narrow for number in numbers)
    lines = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    assert not [cell for line in lines for cell in line.values() if cell.lstrip()[:1] in tuple("=+-@")]
    assert [line["student"] for line in lines if "HYPERLINK" in line["student"]] == ['\'=HYPERLINK("http://x")']


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "＝1", " =1", "Ann; =1", "Ann|@x"])
def test_no_cell_of_the_csv_is_a_formula(name):
    cell = as_csv([Row(student=name, file="=f.tar.gz", error="-e")]).splitlines()[1].split(",")
    assert "'" in cell[0] and not re.search(r"(^|[;|])\s*[=+@＝-]", cell[0])
    assert cell[1] == "'=f.tar.gz" and cell[2] == "'-e"


@pytest.mark.slow
def test_archives_are_found_at_any_depth_and_links_to_folders_are_not_followed(student, handed, tmp_path):
    handed(student(), "Ann")
    folder = tmp_path / "handed"
    (folder / "bob").mkdir()
    handed(student(), "Bob").rename(folder / "bob" / "work.tgz")
    (folder / "up").symlink_to(tmp_path)
    (folder / "notes.txt").touch()
    (folder / ".hidden.tar.gz").touch()
    paths, others = find_archives(folder)
    assert [path.name for path in paths] == ["Ann.tar.gz", "work.tgz"]
    assert [path.name for path in others] == ["notes.txt"]
    assert [row.student for row in graded(*paths)] == ["Ann", "Bob"]


@pytest.mark.slow
def test_the_command_for_one_student_and_with_a_price(student, handed, tmp_path, capsys):
    handed(student(), "Ann")
    handed(student(), "Annabel")
    folder = str(tmp_path / "handed")
    assert main(["grade", folder, "--details", "ann", "--price-per-hour", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Ann: handed/Ann.tar.gz") and "0.0 GPU minutes for 0.00" in out
    assert main(["grade", folder, "--details", "annab"]) == 0
    assert capsys.readouterr().out.startswith("Annabel")
    assert main(["grade", str(tmp_path / "handed" / "Ann.tar.gz"), "--json", "--price-per-hour", "2"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["student"], row["cost"], row["right"], row["committed_before"]) == ("Ann", 0.0, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is neither a folder"),
        (["."], "holds no .tar.gz"),
        ([".", "--price-per-hour", "-1"], "--price-per-hour=-1.0"),
        ([".", "--price-per-hour", "nan"], "--price-per-hour=nan"),
        (["a.tar.gz", "--details", "Bob"], "--details='Bob'"),
        (["a.tar.gz", "--csv", "nowhere/a.csv"], "--csv=nowhere/a.csv"),
        (["a\x1b.tar.gz"], "neither a folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, arguments, says, capsys):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "a.tar.gz":
        hostile(tmp_path / "a.tar.gz")
    assert main(["grade", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and err.rstrip("\n").isprintable()


@pytest.mark.slow
def test_a_class_is_graded_as_each_of_them_alone(real_ledger, tmp_path, handed):
    paths = [handed(another(real_ledger, tmp_path / f"of{n}", -n), f"S{n:02}") for n in range(1, 13)]
    together = graded(*paths)
    alone = [graded(path)[0] for path in paths]
    assert [details(row) for row in together] == [details(row) for row in alone]
    assert {row.right for row in together} == {3}


def rewrite(ledger, run, **values):
    """Change a run so that its record and its config.json agree."""
    folder = next(ledger.glob(f"tiny/{run}/*"))
    for name in ("config.json", "record.json"):
        data = json.loads((folder / name).read_text())
        data.get("record", data).update(values)
        (folder / name).write_text(json.dumps(data))
    return folder


@pytest.mark.slow
def test_no_file_of_this_machine_is_read_because_a_record_names_it(student, handed, tmp_path, monkeypatch):
    bait = tmp_path / "bait.yaml"
    bait.write_text("base: baseline\n")
    ledger = student()
    rewrite(ledger, "reduced_batch", experiment=str(bait))
    journal = ledger / "answers.jsonl"
    journal.write_text(journal.read_text().replace('"profile": "tiny"', f'"profile": "{tmp_path}/bait"'))
    path = handed(ledger)
    opened = []
    monkeypatch.setattr("labkit.config.layers.read_yaml", lambda path: opened.append(path) or read_yaml(path))
    monkeypatch.setattr("labkit.config.profiles.read_yaml", lambda path: opened.append(path) or read_yaml(path))
    (row,) = graded(path)
    assert opened and bait not in opened
    assert row.course_runs == 1 and "record" in row.kinds


@pytest.mark.slow
def test_a_run_whose_settings_were_edited_is_none_of_the_course(student, handed):
    ledger = student()
    (honest,) = graded(handed(ledger))
    for path in ledger.glob("tiny/*/*/*.json"):
        data = json.loads(path.read_text())
        data.get("record", data)["config"]["batch_size"] = 1  # and the hash stays
        path.write_text(json.dumps(data))
    (edited,) = graded(handed(ledger))
    assert (honest.course_runs, honest.right) == (1, 3)
    assert (edited.course_runs, edited.right) == (0, 0)


@pytest.mark.slow
def test_a_record_that_no_one_ran_counts_and_has_a_sign(student, handed):
    """Twelve digits and the word ``ok`` are easily typed; without events no one has seen the run."""
    ledger = student()
    folder = rewrite(ledger, "reduced_batch", losses=[], memory=None, status="ok")
    (folder / "events.jsonl").unlink()
    assert "events" in graded(handed(ledger))[0].kinds


@pytest.mark.slow
def test_json_that_nests_deep_is_a_row(student, handed):
    deep = []
    for _ in range(900):
        deep = [deep]
    for values in ({"config": {"accumulate_grad_batches": 1, "lr": deep}}, {"overrides": {"a": deep}}):
        ledger = student()
        rewrite(ledger, "reduced_batch", **values)
        (row,) = graded(handed(ledger))
        assert row.error or row.runs == 3 or "unread" in row.kinds


@pytest.mark.slow
def test_runs_and_answers_that_are_too_much_together_are_refused(student, handed, monkeypatch):
    path = handed(student())
    monkeypatch.setattr("labkit.grading.archive.TEXT_BYTES", 10_000)
    (row,) = graded(path)
    assert "its runs and answers have more than" in row.error


def test_a_file_whose_name_is_no_text_is_a_row(tmp_path, capsys):
    good = hostile(tmp_path / "good.tar.gz")
    good.rename(tmp_path / "\udcff\x1b.tar.gz")
    (tmp_path / "\udcfe.rar").touch()
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "a.csv")]) == 0
    out, err = capsys.readouterr()
    assert "Eve" in out and "passed over ?.rar" in err
    assert all(c.isprintable() or c == "\n" for c in out + err + (tmp_path / "a.csv").read_text("utf-8-sig"))
