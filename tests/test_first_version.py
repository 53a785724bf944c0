"""What the first version wrote is read today: ledger, configs, profiles and notebooks of tests/data/first_version."""

import ast
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from support.walk import code_of

from labkit.cli import main
from labkit.config.layers import course, resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import hash_today, read_config
from labkit.config.workspace import Workspace
from labkit.lab import Lab
from labkit.lab.lesson import lesson_of
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import UNWATCHED
from labkit.ledger.shape import plain
from labkit.runs.resume import unfinished
from labkit.runs.runner import resume, run

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "data" / "first_version"
NOTEBOOKS = sorted((OLD / "labs").glob("*.ipynb"))
THEN = Workspace(OLD / "workspace")
EXPERIMENTS = sorted(path.stem for path in THEN.configs.glob("*.yaml"))
PROFILES = sorted(path.stem for path in THEN.profiles.glob("*.yaml"))
RUNS = sorted((OLD / "runs").glob("*/*/*/config.json"))


def in_todays_words(written):
    """A record of then; the only difference is what the words of today are for it."""
    now = {"fallback" if key == "rung" else key: value for key, value in written.items()}
    now["config"] = now["config"] | {"device": "simulated"}
    now["device"] = now["device"] and now["device"].replace("virtual GPU", "simulated GPU")
    now["memory"] = now["memory"] and now["memory"] | {"source": "simulated GPU"}
    if now["diagnosis"] and now["diagnosis"]["kind"] == "virtual_gpu_full":
        now["diagnosis"] = now["diagnosis"] | {"kind": "simulated_gpu_full"}
    return now


@pytest.fixture
def old(tmp_path, monkeypatch) -> Ledger:
    """A copy of the ledger of then, which commands of today read."""
    shutil.copytree(OLD / "runs", tmp_path / "runs")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "250")
    return Ledger(tmp_path / "runs")


def said(capsys, *arguments, code=0):
    """What the command prints on both streams."""
    assert main([*arguments]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return out + err


def the(old, experiment, status, **more):
    """The one run of then that is so."""
    found = [
        folder for folder in old.folders("tiny", experiment) if (record := folder.read()).status == status
        and all(bool(getattr(record, name)) == value for name, value in more.items())
    ]  # fmt: skip
    (folder,) = found
    return folder


def test_every_record_is_read_and_has_what_it_had(old):
    records = {record.id: record for record in old.records()}
    assert len(records) == len(RUNS) == 7
    assert {record.status for record in records.values()} == {"ok", "oom", "killed"}
    for path in RUNS:
        written = json.loads((path.parent / "record.json").read_text())
        record = records[path.parent.name]
        assert written["schema"] == 2
        assert (written["config"]["device"], written["config"]["strategy"]) == ("virtual", "auto")
        now = in_todays_words(written)
        for key in now.keys() - {"schema", "config_hash"}:
            assert plain(getattr(record, key)) == now[key], key
        assert record.ranks == []
        assert record.memory.peak_bytes <= record.peak_bytes


def test_a_run_whose_record_is_lost_is_told_by_its_events(old):
    for folder in old.folders():
        before = folder.read()
        folder.record.unlink()
        after = folder.read()
        assert after.losses == before.losses
        assert after.memory == before.memory
        assert (after.status, after.reason) == ("killed", UNWATCHED)


def test_settings_of_then_are_those_of_today(old):
    for record in old.records():
        config = read_config(record.config)
        assert {key: config.to_dict()[key] for key in record.config} == record.config
        assert record.config_hash == config.hash
        if not record.overrides:  # the course has not changed either
            assert record.config_hash == resolve(Workspace.find(), record.experiment).config.hash


def test_a_hash_that_is_not_of_its_settings_stays(old):
    written = json.loads((RUNS[0].parent / "record.json").read_text())
    values, named = written["config"], written["config_hash"]
    assert hash_today(values, named) != named
    assert hash_today(values, "0" * 12) == "0" * 12
    assert hash_today(values | {"batch_size": 7}, named) == named
    today = read_config(values)
    assert hash_today(today.to_dict(), named) == named


@pytest.mark.slow
def test_the_ledger_is_compared(old, capsys):
    text = said(capsys, "compare")
    assert "config edited since" not in text
    assert "skipped" not in text
    rows = json.loads(said(capsys, "compare", "--json"))
    rows = rows if isinstance(rows, list) else rows["rows"]
    assert not any(row["outdated"] for row in rows)
    assert {"baseline", "reduced_batch", "food_lora"} <= {row["experiment"] for row in rows}


@pytest.mark.slow
def test_every_run_is_shown_and_diagnosed(old, capsys):
    for folder in old.folders():
        record = folder.read()
        text = said(capsys, "show", record.id)
        assert record.experiment in text and record.status in text.replace("out of memory", "oom")
        assert json.loads(said(capsys, "show", record.id, "--json"))["id"] == record.id
        text = said(capsys, "diagnose", record.id)
        assert text.strip()
    assert "out of memory" in said(capsys, "show", the(old, "baseline", "oom").path.name)


def test_a_run_that_went_on_then_has_both_its_attempts(old):
    record = the(old, "reduced_batch", "ok", attempts=True).read()
    (attempt,) = record.attempts
    assert attempt.status == "killed"
    assert len(record.losses) == 8


def test_what_auto_fit_changed_is_known(old):
    record = the(old, "reduced_batch", "ok", fallback=True).read()
    assert record.fallback.of in {other.id for other in old.records()}


def test_a_killed_run_without_a_checkpoint_is_refused_by_that_reason(old, capsys):
    folder = the(old, "food_lora", "killed")
    shutil.rmtree(folder.path / "checkpoints")
    with pytest.raises(LedgerError, match="has saved no step; run it again, with enable_checkpointing=true"):
        resume(folder)
    text = said(capsys, "run", "--resume", folder.path.name, code=2)
    assert "has saved no step" in text and text.count("\n") == 1
    with pytest.raises(LedgerError, match="nothing left to do"):
        resume(the(old, "reduced_batch", "ok", attempts=True))


@pytest.mark.slow
def test_a_run_with_a_step_that_was_saved_then_goes_on_today(old):
    folder = the(old, "food_lora", "killed")
    before = folder.read()
    saved = json.loads(folder.newest_checkpoint().read_text())
    resolved = resolve(Workspace.find(), before.experiment, before.overrides)
    assert unfinished(old, resolved, {}).path == folder.path  # the same command finds it
    record = run(before.experiment, before.overrides)
    assert (record.id, record.status) == (before.id, "ok")
    assert record.attempts[-1].resumed_at_step == saved["step"]
    whole = the(old, "food_lora", "ok", attempts=False).read()
    assert record.losses[: saved["step"]] == whole.losses[: saved["step"]]
    assert record.losses == pytest.approx(whole.losses, rel=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_experiments_and_profiles_of_then_are_read(profile, monkeypatch):
    monkeypatch.setenv("LABKIT_WORKSPACE", str(THEN.root))
    assert len(EXPERIMENTS) == 16
    assert [one.name for one in course(THEN)][:15] == list(load_profile(THEN, profile).expected)
    for name in EXPERIMENTS:
        resolved = resolve(THEN, name, {}, profile)
        assert set(resolved.origins.values())
        if profile == "tiny":
            assert resolved.config == resolve(Workspace.find(), name, {}, profile).config


@pytest.mark.slow
def test_a_workspace_of_then_is_planned_and_listed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABKIT_WORKSPACE", str(THEN.root))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert "xxl_qlora" in said(capsys, "configs")
    assert "tiny" in said(capsys, "profiles")
    assert "fits" in said(capsys, "plan", "reduced_batch")


@pytest.mark.slow
def test_a_lab_takes_runs_and_answers_of_then(old, monkeypatch):
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    lab = Lab("00_setup")
    before = old.records()
    found = lab.recall("reduced_batch", max_steps=2, num_train_samples=32)
    assert found.id == the(old, "reduced_batch", "ok", attempts=False, fallback=False).path.name
    assert old.records() == before  # nothing was run
    (answer,) = lab.journal.entries("answer", lab="00_setup")
    assert (answer["answer"], answer["committed"]) == (18, "before")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_of_then_call_what_there_is(path):
    lesson = lesson_of(path.stem)
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, first = node.func.attr, node.args[0].value if node.args and isinstance(
                node.args[0], ast.Constant) else None  # fmt: skip
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "lab":
                assert hasattr(Lab, name), name
            if name == "ask":
                assert lesson.question(first)
            elif name == "explain":
                assert any(one.id == first for one in (*lesson.questions, *lesson.topics)), first
            elif name == "check" and first:
                assert lesson.check(first)
            elif name in ("run", "predict", "recall") and isinstance(first, str):
                assert first in EXPERIMENTS


@pytest.mark.slow
def test_each_notebook_of_then_is_executed_or_has_the_code_of_one_of_today_that_is():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(OLD / "labs"), str(ROOT / "labs")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    executed = {line.partition("::")[0] for line in said.splitlines()}
    assert len(NOTEBOOKS) == 13
    for path in NOTEBOOKS:
        today = ROOT / "labs" / path.name
        assert str(today.relative_to(ROOT)) in executed
        assert str(path.relative_to(ROOT)) in executed or code_of(path) == code_of(today), path


@pytest.mark.slow
def test_a_notebook_of_then_is_executed_today(tmp_path, monkeypatch, warm_kernels):
    from nbclient import NotebookClient

    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    notebook = nbformat.read(OLD / "labs" / "00_setup.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(OLD / "labs")}}).execute()
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    text = "\n".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)
    assert "mode: plan" in text and "predicted" in text
    assert "[failed]" not in text and not any(out.output_type == "error" for out in outputs)
    assert not list(tmp_path.glob("*/*/*/config.json"))


def test_the_data_names_no_machine_and_is_small():
    files = [path for path in OLD.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        text = path.read_bytes()
        for place in (ROOT, Path.home(), Path(tempfile.gettempdir())):
            assert f"{place}/".encode() not in text, (path, place)
