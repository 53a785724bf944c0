"""What is printed fits the terminal, whole, and nothing that a record holds steers it."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from labkit.cli import main
from labkit.config.printable import printable
from labkit.ledger.ledger import Ledger
from labkit.ledger.table import Table, numbers, words
from labkit.ledger.tables import plan_table
from labkit.ledger.terminal import console, wrapped
from labkit.ledger.words import room_words
from labkit.memory.units import counted
from labkit.runs.runner import run

WIDTHS = (80, 100, 120, 200)
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?%?")


@pytest.fixture(scope="module")
def small_ledger(tmp_path_factory):
    """Two runs, one of which ran out of memory, with their predictions."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder))
        for name, values in (("baseline", {}), ("reduced_batch", {"max_steps": 2})):
            run(name, values)
    return Ledger(folder)


@pytest.fixture
def shown(small_ledger, monkeypatch, capsys):
    """What a command prints at a width."""
    monkeypatch.setenv("LABKIT_RUNS", str(small_ledger.root))

    def lines(width, *arguments):
        with pytest.MonkeyPatch.context() as patch:  # pytest itself reads COLUMNS when the test has ended
            patch.setenv("COLUMNS", str(width))
            main(list(arguments))
        return capsys.readouterr().out.splitlines()

    return lines


VERBS = (
    ["compare"], ["show", "reduced_batch"], ["show", "baseline"], ["plan", "baseline"], ["advise", "baseline"],
    ["diagnose", "baseline"], ["configs"], ["configs", "--keys"], ["profiles"], ["profiles", "tiny"],
    ["run", "baseline", "--show-config"],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
@pytest.mark.parametrize("width", [w for w in WIDTHS if w < 200])
def test_every_line_fits_and_every_number_of_a_wide_terminal_is_there_whole(arguments, width, shown):
    wide, narrow = shown(200, *arguments), shown(width, *arguments)
    too_long = [line for line in narrow if len(line.rstrip()) > width and " " in line.strip()]
    assert not too_long
    assert not [line for line in narrow if "…" in line]
    missing = set(NUMBER.findall("\n".join(wide))) - set(NUMBER.findall("\n".join(narrow)))
    assert not missing


def test_a_plan_of_the_whole_course_fits(monkeypatch, capsys):
    rows = [
        {
            "experiment": name, "verdict": "out of memory", "died_in": {"phase": "optimizer_step", "step": 0},
            "peak_bytes": peak << 20, "capacity_bytes": 94 << 30, "reserved_bytes": 93 << 30, "margin": -1.5,
            "host_bytes": 228 << 30,
            "peak_by_category": dict.fromkeys(
                ("parameters", "gradients", "optimizer_gpu", "activations", "temporaries"), (peak // 5) << 20
            ),
        }
        for name, peak in (("grad_accumulation_lr4x", 241_234), ("xxl_smallest_batch", 31_234))
    ] + [{"experiment": "xxl_cpu_offload", "error": "no"}]  # fmt: skip
    texts = {}
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        console().print(plan_table(rows, "h100-94gb"))
        texts[width] = capsys.readouterr().out
        assert max(map(len, texts[width].splitlines())) <= width
        assert set(NUMBER.findall(texts[width])) == set(NUMBER.findall(texts[80]))
    assert "lacks 141.6" in texts[80]
    assert "not predicted" in texts[80]


@pytest.mark.parametrize("width", [20, 33, 40, 57])
def test_a_terminal_without_room_for_one_column_folds_and_cuts_nothing(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    columns = [*words("experiment"), *numbers("peak", "of")]
    table = Table("title", columns, [["e" * 300, "12345.678", "94.8"]], keys=1)
    console().print(table)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert out.count("e") >= 300
    assert "94.8" in out
    assert "…" not in out


def test_columns_are_shared_out_evenly(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    columns = [*words("name"), *numbers(*(f"column{number}" for number in range(9)))]
    table = Table("title", columns, [["x", *"123456789"]])
    console().print(table)
    heads = [line for line in capsys.readouterr().out.splitlines() if "name" in line]
    assert [line.count("column") for line in heads] == [5, 4]


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["", "0", "-3", "nonsense", "²", "9" * 50])
def test_a_width_that_is_none_is_no_traceback(columns, shown):
    assert any("reduced_batch" in line for line in shown(columns, "compare"))


def in_a_terminal(width, *arguments, **env):
    """What a command prints in a terminal of its own that is this wide."""
    main_end, its_end = pty.openpty()
    subprocess.run(["stty", "cols", str(width), "rows", "40"], stdin=its_end, check=True)
    env = {"TERM": "xterm", **os.environ, **env}
    env.pop("COLUMNS", None)
    command = [sys.executable, "-m", "labkit.cli", *arguments]
    process = subprocess.Popen(command, stdin=its_end, stdout=its_end, stderr=its_end, env=env)
    os.close(its_end)
    said = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(main_end)
    assert process.wait() == 0
    return said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 100])
def test_a_terminals_own_width_counts(width, small_ledger):
    said = in_a_terminal(width, "compare", LABKIT_RUNS=str(small_ledger.root))
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)  # bold, and no bold
    assert "\x1b" not in said
    lines = said.splitlines()
    assert width - 25 < max(len(line) for line in lines if not line.startswith("Records")) <= width
    assert "…" not in said


@pytest.mark.slow
def test_a_pipe_gets_tables_in_one_piece(small_ledger):
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", "compare"], capture_output=True, text=True,
        env=os.environ | {"LABKIT_RUNS": str(small_ledger.root)},
    )  # fmt: skip
    (row,) = [line for line in done.stdout.splitlines() if line.strip().startswith("1  baseline")]
    assert len(NUMBER.findall(row)) >= 14


EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\rd\x1b]8;;http://x\x1b\\e\u202ef\x9b31mg\u2066hi"


@pytest.fixture
def evil_ledger(small_ledger, tmp_path, monkeypatch):
    """A record whose every text steers terminals."""
    shutil.copytree(small_ledger.root, tmp_path / "runs")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    for path in (tmp_path / "runs").rglob("record.json"):
        record = json.loads(path.read_text())
        record["reason"] = EVIL + "\x00"
        record["device"] = EVIL
        record["overrides"] = {"max_steps": EVIL}
        record["diagnosis"] = {
            "kind": "other", "happened": EVIL, "evidence": [EVIL], "next_steps": [EVIL, f"labkit run {EVIL}  # {EVIL}"]
        }  # fmt: skip
        record["status"] = "failed"
        record["out_of_memory"] = record["prediction"] = None
        path.write_text(json.dumps(record))
    return Ledger(tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["compare"], ["show", "reduced_batch"], ["show", "baseline"], ["diagnose", "baseline"], ["show", EVIL],
     ["caption", EVIL, "x.png"], ["plan", EVIL], ["plan", "baseline", "--gpu", EVIL], ["merge", "baseline", EVIL],
     ["fetch", EVIL], ["doctor", EVIL], ["grade", EVIL], ["submit", "--name", EVIL], ["compare", f"--{EVIL}"],
     [EVIL], ["help", EVIL], ["profiles", EVIL], ["compare", "--profile", EVIL], ["slurm", EVIL],
     ["slurm", "--job", EVIL], ["diagnose", EVIL], ["doctor", "--slurm", EVIL], ["run", EVIL], ["advise", EVIL],
     ["configs", EVIL]],
    ids=lambda arguments: " ".join(arguments).replace(EVIL, "EVIL"),
)  # fmt: skip
@pytest.mark.parametrize("width", ["", "80"])
def test_nothing_that_steers_a_terminal_is_printed(arguments, width, evil_ledger, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", width)
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 2
    out, err = capsys.readouterr()
    assert out + err
    assert all(c.isprintable() or c == "\n" for c in out + err)


def test_a_log_that_steers_a_terminal_is_cleaned(tmp_path, capsys):
    log = tmp_path / "x.log"
    log.write_text(f"Traceback (most recent call last):\nRuntimeError: {EVIL}\n")
    assert main(["diagnose", str(log)]) == 0
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)


def test_the_bar_of_a_run_has_no_markup_and_no_format(capsys):
    from labkit.runs.progress import ProgressPrinter

    with ProgressPrinter(console(), "[red]{0}{x.y}\x1b[2J", 1) as printer:
        printer({"event": "created", "folder": "x"})
        printer({"event": "resumed", "folder": "[bold]\x1b]0;x\x07", "step": 3})
    out = capsys.readouterr().out
    assert "[red]{0}{x.y}" in out
    assert "[bold]" in out
    assert "\x1b" not in out and "\x07" not in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("a\tb\xa0c", "a b c"), ("a\r\nb", "a\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202e", "\\u202e"),
     ("\udcc3", "\\udcc3"), ("é数", "é数"), ("\x07\x9b", "\\x07\\x9b")],
)  # fmt: skip
def test_what_steers_a_terminal_is_made_visible(text, shown):
    assert printable(text) == shown


def test_a_line_continues_where_it_began_and_a_command_after_a_backslash():
    assert wrapped("  one two three", 9) == "  one two\n    three"
    assert wrapped("name     first second third", 20) == "name     first\n         second\n         third"
    command = "   labkit run baseline batch_size=16 accumulate_grad_batches=2 --profile tiny"
    lines = wrapped(command, 40).splitlines()
    assert all(line.endswith(" \\") for line in lines[:-1]) and max(map(len, lines)) <= 40
    assert " ".join(line.strip(" \\") for line in lines) == command.strip()
    assert wrapped("labkit run x 'a b' and more words here", 20) == "labkit run x 'a b' and more words here"
    assert wrapped("labkit run x  # a comment of words", 20).splitlines()[0] == "labkit run x"
    assert wrapped("/a/path/that/is/longer/than/the/terminal", 10) == "/a/path/that/is/longer/than/the/terminal"
    assert wrapped("a line", None) == "a line"


@pytest.mark.parametrize(
    ("peak", "capacity", "words"),
    [(50, 100, "50% free"), (100, 100, "0% free"), (101 << 20, 100 << 20, "needs 1.00 MiB more"),
     (351 << 30, 100 << 30, "needs 251.00 GiB more"), (5, None, "no capacity given")],
)  # fmt: skip
def test_no_share_of_the_memory_is_below_zero(peak, capacity, words):
    assert room_words(peak, capacity) == words


def test_one_is_not_many():
    assert [counted(n, "student") for n in (0, 1, 2)] == ["0 students", "1 student", "2 students"]


@pytest.mark.slow
def test_a_plan_of_what_does_not_fit_says_how_much_more_it_needs(ledger, capsys):
    main(["plan", "baseline", "capacity_gib=0.01"])
    out = capsys.readouterr().out
    assert re.search(r"needs \d+\.\d\d MiB more", out)
    assert not re.search(r"-\d+%", out)
