"""Help, the version, and what a wrong command line is told."""

import os
import subprocess
import sys

import pytest

from labkit.cli import VERBS, command_line, main
from labkit.config.versions import version_of

NAMES = [verb.__name__.rpartition(".")[2] for verb in VERBS]


def ended(arguments, capsys):
    """Exit code, standard output and error of a command that ends by itself."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


def test_alone_it_prints_help(capsys):
    code, out, err = ended([], capsys)
    assert (code, err) == (0, "")
    assert out == ended(["--help"], capsys)[1] == ended(["help"], capsys)[1]
    assert all(f"\n    {name} " in out for name in NAMES)


def test_its_version_is_the_packages(capsys):
    assert ended(["--version"], capsys) == (0, f"labkit {version_of('labkit')}\n", "")


@pytest.mark.parametrize("name", [None, *NAMES])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_fits_the_terminal_and_leaves_nothing_out(name, width, capsys, monkeypatch):
    arguments = ["help"] if name is None else ["help", name]
    monkeypatch.setenv("COLUMNS", "300")
    wide = ended(arguments, capsys)[1]
    monkeypatch.setenv("COLUMNS", str(width))
    code, narrow, _ = ended(arguments, capsys)
    assert code == 0
    assert max(map(len, narrow.splitlines())) <= width
    assert set(wide.split()) <= set(narrow.replace(" \\\n", "\n").split())
    if name is not None:
        assert narrow == ended([name, "--help"], capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["comparee"], "Did you mean 'compare'?"), (["shwo"], "Did you mean 'show'?"), (["xyzzy"], "It has run, plan"),
     (["help", "advize"], "Did you mean 'advise'?"), (["--verison"], "Did you mean --version?"),
     (["compare", "--chek"], "Did you mean --check?"), (["run", "baseline", "--profle", "x"], "mean --profile?"),
     (["plan", "baseline", "--gpus=4090"], "Did you mean --gpu?"), (["show"], "required: run"),
     (["compare", "extra"], "unrecognized arguments: extra"), (["slurm", "--nodes", "x"], "invalid int value: 'x'"),
     (["run", "baselin"], "Did you mean 'baseline'?"), (["show", "baselin"], "Did you mean 'baseline'?"),
     (["diagnose", "reduced_bach"], "Did you mean 'reduced_batch'?"), (["merge", "food_lroa", "x"], "'food_lora'"),
     (["plan", "baseline", "--gpu", "a10000"], "Did you mean"), (["run", "baseline", "batchsize=3"], "'batch_size'")],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_with_what_may_have_been_meant(arguments, says, ledger, capsys):
    code, out, err = ended(arguments, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert says in err


def test_every_option_is_known_to_the_one_who_proposes_them():
    parser = command_line()
    assert "--version" in parser.options
    for name in NAMES:
        sub = parser.parse_args([name, *(["x"] * 2 if name == "merge" else ["x"] if name in POSITIONAL else [])]).parser
        assert {"--json", "--help"} <= set(sub.options)


POSITIONAL = ("show", "diagnose", "caption", "collect", "grade", "advise")


@pytest.mark.slow
def test_a_note_says_which_gpu_a_name_without_a_size_is_taken_as(ledger, capsys):
    assert main(["plan", "baseline", "--gpu", "nothing"]) == 2
    assert "taken as" not in capsys.readouterr().err
    main(["compare", "--profile", "A100"])
    assert capsys.readouterr().err == "(A100 is taken as a100-80gb; it may also be a100-40gb)\n"
    main(["compare", "--profile", "a100 80gb"])
    out, err = capsys.readouterr()
    assert err == ""
    assert "profile a100-80gb" in out


CHECKS = {
    "no such image": ["caption", "RUN", "none.png"],
    "a folder for an image": ["caption", "RUN", "folder"],
    "no image": ["caption", "RUN", "empty.png"],
    "one good, one bad": ["caption", "RUN", "good.png", "empty.png"],
    "an unknown data set": ["caption", "RUN", "--dataset", "nothing"],
    "a run without weights": ["caption", "BARE", "good.png"],
    "no run": ["caption", "./folder", "good.png"],
    "a file for a run": ["caption", "good.png", "good.png"],
    "merge: a folder that is there": ["merge", "RUN", "folder"],
    "merge: a file": ["merge", "RUN", "good.png"],
    "merge: below a file": ["merge", "RUN", "good.png/new"],
    "merge: no run": ["merge", "./none", "new"],
    "merge: a file for a run": ["merge", "good.png", "new"],
    "merge: a run without an adapter": ["merge", "BARE", "new"],
    "merge: no such base": ["merge", "RUN", "new", "--base", "./none"],
    "merge: a base that is a file": ["merge", "RUN", "new", "--base", "good.png"],
    "merge: a base that is no model": ["merge", "RUN", "new", "--base", "./folder"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run that has kept an adapter, one that has kept nothing, and files that are no images."""
    from PIL import Image

    from labkit.runs.runner import run

    folder = tmp_path_factory.mktemp("place")
    Image.new("RGB", (8, 8)).save(folder / "good.png")
    (folder / "empty.png").touch()
    (folder / "folder").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        kept, bare = (run("baseline", timeout_s=0.01) for _ in range(2))
    (folder / "runs" / "tiny" / "baseline" / kept.id / "adapter").mkdir()
    return folder, {"RUN": kept.id, "BARE": bare.id}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CHECKS.values(), ids=list(CHECKS))
def test_a_bad_path_is_refused_before_anything_heavy_is_imported(arguments, place):
    folder, ids = place
    code = (
        "import sys; from labkit.cli import main; code = main(sys.argv[1:]);"
        "print(code, [m for m in ('torch', 'transformers', 'peft', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(ids.get(word, word) for word in arguments)], capture_output=True, text=True,
        cwd=folder, env=os.environ | {"LABKIT_RUNS": str(folder / "runs")},
    )  # fmt: skip
    assert (done.stdout, done.stderr.count("\n")) == ("2 []\n", 1), done.stderr
    assert done.stderr.startswith("error: ")
