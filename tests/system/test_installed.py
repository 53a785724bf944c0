"""The wheel in an environment with the core alone, in an empty folder: the course planned at full size, parts run."""

import json

import pytest
from linked import Linked

from labkit.config.workspace import Workspace
from labkit.lab.reference import read_reference

GPU = "h100-94gb"


def test_the_whole_course_is_planned_as_in_the_checkout(installed):
    done = installed.run("plan", "--all", "--gpu", GPU)
    assert done.returncode == 0, done.stderr
    shipped = {result.name: result.record for result in read_reference(Workspace.find(), GPU)}
    rows = json.loads(installed.run("plan", "--all", "--gpu", GPU, "--json").stdout)
    assert len(rows) == 15
    for row in rows:
        wanted = shipped[row["experiment"]].prediction
        assert row["verdict"] == wanted.verdict, row["experiment"]
        assert row["peak_bytes"] == wanted.peak_bytes, row["experiment"]
        assert row["reserved_bytes"] == wanted.reserved_bytes, row["experiment"]
        (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == [row["experiment"]]]
        assert f" {row['peak_bytes'] / 2**30:.1f} " in line


@pytest.mark.parametrize(("experiment", "status"), [("baseline", "oom"), ("bf16_mixed", "ok"), ("xxl_qlora", "ok")])
def test_experiments_run_there_on_the_simulated_gpu(installed, experiment, status):
    done = installed.run("run", experiment, "--json")
    record = json.loads(done.stdout)
    assert (record["status"], record["as_expected"]) == (status, True), done.stderr


def test_nothing_is_left_but_in_the_folders_of_xdg(installed):
    left = {name.split("/labkit/")[0] for name in installed.written()}
    assert left == {".cache", ".local/share"}


@pytest.mark.parametrize(
    ("library", "experiment"), [("peft", "xxl_lora"), ("bitsandbytes", "xxl_qlora"), ("lightning", "reduced_batch")]
)
def test_the_core_holds_nothing_that_a_prediction_does_not_execute(built, tmp_path, library, experiment):
    assert Linked(tmp_path, built, without=[library]).run("plan", experiment, "--gpu", "tiny").returncode != 0
