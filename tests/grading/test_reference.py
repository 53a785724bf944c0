"""The course's own runs: they are those of the course as it is now, and a table shows them as what they are."""

import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from labkit.config.errors import ConfigError
from labkit.config.profiles import profile_names
from labkit.config.workspace import Workspace
from labkit.lab import reference
from labkit.lab.lab import Lab
from labkit.lab.lesson import LABS, lesson_of
from labkit.lab.reference import COMMAND, outdated, path_of, read_reference, wanted_names
from labkit.lab.result import Result
from labkit.lab.session import NotDone
from labkit.ledger.ledger import Ledger
from labkit.ledger.predicted import prediction_of

WORKSPACE = Workspace.find()
SHIPPED = sorted(path.stem for path in (WORKSPACE.root / "reference").glob("*.json"))


def test_every_profile_of_the_course_has_one():
    assert {"a100-80gb", "h100-94gb", "tiny"} <= {*SHIPPED} <= {*profile_names(WORKSPACE)}


@pytest.mark.slow
@pytest.mark.parametrize("profile", SHIPPED)
def test_it_is_of_the_course_as_it_is_now(profile):
    """Made again by ``python -m labkit.lab.reference``."""
    assert outdated(WORKSPACE, profile) == [], f"the experiments have changed; make them again: {COMMAND} {profile}"
    found = read_reference(WORKSPACE, profile)
    assert [result.name for result in found] == wanted_names(WORKSPACE, profile)
    course = [result for result in found if not result.record.overrides]
    assert [result.status for result in course].count("oom") == 3
    assert {result.source for result in found} == {
        "shipped, simulated GPU" if profile == "tiny" else "shipped, predicted"
    }


@pytest.mark.parametrize("profile", SHIPPED)
def test_it_is_small_and_names_no_place(profile):
    text = path_of(WORKSPACE, profile).read_text()
    assert len(text) < 500_000
    assert not re.findall(r'"(?:[^"]*[ (:])?(/[^"]+)"', text)
    assert str(Path.home()) not in text and str(WORKSPACE.root.parent) not in text


@pytest.mark.parametrize("profile", SHIPPED)
def test_lessons_can_be_judged_by_it(profile):
    found = {result.name: result for result in read_reference(WORKSPACE, profile)}
    told = 0
    for lab in LABS:
        for one in (*lesson_of(lab).questions, *lesson_of(lab).checks):
            missing = {name for name in one.about if name not in found and not name.startswith("?")}
            assert not missing or (profile != "tiny" and missing == {"six_full_split dropout=0.0 max_steps=4"})
            if not missing and not any(name.startswith("?") for name in one.about):
                read = one.truth(found) if hasattr(one, "truth") else one.outcome(found)[0]
                told += read not in (None, "not available")
                assert read != "failed", (lab, one.id)
    assert told >= (50 if profile == "tiny" else 40)


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A workspace that one may change."""
    root = tmp_path / "workspace"
    for part in ("configs", "profiles", "reference"):
        shutil.copytree(WORKSPACE.root / part, root / part)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(root))
    return Workspace(root)


@pytest.mark.slow
def test_an_experiment_that_changed_is_outdated(other):
    path = other.configs / "xxl_sgd.yaml"
    path.write_text(path.read_text().replace("optim: sgd", "optim: sgd\nseed: 7"))
    assert outdated(other, "tiny") == ["xxl_sgd"] == outdated(other, "h100-94gb")
    profile = other.profiles / "tiny.yaml"
    profile.write_text(profile.read_text().replace("larger_model: {batch_size: 16", "larger_model: {batch_size: 8"))
    assert outdated(other, "tiny") == ["larger_model", "xxl_sgd"]


@pytest.mark.slow
def test_a_damaged_or_missing_one_is_said_with_the_command(other, monkeypatch):
    path = path_of(other, "tiny")
    for text in (
        "{",
        "[]",
        "{}",
        '{"made": 1, "machine": "", "runs": []}',
        '{"made": "", "machine": "", "runs": [{}]}',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is damaged .*makes it again"):
            read_reference(other, "tiny")
    path.unlink()
    with pytest.raises(ConfigError, match=f"{COMMAND} tiny"):
        read_reference(other, "tiny")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    assert isinstance(Lab("12_compare").table(reference=True), NotDone)


@pytest.mark.slow
def test_it_is_made_from_the_ledger_and_keeps_what_tables_and_lessons_read(other, real_ledger, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_RUNS", str(real_ledger))
    names = ["baseline", "baseline batch_size=8 max_steps=2", "reduced_batch max_steps=2"]
    monkeypatch.setattr(reference, "wanted_names", lambda workspace, profile: names)
    monkeypatch.setattr(reference, "_told", lambda workspace, profile: {"10_when_it_fails/kernel_says": "killed"})
    path_of(other, "tiny").unlink()
    reference.main(["tiny"])
    made = read_reference(other, "tiny")
    ids = {record.id: record for record in Ledger(real_ledger).records()}
    assert sorted(ids) == sorted(result.id for result in made)
    assert [result.name for result in made] == names
    for result in made:
        full = Result(ids[result.id])
        for one in ("peaks", "peak_bytes", "last_loss", "status", "capacity_bytes", "samples_per_second"):
            assert getattr(result, one) == getattr(full, one), one
        assert prediction_of(result.record) == prediction_of(full.record)
    assert json.loads(path_of(other, "tiny").read_text())["profile"] == "tiny"
    assert reference.read_told(other, "tiny") == {"10_when_it_fails/kernel_says": "killed"}


@pytest.mark.slow
def test_a_table_shows_it_beside_the_students_own(real_ledger, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(real_ledger))
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    one = Lab("12_compare")
    one.ask("least_memory", "pass")
    said = one.table(reference=True).text()
    rows = [line.split() for line in said.splitlines()]
    assert [row[1:3] for row in rows if row[0] == "baseline" and row[1] != "batch_size=8"] == [
        ["simulated", "GPU"], ["shipped,", "simulated"],
    ]  # fmt: skip
    assert [row[0] for row in rows].count("xxl_qlora") == 1
    assert "shipped: made 20" in said and "no run of yours" in said
    assert "shipped" not in Lab("12_compare").table().text()


@pytest.mark.slow
def test_who_has_no_run_has_the_courses_on_every_profile(ledger, monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "h100-94gb")
    one = Lab("12_compare")
    one.ask("least_memory", "pass")
    head, _, *rows = one.table(reference=True).text().splitlines()
    assert head.endswith("shipped with the course (predicted)")  # of all lines, so that none says it again
    assert [row.split()[0] for row in rows[:15]] == list(one.profile.expected) and "136.5" in rows[0]
    assert not Ledger(ledger.root).folders()


@pytest.mark.slow
def test_of_many_micro_steps_the_highest_of_each_category_stays(real_ledger):
    record = next(r for r in Ledger(real_ledger).records("tiny", "reduced_batch"))
    record.config["accumulate_grad_batches"] = 3
    first = record.memory.phases[1]
    highest = first.highest | {"inputs": 10**9}
    record.memory.phases += [replace(first, micro_step=1, highest=highest), replace(first, step=9, micro_step=1)]
    kept = reference._filled(reference._kept(record))
    assert len(kept["memory"]["phases"]) == len(record.memory.phases) - 1
    assert max(phase["highest"]["inputs"] for phase in kept["memory"]["phases"]) == 10**9
