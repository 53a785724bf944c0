"""Rows and tables come from the ledger alone."""

import pytest
from msgspec.structs import replace
from rich.console import Console

from labkit.config.layers import course
from labkit.config.workspace import Workspace
from labkit.ledger.compare import changes, compare, missing
from labkit.ledger.summary import summary
from labkit.ledger.tables import compare_table, phase_table
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import PHASES
from labkit.memory.units import human_bytes
from labkit.runs.runner import run

KEYS = {"experiment", "status", "expected_status", "died_in", "peak_bytes", "phases", "train_seconds", "losses"}


def as_text(renderable) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.slow
def test_a_row_has_what_machines_need(course_ledger):
    rows = compare(Workspace.find(), course_ledger, "tiny")
    for row in rows:
        assert row.keys() >= KEYS
        assert row["source"] == "simulated GPU"
        assert set(row["phases"]) <= set(PHASES)
        assert set(row["peak_by_category"]) == set(CATEGORIES)
        assert 0 < row["peak_bytes"] <= row["capacity_bytes"]
        assert row["train_seconds"] > 0
        # an optimizer step that ran out of memory is not done, and has no loss
        assert bool(row["losses"]) == (row["experiment"] not in ("xxl", "xxl_smallest_batch"))
    fitting = [row for row in rows if row["status"] == "ok"]
    for row in fitting:
        assert list(row["phases"]) == list(PHASES)
        assert max(phase["peak_bytes"] for phase in row["phases"].values()) <= row["peak_bytes"]


def test_what_changed_is_the_difference_to_the_run_it_is_compared_with():
    by_name = {experiment.name: experiment for experiment in course(Workspace.find())}

    def changed(name, profile="h100-94gb"):
        return changes(Workspace.find(), by_name[name], profile)

    assert changed("baseline") == {}
    assert changed("reduced_batch") == {"batch_size": [64, 16]}
    assert changed("grad_accumulation") == {"accumulate_grad_batches": [1, 4]}
    assert changed("xxl_checkpointing") == {"act_ckpt": [False, True]}
    assert changed("reduced_batch", "a100-80gb") == {"batch_size": [32, 4]}


@pytest.mark.slow
def test_an_edited_experiment_makes_its_run_outdated(course_ledger, tmp_path, monkeypatch):
    workspace = Workspace.find()
    copy = tmp_path / "workspace"
    for source in [*workspace.configs.glob("*.yaml"), *workspace.profiles.glob("*.yaml")]:
        target = copy / source.relative_to(workspace.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    edited = Workspace(copy)
    assert missing(edited, "tiny", compare(edited, course_ledger, "tiny")) == []
    with (copy / "configs" / "reduced_batch.yaml").open("a") as file:
        file.write("seed: 7\n")
    rows = compare(edited, course_ledger, "tiny")
    assert [row["experiment"] for row in rows if row["outdated"]] == ["reduced_batch"]
    assert missing(edited, "tiny", rows) == ["reduced_batch"]


@pytest.mark.slow
def test_typed_values_are_one_row_however_they_were_typed(ledger):
    workspace = Workspace.find()
    for typed in ({"lora_targets": "q,v", "lr": "1e-4"}, {"lr": 1e-4, "lora_targets": ["q", "v"]}):
        run("reduced_batch", typed | {"device": "cuda"})
    (row,) = compare(workspace, ledger, "tiny")
    assert row["overrides"] == {"lora_targets": ["q", "v"], "lr": 1e-4, "device": "cuda"}
    assert "lr=0.0001" in as_text(compare_table([row], "tiny"))


def test_an_empty_ledger_misses_everything(ledger):
    workspace = Workspace.find()
    assert compare(workspace, ledger, "tiny") == []
    assert len(missing(workspace, "tiny", [])) == 15


@pytest.mark.slow
def test_the_table_names_every_experiment_and_its_source(course_ledger):
    rows = compare(Workspace.find(), course_ledger, "tiny")
    text = as_text(compare_table(rows, "tiny"))
    for row in rows:
        (line,) = [x for x in text.splitlines() if f" {row['experiment']} " in x]
        assert f"{row['peak_bytes'] / 2**20:.1f}" in line
        assert row["status"] in line
    assert "simulated GPU" in text
    assert "MiB" in text


@pytest.mark.slow
def test_one_run_in_words(course_records):
    fits, full = course_records["reduced_batch"], course_records["baseline"]
    assert "ok (as expected)" in summary(fits)
    assert "validation" not in summary(fits)
    assert "validation loss 1.500, 1.250" in summary(replace(fits, validation_losses=[1.5, 1.25]))
    assert "simulated GPU" in summary(fits)
    assert "out of memory (as expected)" in summary(full)
    assert "forward of step 1" in summary(full)
    assert "asked for" in summary(full)
    rows = as_text(phase_table(fits)).splitlines()
    assert len(rows) == 2 + len(fits.memory.phases) + 1
    assert rows[-1].strip() == "cpu: in host memory, not in end and peak; the simulated GPU tells it by owner"
    assert "params cpu" not in rows[1]  # nothing of it anywhere
    assert "params cpu" not in as_text(phase_table(course_records["xxl_sgd"]))


@pytest.mark.slow
def test_what_is_in_4_bits_and_what_is_not_is_said(course_records):
    record = course_records["xxl_qlora"]
    text = summary(record)
    assert "weights in 4 bits with their scales" in text
    for kind in ("wo", "lm head", "qformer", "embeddings"):
        assert f"{kind} {human_bytes(record.model.unquantized_bytes[kind.replace(' ', '_')])}" in text
    assert "4 bits" not in summary(course_records["xxl_lora"])


@pytest.mark.slow
def test_host_memory_stands_apart(course_records):
    record = course_records["xxl_cpu_offload"]
    if record.status == "skipped":
        pytest.skip(record.reason)
    device, host = summary(record).splitlines()[1].split("; in host memory ")
    assert "optimizer" not in device
    assert host.startswith("optimizer state ")


@pytest.mark.slow
def test_others_on_the_gpu_are_told_of(course_records):
    fits = course_records["reduced_batch"]
    assert "1.00 GiB of the GPU were in use before it started" in summary(replace(fits, others_bytes=2**30))
    assert "before it started" not in summary(fits)


@pytest.mark.slow
def test_a_peak_outside_the_reported_phases_is_not_put_into_one(course_records):
    fits = course_records["reduced_batch"]
    assert "outside" not in summary(fits)
    text = summary(replace(fits, peak_bytes=fits.peak_bytes + 2**20))
    assert "outside the reported phases; in these " + human_bytes(fits.memory.peak_bytes) in text


@pytest.mark.slow
def test_out_of_memory_on_cuda_says_what_was_held_beside_its_message(course_records):
    full = course_records["baseline"]
    found = replace(full.out_of_memory, requested_bytes=None, operation=None, capacity_bytes=None)
    text = summary(replace(full, out_of_memory=found, reason="CUDA out of memory. Tried to allocate 2 GiB."))
    assert "  CUDA out of memory. Tried to allocate 2 GiB.\n" in text
    assert f"{human_bytes(found.allocated_bytes)} in use: " in text
