"""First contact takes every branch without a GPU: what is red, hangs, dies, leaves something or is not reached."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import first_contact
import gpu_check
import pytest
import torch
from first_contact import MIB, Check, Probes, Shape, Skipped, Wrong

from labkit.config.gpus import find_gpu
from labkit.memory import cuda
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import PhaseMemory
from labkit.runs import runner
from labkit.train.attention import kernels

SCRIPT = Path(first_contact.__file__)
DOUBLES = """
import os, signal, subprocess, sys, time
from first_contact import Skipped, Wrong

def seen(): return "seen", {"number": 1}
def wrong(): raise Wrong("7 is not 8", {"number": 7})
def skipped(): raise Skipped("no bitsandbytes")
def full(): bytearray(2**60)
def slow(): time.sleep(60)
def no_library(): raise Skipped("no bitsandbytes", "Install bitsandbytes.")
def tells_of_folders():
    import sysconfig
    from pathlib import Path
    import first_contact
    root, site = first_contact.Workspace.find().root, sysconfig.get_path("purelib")
    own = first_contact.__file__
    told = f"{root}/configs/a.yaml, {own}, {site}/torch/a.py, {Path.home()}/b, {sys.executable}"
    raise Wrong(told, {"folders": [told], str(root): 1})
def dies(): os.kill(os.getpid(), signal.SIGKILL)
def leaves():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    return "left", {}

def good(probes): probes.probe("one", seen, stand_in=True); probes.probe("two", skipped)
def red(probes): probes.probe("first", seen); probes.probe("second", wrong); probes.probe("third", full)
def hangs(probes): probes.probe("first", seen); probes.probe("second", slow)
def hangs_in_lab_7(probes): probes.probe("one", slow, labs="07", when_stopped="Compile first.", stand_in=True)
def six(probes): probes.probe("one", seen); [probes.probe(f"probe {n}", no_library) for n in range(6)]
def folders(probes): probes.probe("one", tells_of_folders); sys.exit(print(sys.path) or 3)
def no_smi(probes): probes.probe("nvidia-smi", wrong); probes.probe("torch initializes", seen)
def unsaid(probes): probes.probe("facts", wrong); probes.probe("torch", seen); probes.probe("code", full)
def killed(probes): probes.probe("first", seen); probes.probe("second", dies)
def tells(): raise Wrong("hf_" + "b" * 34)
def broken(probes): probes.probe("one", tells); raise ValueError("hf_" + "a" * 34)
def nothing(probes): probes.probe("one", skipped)
def leaving(probes): probes.probe("one", leaves)
def left(probes): first_contact = sys.modules["first_contact"]; first_contact.left(probes)
"""


def check_of(name, limit_s=30.0):
    return Check(
        name=name, title=f"The check {name}", work=f"doubles:{name}", limit_s=limit_s, means=f"{name} means this.",
        labs="05 to 09", to_do=f"Do this about {name}.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def doubles(tmp_path_factory):
    """A folder with the module ``doubles``, in the path of every process."""
    folder = tmp_path_factory.mktemp("doubles")
    (folder / "doubles.py").write_text(DOUBLES)
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(folder), str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setattr(first_contact, "GRACE_S", 1.0)
        yield folder


# -- the order of checks, with made-up ones


@pytest.fixture(scope="module")
def contact(doubles, tmp_path_factory):
    """One call in which each check ends in a way of its own."""
    out = tmp_path_factory.mktemp("contact")
    names = ("good", "red", "killed", "broken", "nothing", "leaving", "left")
    checks = [*map(check_of, names[:2]), check_of("hangs", limit_s=4.0), *map(check_of, names[2:])]
    data = first_contact.conduct(checks, out, dry=True, budget_s=600.0)
    entries = {entry["name"]: entry for entry in data["checks"]}
    return SimpleNamespace(out=out, data=data, entries=entries, page=(out / "first_contact.md").read_text())


@pytest.mark.slow
def test_whatever_happens_to_a_check_the_next_follows(contact):
    assert {name: entry["result"] for name, entry in contact.entries.items()} == {
        "good": "ok", "red": "failed", "hangs": "timeout", "killed": "failed", "broken": "failed",
        "nothing": "skipped", "leaving": "ok", "left": "failed",
    }  # fmt: skip
    assert not first_contact.passed(contact.data)
    assert json.loads((contact.out / "first_contact.json").read_text())["checks"] == contact.data["checks"]


@pytest.mark.slow
def test_a_probe_that_fails_or_runs_out_of_memory_does_not_end_its_check(contact):
    first, second, third = contact.entries["red"]["probes"]
    assert (first["result"], second["result"], second["numbers"]) == ("ok", "failed", {"number": 7})
    assert third["found"].startswith("MemoryError")
    assert contact.entries["red"]["found"] == "second: 7 is not 8, and 1 more; 1 of 3 probes ok"


@pytest.mark.slow
def test_one_that_hangs_is_stopped_at_its_limit_and_says_where(contact):
    entry = contact.entries["hangs"]
    assert entry["found"] == "stopped after 4 s in 'second'; 1 of 2 probes ok"
    assert entry["to_do"] == "Again alone: --only hangs. Do this about hangs."
    assert 4.0 <= entry["seconds"] < 30.0
    first, second = entry["probes"]
    assert (first["result"], second["name"], second["result"]) == ("ok", "second", "timeout")
    assert 0 < second["seconds"] <= entry["seconds"]
    assert "| second | timeout | " in contact.page


@pytest.mark.slow
def test_one_that_is_killed_says_by_what_and_where(contact):
    assert contact.entries["killed"]["found"] == (
        "killed by SIGKILL, which the kernel sends when host memory runs out in 'second'; 1 of 1 probes ok"
    )


@pytest.mark.slow
def test_one_that_breaks_tells_its_last_line_without_a_secret(contact):
    entry = contact.entries["broken"]
    assert entry["found"].startswith("exit code 1: ValueError: ")
    for path in contact.out.iterdir():
        assert "a" * 34 not in path.read_text()
        assert "b" * 34 not in path.read_text()


@pytest.mark.slow
def test_what_a_check_leaves_behind_is_ended_and_told_at_the_end(contact):
    [line] = contact.entries["leaving"]["left_behind"]
    assert "time.sleep(60)" in line
    assert "had to be killed after their check: leaving" in contact.entries["left"]["found"]
    assert not [line for _, line in first_contact.command_lines() if "import time; time.sleep(60)" in line]


@pytest.mark.slow
def test_the_page_is_one_table_then_what_is_red_with_its_labs_then_the_probes(contact):
    head, *_ = contact.page.split("## ")
    assert "**dry: simulated. Nothing here was measured on a GPU" in head
    assert "ok: good, leaving; failed: red, killed, broken, left; timeout: hangs; skipped: nothing." in head
    rows = [line for line in head.splitlines() if line.startswith("|")]
    assert rows[0] == "| # | name | check | result | s | found | what to do |"
    assert len(rows) == 2 + 8
    assert "| 1 | good | The check good | ok | " in rows[2]
    assert rows[2].endswith(
        "1 of 2 probes ok; skipped: two: no bitsandbytes | Continue without two, or see to what it needs. |"
    )
    assert rows[7].endswith("| Continue without one, or see to what it needs. Labs: 05 to 09. |")
    red = contact.page.split("## Red: The check red")[1].split("## ")[0]
    assert red.strip().startswith("red means this.\n\nLabs: 05 to 09.\n\nDo this about red.\n\n    first: ok, seen")
    assert contact.page.count("## Red: ") == 5
    assert re.search(r"\| one \| ok \| [0-9.]+ \| seen \| dry: simulated \|", contact.page)


@pytest.mark.slow
def test_every_table_of_the_page_has_as_many_cells_in_each_line(contact):
    blocks = [block.splitlines() for block in contact.page.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 1 + 8
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1


def results_of(data):
    return {entry["name"]: entry["result"] for entry in data["checks"]}


def driver_of(work):
    return replace(check_of(work), name="driver")


@pytest.mark.slow
def test_after_a_red_driver_nothing_else_is_started(doubles, tmp_path, capsys):
    checks = [driver_of("unsaid"), check_of("good"), check_of("left")]
    data = first_contact.conduct(checks, tmp_path, dry=False, budget_s=600.0)
    assert results_of(data) == {"driver": "failed", "good": "skipped", "left": "skipped"}
    assert [(e["found"], e["to_do"], e["log"], e["probes"]) for e in data["checks"][1:]] == 2 * [
        ("driver is red", "Put the driver right, then start again.", [], [])
    ]
    assert not first_contact.passed(data)
    text = (tmp_path / "first_contact.md").read_text()
    assert (
        "| 3 | left | The check left | skipped | - | driver is red | Put the driver right, then start again. " in text
    )
    assert "The GPU is not known: `driver` failed. " in text
    assert capsys.readouterr().out.splitlines()[-1] == "left: skipped, driver is red"


@pytest.mark.slow
def test_without_nvidia_smi_the_others_are_started_as_long_as_torch_computes(doubles, tmp_path):
    data = first_contact.conduct([driver_of("no_smi"), check_of("good")], tmp_path, dry=False, budget_s=600.0)
    assert results_of(data) == {"driver": "failed", "good": "ok"}


@pytest.mark.slow
def test_each_cause_that_the_driver_check_has_found_is_in_its_row(doubles, tmp_path):
    [entry] = first_contact.conduct([driver_of("unsaid")], tmp_path, dry=False, budget_s=600.0)["checks"]
    assert entry["found"].startswith("facts: 7 is not 8; code: MemoryError")
    assert entry["found"].endswith("; 1 of 3 probes ok")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "`driver` was not among these checks"), ("failed", "`driver` failed"),
        ("timeout", "`driver` was stopped at its limit"), ("not reached", "the first check has not come to it"),
        ("running", "the first check has not come to it"),
    ],
)  # fmt: skip
def test_the_page_says_why_the_gpu_is_not_known(result, why):
    checks = [{"name": "driver", "result": result}] if result else [{"name": "left", "result": "ok"}]
    data = {"begun": "now", "seconds": 1.0, "budget_s": 600.0, "checks": checks}
    assert first_contact._machine_words(data, None).startswith(f"The GPU is not known: {why}. ")


@pytest.mark.slow
def test_what_was_skipped_is_told_once_with_what_to_do(doubles, tmp_path):
    [entry] = first_contact.conduct([check_of("six")], tmp_path, dry=True, budget_s=600.0)["checks"]
    assert entry["found"] == (
        "one: seen; 1 of 7 probes ok; skipped: probe 0, probe 1, probe 2 and 3 more: no bitsandbytes"
    )
    assert (entry["result"], entry["to_do"]) == ("ok", "Install bitsandbytes.")


@pytest.mark.slow
def test_a_probe_that_was_stopped_names_its_own_labs_and_advice(doubles, tmp_path, capsys):
    checks = [check_of("hangs_in_lab_7", limit_s=8.0)]
    [entry] = first_contact.conduct(checks, tmp_path, dry=True, budget_s=600.0)["checks"]
    assert entry["to_do"] == "Compile first. Then again alone: --only hangs_in_lab_7"
    assert [(p["name"], p["result"], p["place"]) for p in entry["probes"]] == [("one", "timeout", "dry: simulated")]
    red = (tmp_path / "first_contact.md").read_text().split("## Red: ")[1]
    assert "\n\nLabs: 07.\n\nCompile first. Then" in red
    assert "log" not in red
    assert capsys.readouterr().out.startswith("hangs_in_lab_7 …\nhangs_in_lab_7: timeout, ")


@pytest.mark.slow
def test_no_folder_of_the_machine_is_written(doubles, tmp_path):
    [entry] = first_contact.conduct([check_of("folders")], tmp_path, dry=True, budget_s=600.0)["checks"]
    checkout = SCRIPT.parents[2]
    folders = [first_contact.Workspace.find().root, checkout, sysconfig.get_path("purelib"), Path.home(), sys.prefix]
    for name in ("first_contact.json", "first_contact.md"):
        text = (tmp_path / name).read_text()
        for folder in map(Path, folders):
            assert f"{folder}/" not in text and f"{folder.resolve()}/" not in text
    assert entry["probes"][0]["found"].startswith(
        "<workspace>/configs/a.yaml, <checkout>/tests/benchmarks/first_contact.py, <site-packages>/torch/a.py, ~/b, "
    )
    assert any("<checkout>" in line for line in entry["log"])


def test_only_whole_folders_are_shortened():
    places = {"/u/ann": "~", "/u/ann/course": "<checkout>"}
    for text in ("/u/anna/a", "/srv/u/ann/a", "/u/ann.d/a", "/u/ann-2"):
        assert first_contact.shorten(text, places) == text
    assert first_contact.shorten("at /u/ann. In '/u/ann/course/a' and file:///u/ann/b", places) == (
        "at ~. In '<checkout>/a' and file://~/b"
    )


def test_what_is_long_ends_with_a_sentence_or_a_word():
    assert first_contact.cut("short  and\nwhole", 20) == "short and whole"
    assert first_contact.cut("CUDA is full. Tried to allocate 2.50 GiB", 30) == "CUDA is full."
    assert first_contact.cut("one two three, e.g. four five", 24) == "one two three, e.g.…"
    assert first_contact.cut("one two three, four five", 20) == "one two three…"
    assert first_contact.line_of(ValueError("word " * 200)).endswith(" word…")
    with pytest.raises(Wrong, match="word…$"):
        first_contact.ended_ok(record(status="failed", reason="sword " * 200))


def test_what_the_budget_has_no_time_for_is_named(doubles, tmp_path):
    checks = [check_of("good"), check_of("nothing")]
    data = first_contact.conduct(checks, tmp_path, dry=True, budget_s=5.0)
    assert results_of(data) == {"good": "not reached", "nothing": "not reached"}
    assert not first_contact.passed(data)
    text = (tmp_path / "first_contact.md").read_text()
    assert (
        "| 2 | nothing | The check nothing | not reached | - | 5 s of 5 s were left | Again alone: --only nothing |"
        in text
    )


@pytest.mark.slow
def test_the_last_check_has_its_time_kept(doubles, tmp_path):
    checks = [check_of("red"), check_of("good")]
    data = first_contact.conduct(checks, tmp_path, dry=True, budget_s=first_contact.RESERVED_S)
    assert results_of(data) == {"red": "not reached", "good": "ok"}
    assert first_contact.passed(data)


@pytest.mark.slow
def test_a_check_is_stopped_when_the_budget_is_over(doubles, tmp_path, monkeypatch):
    monkeypatch.setattr(first_contact, "LEAST_S", 1.0)
    monkeypatch.setattr(first_contact, "RESERVED_S", 0.5)
    data = first_contact.conduct([check_of("hangs"), check_of("good")], tmp_path, dry=True, budget_s=5.0)
    assert results_of(data) == {"hangs": "timeout", "good": "not reached"}
    assert ", when the budget was over in 'second'" in data["checks"][0]["found"]


@pytest.mark.slow
def test_a_command_that_is_stopped_leaves_its_page_and_no_process(doubles, tmp_path):
    text = (
        "import sys, first_contact\n"
        "from first_contact import Check\n"
        f"first_contact.CHECKS = ({check_of('hangs')!r}, {check_of('good')!r})\n"
        f"sys.exit(first_contact.main(['--dry', '--out', {str(tmp_path)!r}]))\n"
    )
    env = os.environ | {"PYTHONPATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PYTHONPATH']}"}
    with subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE, text=True, env=env) as command:
        while not any(str(tmp_path) in line and "--child" in line for _, line in first_contact.command_lines()):
            assert command.poll() is None
            time.sleep(0.05)
        command.send_signal(signal.SIGTERM)
        assert command.wait(30) == 1
        assert command.stderr.read() == "interrupted; what was found until now is in first_contact.md.\n"
    assert not [line for _, line in first_contact.command_lines() if str(tmp_path) in line]
    checks = json.loads((tmp_path / "first_contact.json").read_text())["checks"]
    assert [(c["result"], c["found"]) for c in checks] == [("not reached", "interrupted"), ("not reached", "")]


def test_every_check_of_the_course_is_whole_and_has_its_work_here():
    assert [check.name for check in first_contact.CHECKS] == [
        "driver", "memory", "maths", "attention", "cudnn_attention", "filling", "precisions", "methods", "resume",
        "rows", "left",
    ]  # fmt: skip
    for check in first_contact.CHECKS:
        assert callable(getattr(first_contact, check.work.removeprefix("first_contact:")))
        assert check.limit_s > first_contact.LEAST_S
        assert all((check.means, check.labs, check.to_do))
    assert first_contact.RESERVED_S > first_contact.LEAST_S


# -- the real ones, dry


@pytest.mark.slow
def test_the_command_goes_through_without_a_gpu_and_marks_what_is_made_up(tmp_path):
    """The checks that start no run; those that do are made up below, and all of them go by hand with --dry."""
    command = [sys.executable, SCRIPT, "--dry", "--out", tmp_path, "--only", "driver", "memory", "left"]
    env = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads((tmp_path / "first_contact.json").read_text())
    assert results_of(data) == {"driver": "ok", "memory": "ok", "left": "ok"}
    places = {p["name"]: p["place"] for entry in data["checks"] for p in entry["probes"]}
    assert places["nvidia-smi"] == places["first convolution"] == "dry: simulated"
    assert places["torch"] == "CPU"
    text = (tmp_path / "first_contact.md").read_text()
    assert "NVIDIA H100 NVL (dry: simulated), driver 580.82.07, CUDA 13.0, cuDNN 91600, compute capability 9.0" in text
    assert f"torch {torch.__version__}" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first_contact.json", "first_contact.md"]


@pytest.fixture
def probes(tmp_path):
    return Probes(tmp_path / "found.json", tmp_path, dry=True, limit_s=60.0)


@pytest.fixture
def on_cuda(tmp_path):
    """As on a machine with a GPU; what it asks of it has to be made up."""
    return Probes(tmp_path / "found.json", tmp_path, dry=False, limit_s=60.0)


def found_of(probes):
    return {probe["name"]: (probe["result"], probe["found"]) for probe in probes.done}


# -- driver and memory


SMI = """#!/bin/sh
case "$1" in
  *name*) echo "NVIDIA A100-SXM4-80GB, 570.1, 81920 MiB, 5 MiB" ;;
  *mig*) echo Enabled ;;
  *) echo "| NVIDIA-SMI 570.1   Driver Version: 570.1   CUDA Version: 12.8 |" ;;
esac
"""


def put_on_path(monkeypatch, folder, text):
    program = folder / "nvidia-smi"
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
def test_a_driver_that_torch_cannot_use_is_red_where_it_is_met(on_cuda, tmp_path, monkeypatch):
    put_on_path(monkeypatch, tmp_path, SMI)
    old = "The NVIDIA driver on your system is too old (found version 12080)."

    def refuse():
        raise RuntimeError(old)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: refuse())
    monkeypatch.setattr(gpu_check, "in_child", lambda work: refuse())
    first_contact.driver(on_cuda)
    found = found_of(on_cuda)
    assert found["nvidia-smi"] == ("ok", "NVIDIA A100-SXM4-80GB, 570.1, 81920 MiB, 5 MiB")
    assert found["CUDA of the driver"] == ("ok", "the driver can do CUDA 12.8")
    assert found["MIG"] == ("ok", "MIG Enabled: sizes are a slice's, not the GPU's")
    assert found["torch initializes"] == ("failed", f"RuntimeError: {old}")
    assert found["facts"][0] == found["code for this GPU"][0] == "failed"


@pytest.mark.slow
def test_a_program_that_is_missing_or_fails_is_told(tmp_path, monkeypatch):
    put_on_path(monkeypatch, tmp_path, "#!/bin/sh\necho 'No devices were found' >&2\nexit 6\n")
    with pytest.raises(Wrong, match="nvidia-smi ended with 6: No devices were found"):
        first_contact._smi(False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Wrong, match="no nvidia-smi on PATH"):
        first_contact._smi(False)


def test_a_torch_for_cpus_or_without_code_for_the_gpu_is_red(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Wrong, match="is a build for CPUs"):
        first_contact._torch_build(False)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
    with pytest.raises(Wrong, match="compute capability 7.0"):
        first_contact._code(False)


def test_what_is_taken_beside_the_allocator_is_measured_stage_by_stage(on_cuda, monkeypatch):
    used, reserved = iter([510, 530, 610, 700, 720]), iter([0, 20, 60, 80, 80])
    total = 95_000 * MIB
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (total - next(used) * MIB, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: next(reserved) * MIB)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100 NVL")
    monkeypatch.setattr(cuda, "used_by_others_bytes", lambda: 10 * MIB)
    for name in ("_tensor", "_product", "_convolution", "_first_attention"):
        monkeypatch.setattr(first_contact, name, lambda device: None)
    monkeypatch.setattr(first_contact, "find_gpu", lambda name: SimpleNamespace(usable_bytes=total - 700 * MIB))
    monkeypatch.setattr(first_contact, "capacity_of", lambda profile: total - 1000 * MIB)
    first_contact.memory(on_cuda)
    beside = [p["numbers"]["beside_bytes"] // MIB for p in on_cuda.done[:5]]
    assert beside == [500, 500, 540, 610, 630]
    assert on_cuda.done[3]["found"] == "610.00 MiB beside the allocator, 70.00 MiB more"
    assert on_cuda.done[5]["result"] == "ok"
    assert on_cuda.done[5]["numbers"]["usable_bytes"] == total - 630 * MIB


def test_a_profile_whose_capacity_leaves_too_little_is_red(probes, monkeypatch):
    last = {"total_bytes": 95_900 * MIB, "beside_bytes": 700 * MIB}
    monkeypatch.setattr(first_contact, "find_gpu", lambda name: SimpleNamespace(usable_bytes=95_000 * MIB))
    monkeypatch.setattr(first_contact, "capacity_of", lambda profile: 95_300 * MIB)
    with pytest.raises(Wrong, match="100.00 MiB too much"):
        first_contact._against(probes, last)
    monkeypatch.setattr(first_contact, "capacity_of", lambda profile: 95_100 * MIB)
    assert first_contact._against(probes, last)[1]["usable_bytes"] == 95_200 * MIB
    monkeypatch.setattr(first_contact, "find_gpu", lambda name: SimpleNamespace(usable_bytes=95_210 * MIB))
    with pytest.raises(Wrong, match="10.00 MiB too much"):
        first_contact._against(probes, last)
    with pytest.raises(Wrong, match="nothing was measured"):
        first_contact._against(probes, None)
    monkeypatch.setitem(first_contact.FACTS_SAMPLE, "gpu", "Quadro XY")
    monkeypatch.setattr(first_contact, "find_gpu", find_gpu)
    assert "labkit assumes nothing about 'Quadro XY'" in first_contact._against(probes, last)[0]


def test_the_largest_profile_that_a_gpu_can_be_is_taken():
    assert first_contact.fitting_profile(140 * 2**30) == "h100-94gb"
    assert first_contact.fitting_profile(80 * 2**30) == "a100-80gb"
    assert first_contact.fitting_profile(24 * 2**30) is None


# -- maths and attention


def test_products_and_attention_are_held_against_fp64(probes, monkeypatch):
    monkeypatch.setattr(first_contact, "SIZE", 64)
    first_contact.maths(probes)
    assert [p["name"] for p in probes.done if p["result"] == "ok"] == [
        f"{what} in {kind}" for kind in ("bfloat16", "float16", "float32") for what in ("product", "attention")
    ]  # fmt: skip
    errors = [p["numbers"]["error"] for p in probes.done]
    assert errors[0] > errors[2] > errors[4] > 0


def test_wrong_sums_are_red():
    assert first_contact._judged(1e-3, 1e-2)[0] == "off by 1.0e-03 of the norm"
    with pytest.raises(Wrong, match=r"off by 2.0e-02 of the norm, at most 1e-02 is expected"):
        first_contact._judged(2e-2, 1e-2)
    right = torch.ones(3)
    assert first_contact.relative_error(torch.tensor([1.0, float("nan"), 1.0]), right) == float("inf")


def test_the_shapes_are_the_courses():
    lengths = first_contact.t5_lengths()[1]
    found = {shape.name: shape for shape in first_contact.shapes(lengths)}
    vision, opt = found["ViT-g"], found["opt-2.7b, 64 tokens"]
    assert (vision.heads, vision.queries, vision.size, vision.mask) == (16, 257, 88, None)
    assert (opt.heads, opt.queries, opt.size, opt.mask) == (32, 64, 80, "padded")
    assert found["Q-Former, cross"].keys == 257
    assert (found["t5-xl, encoder"].heads, found["t5-xxl, encoder"].heads) == (32, 64)
    assert found["t5-xxl, cross"].keys == found["t5-xxl, encoder"].keys
    assert {s.queries % 128 for s in found.values() if s.name.startswith("opt") and "82" not in s.name} == {64}


SMALL = [
    Shape(name="plain", heads=2, queries=17, keys=17, size=16),
    Shape(name="padded", heads=2, queries=20, keys=20, size=16, mask="padded"),
    Shape(name="learnt", heads=2, queries=12, keys=12, size=16, mask="learnt", dropout=0.1),
    Shape(name="shared", heads=2, queries=12, keys=12, size=16, mask="shared"),
    Shape(name="bias", heads=2, queries=12, keys=15, size=16, mask="bias"),
]


@pytest.mark.parametrize("precision", first_contact.PRECISIONS)
@pytest.mark.parametrize("shape", SMALL, ids=[shape.name for shape in SMALL])
def test_kernel_and_bytes_are_those_that_are_planned(shape, precision):
    words, numbers = first_contact._one_shape("cpu", shape, precision)
    assert words.endswith("as planned")
    assert (
        numbers["kernel"] == numbers["planned"]["kernel"] == ("math" if shape.mask in ("learnt", "shared") else "flash")
    )
    assert numbers["kept_bytes"] == numbers["planned"]["kept_bytes"] > 0
    assert numbers["complaints"] == []


def test_on_cuda_the_bytes_are_the_allocators(monkeypatch):
    allocated = iter([100, 150])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(allocated))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 400)
    parts, mask = first_contact.tensors_of(SMALL[0], "32-true", "cpu", 2)
    found, _, _ = first_contact.measured_attention(SMALL[0], parts, mask, "32-true", "cuda")
    assert (found["kept_bytes"], found["peak_bytes"]) == (50, 300)


@pytest.mark.parametrize(
    ("precision", "cudnn", "wanted"),
    [("32-true", False, {"efficient"}), ("bf16-mixed", False, {"flash", "efficient"}),
     ("32-true", True, {"efficient"}), ("bf16-mixed", True, {"cudnn", "efficient"})],
)  # fmt: skip
def test_every_kind_of_attention_has_a_plan_on_cuda(precision, cudnn, wanted):
    with kernels(cudnn):
        plans = [first_contact.planned_attention(shape, precision, "cuda") for shape in SMALL]
    assert {plan["kernel"] for plan in plans} == wanted
    assert all(0 < plan["kept_bytes"] < plan["peak_bytes"] for plan in plans)


def test_another_kernel_or_other_bytes_than_planned_are_red(monkeypatch):
    shape, plan = SMALL[1], {"kernel": "efficient", "kept_bytes": 10 * MIB, "peak_bytes": 20 * MIB}
    monkeypatch.setattr(first_contact, "planned_attention", lambda *arguments: plan)
    with pytest.raises(Wrong, match="against the plan; planned efficient; keeps .* planned 10.00 MiB"):
        first_contact._one_shape("cpu", shape, "32-true")
    words, _ = first_contact._for_the_record("cpu", shape, "32-true")  # with cuDNN's on, it is told
    assert "planned efficient" in words


def test_not_a_number_and_wrong_numbers_are_red(monkeypatch):
    attend = first_contact.attend
    monkeypatch.setattr(first_contact, "attend", lambda *arguments: attend(*arguments) * 1.1)
    with pytest.raises(Wrong, match="output off by 1.0e-01 of the norm; grad of query off by 1.0e-01"):
        first_contact._one_shape("cpu", SMALL[0], "32-true")
    monkeypatch.setattr(first_contact, "attend", lambda *arguments: attend(*arguments) * float("nan"))
    with pytest.raises(Wrong, match="NaN or infinity in output; NaN or infinity in grad of query") as found:
        first_contact._one_shape("cpu", SMALL[0], "32-true")
    assert len(found.value.numbers["complaints"]) == 4


def test_a_kernel_that_refuses_is_told_for_the_record_and_counted(probes, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("No valid execution plans built.")

    monkeypatch.setattr(first_contact, "shapes", lambda lengths: SMALL[:1])
    first_contact.cudnn_attention(probes)
    assert probes.done[-1]["found"] == "flash in 3; 3 of 3 peaks as planned; wrong numbers in 0"
    probes.done.clear()
    monkeypatch.setattr(first_contact, "attend", refuse)
    first_contact.cudnn_attention(probes)
    assert found_of(probes)["plain, 32-true"] == ("ok", "RuntimeError: No valid execution plans built.")
    assert probes.done[-1]["found"] == "no kernel ran; 0 of 3 peaks as planned; wrong numbers in 3"


@pytest.mark.parametrize(
    ("operation", "kernel"),
    [
        ("aten._scaled_dot_product_flash_attention.default", "flash"),
        ("aten._scaled_dot_product_efficient_attention.default", "efficient"),
        ("aten._scaled_dot_product_cudnn_attention.default", "cudnn"),
        ("aten.bmm.default", "math"),
    ],
)
def test_the_kernel_is_named_by_its_operation(operation, kernel):
    assert first_contact.kernel_of(["aten.mul.Tensor", operation]) == kernel


# -- filling


class Allocator:
    """Of a GPU of so many bytes, as torch is asked for it: blocks, the cap, and what is given back."""

    def __init__(self, monkeypatch, size_bytes, error=torch.OutOfMemoryError):
        self.size_bytes, self.error, self.fraction, self.kept_bytes, self.held = size_bytes, error, 1.0, 0, []
        monkeypatch.setattr(torch, "empty", self.empty)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda f: setattr(self, "fraction", f))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (size_bytes - self.used_bytes, size_bytes))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: self.used_bytes)

    @property
    def used_bytes(self):
        return self.kept_bytes + sum(block.size_bytes for block in self.held)

    def empty(self, size_bytes, dtype, device):
        if self.used_bytes + size_bytes > self.fraction * self.size_bytes:
            raise self.error("CUDA out of memory.")
        block = Block(size_bytes, self.held)
        self.held.append(block.size)
        return block


class Block:
    def __init__(self, size_bytes, held):
        self.size, self.held = SimpleNamespace(size_bytes=size_bytes), held

    def __del__(self):
        self.held.remove(self.size)


def test_the_cap_is_met_by_torchs_own_exception_and_all_is_given_back(on_cuda, monkeypatch):
    allocator = Allocator(monkeypatch, 4096 * MIB)
    words, numbers = first_contact._fill_to(on_cuda, 2048 * MIB, 4096 * MIB)
    assert words == "OutOfMemoryError at 2.00 GiB of 2.00 GiB, and all was given back"
    assert (numbers["reserved_bytes"], allocator.used_bytes, allocator.fraction) == (2048 * MIB, 0, 1.0)


def test_another_exception_a_cap_that_does_not_hold_and_what_is_kept_are_red(on_cuda, monkeypatch):
    Allocator(monkeypatch, 4096 * MIB, RuntimeError)
    with pytest.raises(Wrong, match="RuntimeError at 4.00 GiB of 4.00 GiB: not torch.OutOfMemoryError"):
        first_contact._fill_to(on_cuda, 4096 * MIB, 4096 * MIB)
    allocator = Allocator(monkeypatch, 4096 * MIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction: None)
    with pytest.raises(Wrong, match="more than the cap"):
        first_contact._fill_to(on_cuda, 2048 * MIB, 4096 * MIB)
    reads = iter([(4096 * MIB, 0), (4000 * MIB, 0)])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: next(reads))
    with pytest.raises(Wrong, match="96.00 MiB were not given back"):
        first_contact._fill_to(on_cuda, 4096 * MIB, 4096 * MIB)
    assert allocator.used_bytes == 0


def test_some_memory_is_left_where_that_is_asked_for(monkeypatch):
    allocator = Allocator(monkeypatch, 4096 * MIB)
    blocks, error = first_contact.fill("cuda", first_contact.BLOCKS_BYTES, 500 * MIB)
    assert error is None
    assert 500 * MIB <= 4096 * MIB - allocator.used_bytes < 501 * MIB
    del blocks


def test_the_simulated_gpu_is_filled_to_the_cap_and_to_the_end(probes, monkeypatch):
    ended = iter(["oom", "ok"])
    monkeypatch.setattr(first_contact, "small_run", lambda *arguments: record(status=next(ended), reason="full"))
    first_contact.filling(probes)
    found = found_of(probes)
    assert found["to the cap"] == (
        "ok", "SimulatedOutOfMemoryError at 32.00 MiB of 32.00 MiB, and all was given back"
    )  # fmt: skip
    assert found["first product on a full GPU"][0] == "ok"
    assert found["a run where a context is all that fits"] == ("ok", "oom: full")
    assert found["a run where no context fits"] == ("ok", "ok: it found room")


def test_a_run_on_a_full_gpu_that_does_not_end_as_oom_is_red(monkeypatch):
    reason = "RuntimeError: CUDA error: out of memory"
    monkeypatch.setattr(first_contact, "small_run", lambda *arguments: record(status="failed", reason=reason))
    with pytest.raises(Wrong, match=f"the run ended failed: {reason}, not oom"):
        first_contact._run_when_full(True, MIB)


@pytest.mark.parametrize(
    ("message", "full"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: out of memory", True),
        ("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_an_exception_on_a_full_gpu_must_say_that_it_is_full(message, full, monkeypatch):
    assert first_contact.memory_error(RuntimeError(message)) is full
    answer = ("RuntimeError", f"RuntimeError: {message}", full)
    monkeypatch.setattr(gpu_check, "in_child", lambda work: answer)
    if full:
        assert first_contact._first_when_full(False, "product")[1]["exception"] == "RuntimeError"
    else:
        with pytest.raises(Wrong, match="does not say that memory is full"):
            first_contact._first_when_full(False, "product")
    monkeypatch.setattr(gpu_check, "in_child", lambda work: None)
    assert first_contact._first_when_full(False, "product")[0] == "no exception: it found room"


# -- runs, which are made up


def phase(unattributed=0):
    end = dict.fromkeys(CATEGORIES, 0) | {"parameters": 100 * MIB, "unattributed": unattributed}
    return PhaseMemory(phase="after_forward", step=0, micro_step=0, end=end, peak=end, highest=end)


def record(status="ok", losses=(7.0, 6.0, 5.0), reason=None, unattributed=0, **more):
    return SimpleNamespace(
        status=status, reason=reason, losses=list(losses), peak_bytes=120 * MIB, prediction=None, train_seconds=1.0,
        wall_seconds=2.0, memory=SimpleNamespace(phases=[phase(unattributed)]), died_in=None, attempts=[], **more,
    )  # fmt: skip


@pytest.fixture
def runs(monkeypatch):
    """What runs answer, by experiment or in order; and what was typed."""
    found = SimpleNamespace(typed=[], answers=[], events=[], timeouts=[], waits=[])

    def small_run(dry, experiment, values, on_event=None, fresh=True, timeout_s=0.0):
        found.typed.append((experiment, values, fresh))
        found.timeouts.append(timeout_s)
        found.waits.append(runner.WAIT_S)
        for event in found.events if on_event else ():
            on_event(event)
        return found.answers.pop(0) if found.answers else record()

    monkeypatch.setattr(first_contact, "small_run", small_run)
    return found


def test_three_precisions_have_equal_losses_with_and_without_the_report(runs, probes, monkeypatch):
    without = iter([[7.0, 6.0, 5.0], [7.0, 6.0, 5.01], [7.0, 6.0, 9.0]])
    monkeypatch.setattr(gpu_check, "in_child", lambda work: next(without))
    first_contact.precisions(probes)
    assert [values["precision"] for _, values, _ in runs.typed] == list(first_contact.PRECISIONS)
    found = found_of(probes)
    assert found["32-true, with the report"] == (
        "ok", "losses 7.0000, 6.0000, 5.0000, 0 bytes unattributed of 120.00 MiB"
    )  # fmt: skip
    assert found["32-true, without"] == ("ok", "equal losses")
    assert found["bf16-mixed, without"] == ("ok", "losses differ by 2.0e-03 at most")
    assert found["bf16-true, without"] == ("failed", "losses 7.0000, 6.0000, 9.0000, not 7.0000, 6.0000, 5.0000")
    assert probes.done[1]["place"] == "dry: simulated"


def test_much_that_is_unattributed_is_red_but_for_the_libraries_workspaces(runs):
    runs.answers = [record(unattributed=50 * MIB), record(unattributed=50 * MIB), record(unattributed=-2 * MIB)]
    assert first_contact._reported(False, "32-true", 32 * MIB)[1]["unattributed_bytes"] == 50 * MIB
    with pytest.raises(Wrong, match="50.00 MiB unattributed of 120.00 MiB: more than 16.00 MiB"):
        first_contact._reported(True, "32-true", 0)
    with pytest.raises(Wrong, match="2.00 MiB are counted that are freed"):
        first_contact._reported(True, "32-true", 0)


@pytest.mark.parametrize(
    ("ended", "kind", "said"),
    [
        ({"status": "skipped", "reason": "no C++ compiler"}, Skipped, r"no C\+\+ compiler"),
        ({"status": "failed", "reason": "RuntimeError:\nno"}, Wrong, "failed: RuntimeError: no"),
        ({"losses": [7.0, None]}, Wrong, "losses \\[7.0, None\\]"),
        ({"losses": []}, Wrong, "losses \\[\\]"),
    ],
)
def test_a_run_that_did_not_end_well_is_no_success(ended, kind, said):
    with pytest.raises(kind, match=said):
        first_contact.ended_ok(record(**ended))


def test_losses_that_are_no_numbers_or_fewer_are_red():
    with pytest.raises(Wrong, match="2 losses, not 3"):
        first_contact.compared_losses([7.0, 6.0], [7.0, 6.0, 5.0], 1e-4)
    with pytest.raises(Wrong, match="losses 7.0000, NaN, not 7.0000, 6.0000"):
        first_contact.compared_losses([7.0, None], [7.0, 6.0], 1e-4)


def test_a_missing_library_skips_its_methods_by_name(runs, probes, monkeypatch):
    here = {"bitsandbytes", "deepspeed"}.isdisjoint
    monkeypatch.setattr(gpu_check, "missing", lambda names: [name for name in names if not here({name})])
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/nowhere")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    first_contact.methods(probes)
    found = found_of(probes)
    assert found["8-bit Adam"] == found["QLoRA"] == ("skipped", "no bitsandbytes")
    assert found["CPU offload, ZeRO stage 2"] == ("skipped", "no deepspeed")
    assert found["activation checkpointing"][0] == "ok"
    assert [experiment for experiment, _, _ in runs.typed] == ["bf16_true"]


def test_without_what_all_runs_need_runs_are_skipped_by_name_and_attention_is_not(probes, monkeypatch):
    monkeypatch.setattr(gpu_check, "missing", lambda names: [name for name in names if name in ("lightning", "PIL")])
    first_contact.precisions(probes)
    first_contact.methods(probes)
    first_contact.rows(probes)
    said = {probe["name"]: probe["found"] for probe in probes.done if probe["result"] == "skipped"}
    assert said["32-true, with the report"] == said["QLoRA"] == said["gpu_check"] == "no lightning and no pillow"
    assert {probe["result"] for probe in probes.done} == {"skipped"}
    probes.done.clear()
    few = first_contact.shapes(None)
    monkeypatch.setattr(first_contact, "shapes", lambda lengths: few[1:2] if lengths is None else [])
    first_contact.attention(probes)
    assert [probe["result"] for probe in probes.done] == ["skipped", "ok", "ok", "ok", "ok"]
    assert not [shape for shape in few if shape.name.startswith("t5")]


@pytest.mark.parametrize(("made", "alone"), [((), True), (("cpu_adam.so",), False), (("cpu_adam.so", "lock"), True)])
def test_what_is_compiled_already_is_used_and_a_lock_is_not_waited_for(made, alone, runs, tmp_path, monkeypatch):
    (tmp_path / "cpu_adam").mkdir()
    for name in made:
        (tmp_path / "cpu_adam" / name).touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr(gpu_check, "missing", lambda names: [])
    ends = time.monotonic() + 100.0
    words, _ = first_contact._offload(True, "xxl_cpu_offload", {}, ends)
    assert words.endswith(", compiled for this check alone") == alone
    assert (os.environ["TORCH_EXTENSIONS_DIR"] != str(tmp_path)) == alone


@pytest.mark.slow
def test_an_optimizer_that_takes_too_long_to_compile_is_skipped_with_the_next_step(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv(first_contact.MARK, "a-mark")
    monkeypatch.setattr(gpu_check, "missing", lambda names: [])
    compiler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "cc1plus"])
    runs.answers = [record(status="timeout", reason="stopped"), record(status="failed", reason="no header")]
    ends = time.monotonic() + 80.0
    with pytest.raises(Skipped, match="not compiled within 50 s") as skipped:
        first_contact._offload(True, "xxl_cpu_offload", {}, ends)
    assert compiler.wait(30) == -signal.SIGKILL
    assert skipped.value.to_do == "Run 'python -m labkit.train.compile' first. Then again alone: --only methods"
    assert runs.timeouts[0] == pytest.approx(80.0 - first_contact.STOP_S, abs=5.0)
    assert runs.waits == [first_contact.PREDICTION_S]
    assert runner.WAIT_S > first_contact.PREDICTION_S
    with pytest.raises(Wrong, match="failed: no header"):
        first_contact._offload(True, "xxl_cpu_offload", {}, ends)


def test_an_optimizer_that_there_is_no_time_to_compile_is_skipped_at_once(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(Skipped, match="the check had no time left for it"):
        first_contact._offload(True, "xxl_cpu_offload", {}, time.monotonic() + first_contact.STOP_S)
    assert runs.typed == []


def test_on_cuda_a_tiny_model_has_the_whole_gpu():
    values = first_contact.small_values(False, {"optim": "paged_adam_8bit"})
    config = first_contact.resolve(first_contact.Workspace.find(), "xxl_adam8bit", values, "tiny").config
    assert (config.device, config.capacity_gib, config.optim) == ("cuda", None, "paged_adam_8bit")
    assert (config.model_name, config.weights) == ("tiny/blip2-t5-large", "random")


@pytest.mark.slow
def test_a_run_is_killed_after_its_second_step_and_resumed(runs, probes, monkeypatch):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "labkit.train.fit", "a-folder"])
    runs.events = [{"event": "created", "folder": "a-folder"}, *({"event": "progress", "step": n} for n in (1, 2))]
    again = record()
    again.attempts = [SimpleNamespace(resumed_at_step=2)]
    runs.answers = [record(), record(status="killed", reason="killed by signal 9"), again]
    first_contact.resume(probes)
    assert victim.wait(30) == -signal.SIGKILL
    assert found_of(probes) == {
        "in one piece": ("ok", "3 steps, losses 7.0000, 6.0000, 5.0000"),
        "killed": ("ok", "killed by signal 9"), "resumed": ("ok", "from step 2, equal losses"),
    }  # fmt: skip
    assert [fresh for _, _, fresh in runs.typed] == [True, True, False]


def test_a_run_that_was_not_killed_or_did_not_resume_is_told(runs):
    runs.answers = [record(), record(status="failed", reason="no"), record()]
    with pytest.raises(Skipped, match="was over before it could be killed"):
        first_contact._killed(True)
    with pytest.raises(Wrong, match="a killed run ended failed: no"):
        first_contact._killed(True)
    with pytest.raises(Wrong, match="did not resume"):
        first_contact._resumed(True, [7.0, 6.0, 5.0])


# -- rows


def row(name, state="compared", agrees=True, **more):
    disagreements = [] if agrees else ["+9.09% reserved, after forward 0 is off by more than 2%"]
    return {
        "experiment": name, "setup": "new", "state": state, "agrees": agrees, "disagreements": disagreements,
        "peak": {}, "reserved": {}, "worst": None, "samples_per_s": 1.0, **more,
    }  # fmt: skip


def test_the_rows_of_gpu_check_are_read_from_what_it_wrote(probes, monkeypatch):
    loaded = row("pretrained_base", measured={"losses": [6.93]})
    rows = [
        row("reduced_batch"), row("bf16_mixed", agrees=False), row("bf16_true", "not run", reason="no time"),
        loaded,
        row("bf16_true", "failed", reason="of another setup", setup="old"),
    ]  # fmt: skip

    def check(arguments):
        assert arguments[:2] == ["--profile", "tiny"]
        data = {"setups": {"old": {}, "new": {}}, "rows": dict(enumerate(rows))}
        (probes.out / "gpu_check-tiny.json").write_text(json.dumps(data))
        return 1

    monkeypatch.setattr(gpu_check, "main", check)
    first_contact.rows(probes)
    found = found_of(probes)
    assert found["gpu_check"] == ("ok", "ended with 1; gpu_check-tiny.md has the rows")
    assert found["tiny, reduced_batch"] == ("ok", "agrees, worst -")
    assert found["tiny, bf16_mixed"] == ("failed", "+9.09% reserved, after forward 0 is off by more than 2%")
    assert found["tiny, bf16_true"] == ("skipped", "no time")
    assert found["tiny, pretrained_base"] == ("failed", "its first loss is 6.93, one of random weights")
    loaded["measured"]["losses"] = [0.81]
    first_contact.rows(probes)
    assert found_of(probes)["tiny, pretrained_base"] == ("ok", "agrees, worst -")


def test_a_gpu_check_that_ends_with_a_line_is_red_and_its_rows_are_skipped(probes, monkeypatch):
    def refuse(arguments):
        sys.exit("PyTorch sees no CUDA GPU here")

    monkeypatch.setattr(gpu_check, "main", refuse)
    first_contact.rows(probes)
    assert found_of(probes)["gpu_check"] == ("failed", "SystemExit: PyTorch sees no CUDA GPU here")
    assert found_of(probes)["tiny, bf16_true"] == ("skipped", "gpu_check did not end")


def test_a_gpu_that_no_profile_fits_is_skipped_with_the_next_step(on_cuda, monkeypatch):
    monkeypatch.setattr(gpu_check, "in_child", lambda work: {"total_bytes": 24 * 2**30})
    first_contact.rows(on_cuda)
    assert found_of(on_cuda)["gpu_check"][0] == "skipped"
    assert "labkit profiles --help" in on_cuda.done[0]["to_do"]


# -- left


def test_memory_that_is_still_given_out_at_the_end_is_red(monkeypatch):
    begun = {"used_by_others_bytes": 4 * MIB, "used_with_context_bytes": 500 * MIB}
    monkeypatch.setattr(gpu_check, "in_child", lambda work: begun | {"used_by_others_bytes": 5 * MIB})
    words, _ = first_contact._memory_left(False, begun)
    assert words == "5.00 MiB now, 4.00 MiB at the beginning; 500.00 MiB now, 500.00 MiB at the beginning"
    monkeypatch.setattr(gpu_check, "in_child", lambda work: begun | {"used_with_context_bytes": 900 * MIB})
    with pytest.raises(Wrong, match="900.00 MiB now, 500.00 MiB at the beginning"):
        first_contact._memory_left(False, begun)
    monkeypatch.setattr(gpu_check, "in_child", lambda work: None)
    with pytest.raises(Wrong, match=r"is_available\(\) is False now"):
        first_contact._memory_left(False, begun)
    with pytest.raises(Skipped, match="nothing was measured at the beginning"):
        first_contact._memory_left(True, {})


# -- the command


def test_a_check_that_is_not_there_and_a_folder_that_cannot_be_made_end_with_a_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        first_contact.main(["--only", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="Not a directory"):
        first_contact.main(["--dry", "--out", str(tmp_path / "file" / "out"), "--only", "left"])
