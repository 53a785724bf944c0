"""Signs: an honest ledger has none, and each kind of edit has its own."""

import gzip
import io
import json
import shutil
import tarfile
from datetime import UTC, datetime, timedelta

import pytest
from students import another

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.grading.grade import grade

NOW = datetime.now(UTC)


@pytest.fixture
def signs(handed):
    """A function that hands a ledger in and gives the signs there are, each as ``kind: text``."""

    def found(ledger, name="Ann"):
        rows = grade(Workspace.find(), [handed(ledger, name)])
        assert [row.error for row in rows] == [""]
        return [f"{sign.kind}: {sign.text}" for sign in rows[0].signs]

    return found


def edit(ledger, run, /, **values):
    """Change values of a run's JSON, as somebody does by hand."""
    path = next(ledger.glob(f"tiny/{run}/*/record.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path.parent


@pytest.mark.slow
def test_an_honest_ledger_has_no_signs(student, signs, real_ledger):
    assert signs(student()) == []
    assert signs(real_ledger, "Bob") == []


@pytest.mark.slow
def test_a_run_that_still_runs_or_was_killed_has_none(student, signs):
    ledger = student()
    next(ledger.glob("tiny/baseline/*/record.json")).unlink()
    run = edit(ledger, "reduced_batch", status="timeout", reason="stopped after the 9 s it was given")
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[:-1]))
    shown = signs(ledger)
    assert [sign for sign in shown if "peak_bytes" not in sign] == []  # the result that was cut told the peak


@pytest.mark.slow
def test_a_run_that_ran_on_after_its_watcher_was_killed_has_none(student, signs):
    ledger = student()
    # the attempt that no one saw end counts no time
    attempt = {"status": "killed", "reason": "", "exit_code": None, "died_in": None, "wall_seconds": 0.0,
               "resumed_at_step": 1}  # fmt: skip
    edit(ledger, "reduced_batch", attempts=[attempt], wall_seconds=1.0, train_seconds=40.0)
    assert [sign for sign in signs(ledger) if sign.startswith("times")] == []


@pytest.mark.slow
def test_a_model_that_loads_long_in_a_run_without_a_record_is_no_sign(student, signs):
    ledger = student()
    run = next(ledger.glob("tiny/baseline/*/record.json")).parent
    (run / "record.json").unlink()
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    late = [json.dumps(event | {"time": event["time"] + 90}) + "\n" for event in lines]
    (run / "events.jsonl").write_text("".join(late))
    assert not any("after it was created" in sign for sign in signs(ledger))


@pytest.mark.slow
def test_another_experiment_with_the_same_settings_is_not_what_an_answer_is_about(lab, add_run, ledger, signs):
    values = {"batch_size": 8, "max_steps": 2}
    early = add_run("reduced_batch", values, created="2026-01-01T00:00:00+00:00")
    lab("01_where_memory_goes").ask("adam_state", 3)
    later = add_run("baseline", values)
    assert early.record.config_hash == later.record.config_hash
    assert [sign for sign in signs(ledger.root) if sign.startswith("answers")] == []


EDITS = {
    "a better loss": ({"losses": [1.0, 0.5]}, "events: ", "losses is"),
    "a smaller peak": ({"peak_bytes": 1}, "events: ", "peak_bytes is 1,"),
    "more samples": ({"samples": 512}, "events: ", "samples is 512"),
    "a run that failed": ({"status": "ok", "samples": 0}, "events: ", "samples is 0"),
    "another end": ({"status": "oom"}, "events: ", "ended 'oom', its events 'ok'"),
    "another hash": ({"config_hash": "0" * 12}, "config: ", "has hash"),
    "another experiment": ({"experiment": "xxl"}, "record: ", "runs/tiny/xxl/"),
    "another id": ({"id": "20260101-000000-0000beef"}, "record: ", "the record in it says"),
    "created later": ({"created": "2026-01-01T00:00:00+00:00"}, "times: ", "id says another time"),
    "created in the future": ({"created": "2999-01-01T00:00:00+00:00"}, "times: ", "in the future"),
    "no time": ({"created": "noon"}, "times: ", "'noon', which is not a time"),
    "less time": ({"wall_seconds": 0.1, "train_seconds": 9.0}, "times: ", "took 0.1 s in all"),
    "no end of time": ({"wall_seconds": 1e300}, "times: ", "wall_seconds=1e+300"),
    "time backwards": ({"wall_seconds": -5.0}, "times: ", "wall_seconds=-5"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("values", "kind", "text"), EDITS.values(), ids=EDITS)
def test_an_edited_record_has_a_sign(student, signs, values, kind, text):
    ledger = student()
    edit(ledger, "reduced_batch", **values)
    found = signs(ledger)
    assert any(sign.startswith(kind) and text in sign for sign in found), found


@pytest.mark.slow
def test_an_edited_config_has_a_sign(student, signs):
    ledger = student()
    record = next(ledger.glob("tiny/reduced_batch/*/record.json"))
    config = json.loads(record.read_text())["config"] | {"batch_size": 1}
    edit(ledger, "reduced_batch", config=config)
    assert [sign.partition(":")[0] for sign in signs(ledger)] == ["config", "record"]


@pytest.mark.slow
def test_a_run_without_events_has_a_sign(student, signs):
    ledger = student()
    next(ledger.glob("tiny/baseline/*/events.jsonl")).unlink()
    assert [sign for sign in signs(ledger) if "there are no events" in sign]


@pytest.mark.slow
def test_events_of_another_time_have_a_sign(student, signs):
    ledger = student()
    events = next(ledger.glob("tiny/reduced_batch/*/events.jsonl"))
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for shift, text in ((-7200, "before it was created"), (7200, "after it was created"), (10**8, "later than handed")):
        events.write_text("".join(json.dumps(e | {"time": e["time"] + shift}) + "\n" for e in lines))
        assert any(text in sign for sign in signs(ledger)), text
    events.write_text("".join(json.dumps(e | {"time": e["time"] - 100 * n}) + "\n" for n, e in enumerate(lines)))
    assert any("not in the order" in sign for sign in signs(ledger))
    record = edit(ledger, "reduced_batch", train_seconds=50.0, wall_seconds=60.0)
    events = record / "events.jsonl"
    events.write_text(
        "".join(json.dumps(e | {"train_seconds": 50.0} if "train_seconds" in e else e) + "\n" for e in lines)
    )
    assert [sign for sign in signs(ledger) if "its events span" in sign]


def journal(ledger, change):
    path = ledger / "answers.jsonl"
    path.write_text("".join(json.dumps(change(json.loads(line))) + "\n" for line in path.read_text().splitlines()))


@pytest.mark.slow
def test_an_answer_that_says_before_and_came_after_has_a_sign(student, signs):
    ledger = student()
    journal(ledger, lambda entry: entry | ({"committed": "before"} if "committed" in entry else {}))
    found = signs(ledger)
    assert len(found) == 1
    assert "answers: 01_where_memory_goes highest_moment: the journal says committed before the run" in found[0]


@pytest.mark.slow
def test_an_answer_that_says_before_and_came_after_a_prediction_has_a_sign(student, signs):
    ledger = student()
    path = ledger / "answers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    answer = next(line for line in lines if line.get("question") == "does_it_fit")
    settings = resolve(Workspace.find(), "baseline", {}, "tiny").config.hash
    told = {"kind": "told", "time": answer["time"], "lab": answer["lab"], "what": settings, "profile": "tiny"}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines[: lines.index(answer)], told,
                                                                 *lines[lines.index(answer) :]]))  # fmt: skip
    assert not signs(ledger)  # in the same second either may be first
    told["time"] = (datetime.fromisoformat(answer["time"]) - timedelta(seconds=5)).isoformat()
    path.write_text("".join(json.dumps(line) + "\n" for line in [told, *lines]))
    found = signs(ledger)
    assert any("01_where_memory_goes does_it_fit: the journal says committed before the run" in one for one in found)


@pytest.mark.slow
def test_a_journal_that_is_not_in_order_has_a_sign(student, signs):
    ledger = student()
    early = (NOW - timedelta(days=30)).isoformat()
    journal(ledger, lambda entry: entry | ({"time": early} if entry.get("question") == "highest_moment" else {}))
    assert [sign for sign in signs(ledger) if "not in order" in sign]


@pytest.mark.slow
def test_a_check_that_says_passed_and_fails_has_a_sign(student, signs):
    ledger = student()
    lie = {"kind": "check", "lab": "01_where_memory_goes", "profile": "tiny", "mode": "run", "outcome": "passed"}
    lie |= {"check": "adam_twice", "left": 2.0, "right": 1.0, "runs": {}, "time": NOW.isoformat()}
    lonely = lie | {"lab": "03_precision", "check": "true_loses_updates", "left": 1.0, "right": 1.0}
    with (ledger / "answers.jsonl").open("a") as file:
        file.write(json.dumps(lonely) + "\n")
    said = "checks: 03_precision true_loses_updates: the journal says passed, and its own two numbers do not"
    assert signs(ledger) == [said]
    for path in ledger.glob("tiny/baseline/*/record.json"):
        data = json.loads(path.read_text())
        if data["overrides"]:
            for phase in data["memory"]["phases"]:
                phase["highest"]["optimizer_gpu"] = 7
            path.write_text(json.dumps(data))
    found = [sign for sign in signs(ledger) if sign.startswith("checks: 01")]
    assert found == ["checks: 01_where_memory_goes adam_twice: the journal says passed, and by the runs it failed"]


@pytest.mark.slow
def test_a_copied_ledger_names_both(student, handed):
    ledger = student()
    rows = grade(Workspace.find(), [handed(ledger, "Ann"), handed(ledger, "Bob"), handed(student(), "Cid")])
    ann, bob, cid = rows
    assert "3 runs have the id of one of Bob (handed/Bob.tar.gz)" in ann.signs[0].text
    assert "3 runs have the id of one of Ann (handed/Ann.tar.gz)" in bob.signs[0].text
    assert ann.kinds == bob.kinds == ["copied"] and cid.signs == []
    assert any("answers.jsonl" in sign.text for sign in bob.signs)


@pytest.mark.slow
def test_a_copy_with_ids_and_days_of_its_own_is_told_by_its_milliseconds(student, handed, tmp_path):
    ledger = student()
    copy = tmp_path / "copy"
    for path in sorted(ledger.glob("tiny/*/*")):
        record = json.loads((path / "record.json").read_text())
        made = datetime.fromisoformat(record["created"]) - timedelta(days=3)
        new = copy / path.parent.relative_to(ledger) / f"{made:%Y%m%d-%H%M%S}-0000beef"
        shutil.copytree(path, new)
        for name in ("config.json", "record.json"):
            data = json.loads((new / name).read_text())
            data.get("record", data).update(id=new.name, created=made.isoformat())
            (new / name).write_text(json.dumps(data))
        events = [json.loads(line) for line in (new / "events.jsonl").read_text().splitlines()]
        lines = [json.dumps(event | {"time": event["time"] - 3 * 86400}) + "\n" for event in events]
        (new / "events.jsonl").write_text("".join(lines))
    rows = grade(Workspace.find(), [handed(ledger, "Ann"), handed(copy, "Bob")])
    for row, other in zip(rows, ("Bob", "Ann"), strict=True):
        assert [sign.kind for sign in row.signs] == ["copied"]
        assert f"3 runs have, to the millisecond, the times of one of {other}" in row.signs[0].text


@pytest.mark.slow
def test_thirty_honest_students_are_told_apart(real_ledger, tmp_path, handed):
    ledgers = [another(real_ledger, tmp_path / f"of{n}", -n) for n in range(1, 31)]
    rows = grade(Workspace.find(), [handed(ledger, f"S{n}") for n, ledger in enumerate(ledgers)])
    assert [row.signs for row in rows] == [[]] * 30


@pytest.mark.slow
def test_a_member_that_was_exchanged_in_the_archive_has_a_sign(student, handed, tmp_path):
    path = handed(student(), "Ann")
    changed = tmp_path / "changed.tar.gz"
    with tarfile.open(path) as old, gzip.open(changed, "wb") as out, tarfile.open(fileobj=out, mode="w") as new:
        for member in old.getmembers():
            data = old.extractfile(member).read()
            if member.name.endswith("00_setup.ipynb"):
                continue
            if member.name == "answers.jsonl":
                data = data.replace(b'"after"', b'"before"')
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
        member.name, member.size = "labs/more.ipynb", 2
        new.addfile(member, io.BytesIO(b"{}"))
    (row,) = grade(Workspace.find(), [changed])
    texts = [sign.text for sign in row.signs if sign.kind == "members"]
    assert [text.split(" ", 1)[0] for text in texts] == ["answers.jsonl", "labs/00_setup.ipynb", "labs/more.ipynb"]
