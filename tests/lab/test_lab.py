"""Lab: what a notebook calls. One real run; the rest reads records that were put into the ledger."""

import pytest
from made import MIB, report

from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.lab.lab import Lab
from labkit.lab.result import Blank, Result
from labkit.lab.session import NotDone
from labkit.memory.report import MemoryReport

FIRST = {"max_steps": 2}


@pytest.mark.slow
def test_it_says_profile_device_and_what_is_stood_in_for(lab):
    said = lab("00_setup").text()
    assert "profile tiny" in said
    assert "simulated GPU" in said
    assert "tiny/blip2-opt-small stands in for Salesforce/blip2-opt-2.7b" in said
    assert "<b>Lab 00_setup" in lab("00_setup").html()


def test_an_unknown_lab_is_refused_with_the_nearest(lab):
    with pytest.raises(ConfigError, match="01_where_memory_goes"):
        lab("01_where_memory_go")


@pytest.mark.slow
def test_one_real_run_is_predicted_measured_explained_and_checked(lab):
    one = lab("00_setup")
    assert "committed" in one.ask("share_of_parameters", 18).text()
    told = one.predict("reduced_batch", **FIRST)
    assert told.planned and told.status == "ok" and told.last_loss is None
    first = one.run("reduced_batch", **FIRST)
    assert first.status == "ok" and not first.planned and len(first.record.losses) == 2
    assert first.peak_bytes == pytest.approx(told.peak_bytes, rel=0.01)
    assert "[right]" in one.explain("share_of_parameters").text()
    assert "[passed]" in one.check("prediction_holds").text()
    assert one.journal.entries("answer")[0]["committed"] == "before"
    entry = one.journal.entries("check")[0]
    assert entry["outcome"] == "passed"
    assert entry["runs"] == {"reduced_batch max_steps=2": first.id}
    again = lab("00_setup")  # another kernel, the same ledger
    assert again.recall("reduced_batch", **FIRST).id == first.id
    again.ask("share_of_parameters", 18)
    assert again.journal.entries("answer")[-1]["committed"] == "after"


@pytest.mark.slow
def test_what_is_not_filled_in_runs_nothing(lab):
    one = lab("00_setup")
    mine = one.run("reduced_batch", batch_size=...)
    assert isinstance(mine, Blank) and "batch_size" in mine.text()
    assert isinstance(one.predict("reduced_batch", lr=...), Blank)
    assert not one.ledger.folders()
    assert "[unanswered]" in one.ask("share_of_parameters", answer=...).text()
    assert "[unanswered]" in one.ask("share_of_parameters", answer=None).text()
    assert not one.journal.path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("show", [lambda one, *runs: one.plot("bars", *runs), lambda one, *runs: one.table(*runs)])
def test_what_stands_in_place_of_a_result_is_shown_above_the_others(lab, add_run, show):
    one, first = lab("00_setup"), add_run("reduced_batch")
    alone = show(one, first).text()
    blank = show(one, first, one.run("reduced_batch", batch_size=...)).text()
    assert blank == f"reduced_batch: fill in batch_size and execute this cell again; nothing was run.\n{alone}"
    refused = show(one, first, one.predict("reduced_batch", batchsize=4))
    assert refused.text().startswith("[not done] unknown key 'batchsize'") and refused.text().endswith(alone)
    assert "batch_size" in refused.html()


@pytest.mark.slow
def test_what_stands_in_place_of_what_is_handed_in_is_said_with_the_check_and_the_explanation(lab, add_run):
    one = lab("10_when_it_fails")
    one.ask("kernel_says", "pass")
    refused = one.run("baseline", batch_size=0)
    said = one.check("yours_fits", refused).text()
    assert said.startswith(refused.text()) and "[open] Your change" in said
    assert one.explain("ends", refused, add_run("reduced_batch")).text().startswith(refused.text())
    assert one.explain("kernel_says", one.kill("baseline", batch_size=0)).text().startswith("[not done]")
    killed = add_run("reduced_batch", status="killed")
    assert one.explain("kernel_says", killed).text().startswith("[unanswered] The kernel")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: one.run("reduced_batch", batchsize=8), "batch_size"),
        (lambda one: one.run("reduced_batc"), "reduced_batch"),
        (lambda one: one.predict("reduced_batch", batch_size=0), "at least 1"),
        (lambda one: one.predict("reduced_batch", on="24 apples"), "24 apples"),
        (lambda one: one.ask("share_of_parameter", 3), "share_of_parameters"),
        (lambda one: one.ask("share_of_parameters", "many"), "not a number"),
        (lambda one: one.check("prediction_hold"), "prediction_holds"),
        (lambda one: one.explain("nothing"), "no topic 'nothing'"),
        (lambda one: one.plot("phase"), "phases"),
        (lambda one: one.advise("reduced_batch", lr=-1), "lr"),
        (lambda one: one.captions(None, "fluent_emoji"), "no run"),
    ],
)
def test_what_cannot_work_is_said_and_raises_nothing(lab, call, words):
    said = call(lab("00_setup"))
    assert isinstance(said, NotDone)
    assert words in said.text()


@pytest.mark.slow
def test_a_check_without_its_run_is_open_and_stored_so(lab):
    one = lab("00_setup")
    assert "[open]" in one.check("prediction_holds").text()
    assert one.journal.entries("check")[0]["outcome"] == "open"
    assert one.explain("share_of_parameters").text().startswith("[not yet shown]")
    one.ask("share_of_parameters", 20)
    assert "[open]" in one.explain("share_of_parameters").text()


@pytest.mark.slow
def test_recall_takes_the_newest_run_with_these_settings(lab, add_run):
    add_run("reduced_batch", losses=[1.0])
    newest = add_run("reduced_batch", losses=[2.0])
    add_run("reduced_batch", {"lr": 0.1}, losses=[3.0])
    assert lab("02_batch_and_accumulation").recall("reduced_batch").id == newest.id


@pytest.mark.slow
def test_recall_passes_over_runs_that_came_to_no_end(lab, add_run):
    good = add_run("reduced_batch")
    add_run("reduced_batch", status="killed")
    add_run("reduced_batch", status="timeout")
    assert lab("02_batch_and_accumulation").recall("reduced_batch").id == good.id


@pytest.mark.slow
def test_a_wrong_answer_is_not_yet_and_says_how_far_off(lab, add_run):
    one = lab("00_setup")
    one.ask("share_of_parameters", 60)
    add_run("reduced_batch", FIRST, memory=report(activations=45.0))
    said = one.explain("share_of_parameters").text()
    assert "[not yet]" in said
    assert "off" in said


@pytest.mark.slow
def test_the_last_answer_counts(lab, add_run):
    one = lab("00_setup")
    one.ask("share_of_parameters", 60)
    one.ask("share_of_parameters", 20)
    add_run("reduced_batch", FIRST, memory=report(activations=15.0))
    assert "[right]" in one.explain("share_of_parameters").text()


@pytest.mark.slow
def test_all_checks_at_once_leave_out_those_that_need_something_handed_in(lab, add_run):
    one = lab("02_batch_and_accumulation")
    for name in ("baseline", "reduced_batch", "grad_accumulation", "grad_accumulation_lr4x"):
        add_run(name, losses=[3.0, 2.0])
    said = one.check().text()
    assert said.count("[") == 3
    assert "Your batch" not in said


@pytest.mark.slow
def test_a_handed_in_run_is_checked(lab, add_run):
    one = lab("02_batch_and_accumulation")
    add_run("reduced_batch")
    good = add_run("reduced_batch", {"batch_size": 20}, memory=report(activations=40.0))
    bad = add_run("reduced_batch", {"batch_size": 64}, status="oom")
    assert "[passed]" in one.check("yours_fits_and_uses_more", good).text()
    assert "[failed]" in one.check("yours_fits_and_uses_more", bad).text()
    assert "[open]" in one.check("yours_fits_and_uses_more", Blank("reduced_batch", ["batch_size"])).text()


@pytest.mark.slow
def test_planned_mode_gives_predictions_in_the_same_shape(lab, monkeypatch):
    monkeypatch.setenv("LABKIT_MODE", "plan")
    one = Lab("00_setup", profile="tiny")
    assert "mode: plan" in one.text()
    assert one.run("reduced_batch", **FIRST).text().startswith("[not yet shown]")
    one.ask("share_of_parameters", "pass")
    first = one.run("reduced_batch", **FIRST)
    assert isinstance(first, Result) and first.planned and first.source == "predicted"
    assert not one.ledger.folders()
    assert "not available when planned" in first.text()
    assert "predicted" in one.table(first).text()
    assert "not available when planned" in one.plot("loss", first).text()
    assert "[not available]" in one.check("prediction_holds").text()
    assert "predicted: " in one.explain("share_of_parameters").text()
    assert "not available when planned" in one.kill("reduced_batch").text()


@pytest.mark.slow
def test_a_killed_run_is_recorded_and_not_recalled(lab):
    one = lab("10_when_it_fails")
    assert one.kill("reduced_batch", max_steps=3).text().startswith("[not yet shown]")
    one.ask("kernel_says", "killed")
    killed = one.kill("reduced_batch", max_steps=3)
    assert killed.status == "killed"
    assert "signal 9" in killed.text()
    assert one._newest("reduced_batch max_steps=3", resolve(one.workspace, "reduced_batch", {"max_steps": 3})) is None
    assert "killed" in one.explain("kernel_says", killed).text()


@pytest.mark.slow
def test_an_empty_ledger_says_so(lab):
    assert "no run on tiny" in lab("12_compare").table().text()


@pytest.mark.slow
def test_the_whole_ledger_names_what_is_missing(lab, add_run):
    add_run("reduced_batch")
    add_run("reduced_batch", {"lr": 0.5})
    said = lab("12_compare").table().text()
    assert "reduced_batch lr=0.5" in said
    assert "not run yet: baseline" in said


@pytest.mark.slow
def test_a_table_has_the_unit_of_its_machine(lab, add_run):
    assert f"{15.0:.1f}" in lab("12_compare").table(add_run("reduced_batch")).text()
    assert lab("12_compare").unit == ("MiB", MIB)
    assert lab("12_compare", profile="h100-94gb").unit[0] == "GiB"


@pytest.mark.slow
def test_a_table_leaves_out_what_is_alike_in_all_lines(lab, add_run):
    one, first = lab("12_compare"), add_run("reduced_batch", losses=[2.0], samples=16, train_seconds=1.0)
    head, columns, *_ = one.table(first, add_run("bf16_true")).text().splitlines()
    assert head == "Runs, memory in MiB of 95.0, measured on the simulated GPU"
    assert columns.split() == [
        "experiment", "status", "peak", "params", "grads", "optim", "activ", "temp", "samples/s", "samples",
        "loss",
    ]  # fmt: skip
    both = one.table(first, add_run("reduced_batch", memory=report("predicted"))).text()
    assert "source" in both and " predicted " in both
    assert "error is how far the prediction" not in both  # neither has a prediction


@pytest.mark.slow
def test_of_a_run_that_measured_nothing_a_table_has_no_size(lab, add_run):
    add_run("reduced_batch")
    killed = add_run(
        "baseline",
        status="killed",
        memory=MemoryReport(source="simulated GPU", capacity_bytes=95 * MIB, phases=[]),
        peak_bytes=0,
    )
    assert "0.0" not in lab("12_compare").table(killed).text()
    died = {"step": 1, "micro_step": 0, "phase": "forward"}
    assert "oom in forward, step 1" in lab("12_compare").table(add_run("xxl", status="oom", died_in=died)).text()


@pytest.mark.slow
def test_a_result_names_the_values_that_labs_change(lab, add_run):
    said = add_run("reduced_batch", {"lr": 0.25}).text().splitlines()
    assert said[1] == "  batch_size=16, accumulate_grad_batches=1, lr=0.25, precision=32-true, optim=adamw"
    planned = lab("13_ddp").predict("multi_ddp").text().splitlines()
    assert planned[1].endswith("devices=2, strategy=ddp") and "in backward of step" in planned[2]


@pytest.mark.slow
def test_advice_is_a_table_of_what_fits(lab):
    said = lab("11_fit_your_gpu").advise("baseline").text()
    assert "out of memory (predicted)" in said
    assert "batch_size=" in said
    assert "time" in said


@pytest.mark.slow
def test_a_run_is_watched_where_a_server_shows_it_and_else_told(lab, add_run, ledger, monkeypatch):
    one = lab("00_setup")
    assert isinstance(one.watch(), NotDone)
    first, second = add_run("reduced_batch"), add_run("baseline", status="oom")
    assert one.watch().id == second.id
    assert one.watch(first.id).id == one.watch(first).id == first.id
    assert isinstance(one.watch("20991231"), NotDone)
    monkeypatch.setenv("LABKIT_PANEL", "/labkit/panel")
    monkeypatch.setenv("LABKIT_PANEL_RUNS", str(ledger.root))
    assert f"/labkit/panel/tiny/reduced_batch/{first.id}" in one.watch(first).html()


@pytest.mark.slow
def test_a_number_beyond_all_is_no_answer(lab):
    assert isinstance(lab("00_setup").ask("share_of_parameters", 10**400), NotDone)
