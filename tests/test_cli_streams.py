"""Standard output and error that are closed, full, cut off or without letters end no run, and give no traceback."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.cli import main
from labkit.config.secrets import child_environment
from labkit.config.workspace import Workspace

VERBS = Path(__file__).parents[1] / "labkit" / "verbs"
RUN = "run reduced_batch max_steps=1"
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def shell(line, **env):
    """A line for a shell, in which ``labkit`` is the command."""
    line = line.replace("labkit", f"{sys.executable} -m labkit.cli")
    return subprocess.run(["bash", "-c", line], capture_output=True, env=os.environ | env, timeout=120)


def only_record(ledger):
    (record,) = ledger.records("tiny")
    return record


@pytest.mark.slow
@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", ">/dev/full 2>&1", "--json >/dev/full"])
def test_a_run_comes_to_its_end_whatever_its_output_is(redirected, ledger):
    done = shell(f"labkit {RUN} {redirected}")
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert only_record(ledger).status == "ok"
    (folder,) = ledger.folders()  # the first file that is opened gets the number of a standard descriptor
    assert (folder.path / "lock").read_bytes() == b""
    if redirected.endswith(">/dev/full"):
        assert done.stderr == b"error: standard output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_a_run_comes_to_its_end_when_its_reader_has_gone(ledger):
    done = shell(f"labkit {RUN} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert only_record(ledger).status == "ok"


READS = ("compare", "compare --json", "configs --keys", "profiles tiny", "run baseline --show-config", "--help", "")


@pytest.mark.slow
@pytest.mark.parametrize("verb", READS)
def test_what_could_not_be_written_is_said_and_is_no_success(verb, ledger):
    full = shell(f"labkit {verb} >/dev/full")
    assert full.returncode == 1
    assert full.stderr.endswith(b"error: standard output cannot be written: No space left on device\n")
    for redirected in (">&- 2>&-", "2>/dev/full", "| true; exit ${PIPESTATUS[0]}"):
        done = shell(f"labkit {verb} {redirected}")
        assert done.returncode == 0, redirected
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["nothing", "show nothing", "compare --nothing"])
@pytest.mark.parametrize("redirected", [">/dev/full", "2>/dev/full", ">&- 2>&-"])
def test_a_wrong_command_line_keeps_its_exit_code(wrong, redirected, ledger):
    done = shell(f"labkit {wrong} {redirected}")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") <= 1


@pytest.mark.slow
def test_an_archive_that_is_cut_off_is_no_success(ledger):
    assert shell(f"labkit {RUN} >&-").returncode == 0
    for redirected in (">/dev/full", "| true; exit ${PIPESTATUS[0]}"):
        done = shell(f"labkit submit --name ann --output - {redirected}")
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1 and b"cut off" in done.stderr


LETTERS = "größe_数"


@pytest.fixture
def workspace(tmp_path, monkeypatch, ledger):
    """One with an experiment whose name and lesson are not ASCII."""
    root = tmp_path / "workspace"
    for kind in ("configs", "profiles"):
        (root / kind).mkdir(parents=True)
        for path in (Workspace.find().root / kind).glob("*.yaml"):
            (root / kind / path.name).write_bytes(path.read_bytes())
    text = (root / "configs" / "reduced_batch.yaml").read_text().replace("lesson: ", f"lesson: {LETTERS} ")
    (root / "configs" / f"{LETTERS}.yaml").write_text(text)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(root))
    return Workspace.find()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters_loses_no_table(encoding, workspace, ledger):
    env = {"PYTHONIOENCODING": encoding}
    known = LETTERS.encode(encoding, "replace")
    made = shell(f"labkit run {LETTERS} max_steps=1", **env)
    assert made.returncode == 0 and b"Traceback" not in made.stderr
    assert known in made.stdout
    for verb in ("compare", f"show {LETTERS}", "configs", f"run {LETTERS} --show-config"):
        done = shell(f"labkit {verb}", **env, COLUMNS="80")
        assert done.returncode == 0, verb
        assert known in done.stdout.replace(b"\n", b"") or known[:4] in done.stdout
    assert shell("labkit show nothing_数", **env).returncode == 2


@pytest.mark.slow
def test_under_the_c_locale_every_verb_prints(ledger):
    for verb in (RUN, "compare", "show reduced_batch", "configs", "profiles", "--help"):
        done = shell(f"labkit {verb}", **ASCII)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), verb
        assert len(done.stdout) > 50
        done.stdout.decode("ascii")
    assert only_record(ledger).status == "ok"


@pytest.mark.slow
def test_a_name_that_the_locale_cannot_read_is_refused_before_a_run_is_lost(workspace, ledger, tmp_path):
    done = shell(f"labkit run {LETTERS} max_steps=1", **ASCII)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and b"PYTHONUTF8=1" in done.stderr
    moved = workspace.root.rename(tmp_path / LETTERS)
    for verb in ("compare", RUN):
        done = shell(f"labkit {verb}", **ASCII, LABKIT_WORKSPACE=str(moved))
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1 and b"PYTHONUTF8=1" in done.stderr
    assert not ledger.root.exists()


@pytest.mark.slow
def test_what_a_child_prints_is_utf_8_whatever_the_terminal_is(monkeypatch):
    for name, value in ASCII.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", "print('größe 数 \\udcc3'); open('/dev/null', 'w').write('数')"],
        env=child_environment(), capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "größe 数".encode() in done.stdout


def test_verbs_print_through_one_door():
    """What ``print`` writes is not made harmless for a terminal; JSON is, since it escapes."""
    for path in VERBS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                assert "json.dumps" in ast.unparse(node), f"{path.name}:{node.lineno}"


@pytest.mark.slow
def test_json_of_letters_and_of_what_steers_a_terminal_is_ascii(workspace, capsys):
    assert main(["configs", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert any(LETTERS in row["lesson"] for row in json.loads(out))
