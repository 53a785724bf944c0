"""The form: fields from the config, errors in its words, a prediction that follows, and the line to copy."""

import sys
import time

import pytest
from support.wait import wait_for

from labkit.config.layers import resolve
from labkit.config.schema import keys
from labkit.config.workspace import Workspace
from labkit.lab.fields import FIRST
from labkit.lab.form import Form, verdict
from labkit.lab.result import Blank
from labkit.lab.session import NotDone
from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.shape import shaped
from labkit.plan.predict import predict

WAIT_S = 120


@pytest.fixture
def form(lab):
    return lab("02_batch_and_accumulation").form("reduced_batch")


@pytest.mark.slow
def test_it_begins_as_the_experiment_is(form):
    assert isinstance(form, Form)
    assert form.command == "labkit run reduced_batch --profile tiny"
    config = resolve(Workspace.find(), "reduced_batch").config
    form.widget()
    fields = form._fields.fields
    assert set(fields) == set(keys()) >= set(FIRST)
    assert fields["batch_size"].value == str(config.batch_size)
    assert fields["max_steps"].value == ""
    assert fields["act_ckpt"].value is config.act_ckpt
    assert "bf16-mixed" in fields["precision"].options
    assert all(field.tooltip for field in fields.values())


@pytest.mark.slow
def test_a_value_is_checked_at_once_and_stands_in_the_command(form):
    form.set("batch_size", "x")
    assert "batch_size is a whole number" in form.said
    form.set("batch_size", "8")
    form.set("use_qlora", True)
    form.set("use_lora", True)
    assert "use_lora=True does not go with use_qlora=True" in form.said
    assert form.predict() == form.said
    form.set("use_lora", False)
    assert form.said == "predicting ..."
    assert form.command == "labkit run reduced_batch batch_size=8 use_qlora=true --profile tiny"
    form.set("batch_size", "16")  # as in the experiment
    assert form.command == "labkit run reduced_batch use_qlora=true --profile tiny"


@pytest.mark.slow
def test_its_verdict_is_the_prediction(form):
    for batch_size in ("8", "64"):
        form.set("batch_size", batch_size)
        found = predict(resolve(Workspace.find(), "reduced_batch", {"batch_size": batch_size}).config)
        assert form.predict() == verdict(shaped(Predicted, found.to_dict()))
    assert "out of memory (predicted): would need" in form.predict()
    assert "dies in the forward of step 0" in form.predict()
    assert verdict(Unpredicted("why")) == "cannot be predicted: why"


@pytest.mark.slow
def test_all_that_is_wrong_stands_at_its_own_field_and_two_keys_at_both(form):
    form.set("batch_size", "x")
    form.set("lora_r", "0")
    form.set("save_every", "5")
    form.set("use_lora", True)
    form.set("use_qlora", True)
    wrong = {"batch_size", "lora_r", "save_every", "enable_checkpointing", "use_lora", "use_qlora"}
    assert set(form.errors) == wrong
    assert form.errors["use_lora"] == form.errors["use_qlora"] != form.errors["lora_r"]
    assert form.errors["batch_size"] == ["batch_size='x' is not valid: batch_size is a whole number."]
    assert "lora_r must be at least 1" in form.errors["lora_r"][0]
    shown = form.widget() and form._fields
    for key in keys():
        assert bool(shown.errors[key].value) == (key in wrong)
        assert ("labkit-form-wrong" in shown.fields[key]._dom_classes) == (key in wrong)
        assert (shown.errors[key].layout.display == "none") == (key not in wrong)
    assert shown._more.selected_index == 0  # save_every is among the others
    assert shown.run.disabled
    for key, value in (("batch_size", "8"), ("lora_r", "4"), ("save_every", ""), ("use_lora", False)):
        shown.fields[key].value = value
    assert not form.errors and not shown.run.disabled
    assert not any("labkit-form-wrong" in field._dom_classes for field in shown.fields.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"model_name": "gpt-9"}, {"model_name"}),
        ({"global_batch_size": "8", "accumulate_grad_batches": "2"}, {"global_batch_size", "accumulate_grad_batches"}),
        ({"global_batch_size": "7", "devices": "2", "strategy": "ddp"}, {"global_batch_size", "devices"}),
        ({"batch_size": "3", "global_batch_size": "8"}, {"global_batch_size", "batch_size"}),
        ({"max_length": "100000"}, {"max_length", "model_name"}),
        ({"weights": "pretrained"}, {"weights", "model_name"}),
        ({"seed": str(2**32)}, {"seed"}),
        ({"capacity_gib": "0"}, {"capacity_gib"}),
        ({"seed": "x", "devices": "0"}, {"seed", "devices"}),
    ],
)
def test_an_error_names_its_keys(form, values, wrong):
    for key, value in values.items():
        form.set(key, value)
    assert set(form.errors) == wrong
    assert all(len(said) == 1 for said in form.errors.values())


@pytest.mark.slow
def test_the_widget_follows_what_is_typed(form):
    form.widget()
    shown = form._fields
    wait_for(lambda: "fits (predicted)" in shown.said.value)
    shown.fields["batch_size"].value = "48"
    assert "<code" in shown.line.value and "labkit run reduced_batch batch_size=48 --profile tiny<" in shown.line.value
    wait_for(lambda: "out of memory (predicted)" in shown.said.value)
    shown.fields["batch_size"].value = "<b>"
    assert "&lt;b&gt;" in shown.errors["batch_size"].value and "<b>" not in shown.line.value
    time.sleep(1)
    assert "not possible" in shown.said.value  # an older prediction does not come after it
    shown.fields["batch_size"].value = "16"
    wait_for(lambda: "fits (predicted)" in shown.said.value)


@pytest.mark.slow
def test_reset_brings_the_values_of_the_experiment_back(lab):
    form = lab("02_batch_and_accumulation").form("reduced_batch", batch_size=8, seed=42)
    form.widget()
    shown = form._fields
    shown.fields["precision"].value = "bf16-true"
    shown.fields["act_ckpt"].value = True
    shown.fields["max_steps"].value = "many"
    shown.reset.click()
    assert form.command == "labkit run reduced_batch --profile tiny" and not form.errors
    assert (shown.fields["batch_size"].value, shown.fields["max_steps"].value) == ("16", "")
    assert (shown.fields["precision"].value, shown.fields["act_ckpt"].value) == ("32-true", False)


@pytest.mark.slow
def test_run_runs_what_the_form_says_and_shows_it_in_its_place(lab):
    one = lab("02_batch_and_accumulation")
    form = one.form("reduced_batch", max_steps=1)
    box = form.widget()
    before = box.children
    form._fields.fields["batch_size"].value = "4"
    form._fields.run.click()
    (record,) = one.ledger.records()
    assert (record.status, record.overrides) == ("ok", {"batch_size": 4, "max_steps": 1})
    place, back = box.children
    assert "reduced_batch batch_size=4 max_steps=1" in place.value and "1 optimizer step" in place.value
    back.click()
    assert box.children == before


@pytest.mark.slow
def test_what_would_answer_an_open_question_is_not_predicted_before_the_answer(lab):
    one = lab("01_where_memory_goes")
    form = one.form("baseline")
    assert "does_it_fit" in form.predict() and "[not yet shown]" in form.predict()
    assert form.withheld and not one.journal.entries("told")
    form.widget()
    shown = form._fields
    wait_for(lambda: "does_it_fit" in shown.said.value)
    assert "predicted)" not in shown.said.value
    shown.run.click()
    assert "does_it_fit" in form._fields.box.children[0].value and not one.ledger.folders()
    shown.back.click()
    shown.fields["batch_size"].value = "4"  # tells nothing that is asked
    wait_for(lambda: "(predicted)" in shown.said.value)
    shown.reset.click()
    wait_for(lambda: "does_it_fit" in shown.said.value)
    one.ask("does_it_fit", "fits")
    assert one.journal.entries("answer")[-1]["committed"] == "before"
    wait_for(lambda: "out of memory (predicted)" in shown.said.value)  # with nothing typed
    assert not form.withheld


@pytest.mark.slow
def test_what_the_form_has_predicted_is_told(lab):
    one = lab("02_batch_and_accumulation")
    form = one.form("reduced_batch", batch_size=4)
    assert "(predicted)" in form.predict()
    shown = resolve(Workspace.find(), "reduced_batch", {"batch_size": 4}).config.hash
    assert [entry["what"] for entry in one.journal.entries("told")] == [shown]
    assert "(predicted)" in one.form("reduced_batch").predict()
    # of what activations_fall is about one run is told by now, and the other would tell the rest
    assert "activations_fall" in one.form("baseline").predict()
    assert "activations_fall" in one.predict("baseline").text()


@pytest.mark.slow
def test_outside_of_a_notebook_it_is_text(form, capsys):
    form._ipython_display_()
    assert capsys.readouterr().out.startswith("labkit run reduced_batch --profile tiny\n")


@pytest.mark.slow
def test_without_ipywidgets_it_is_text_with_what_installs_them(form, capsys, monkeypatch):
    monkeypatch.setattr("labkit.lab.progress.in_notebook", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    form._ipython_display_()
    out = capsys.readouterr().out
    assert out.startswith("labkit run reduced_batch --profile tiny\n")
    assert out.endswith("no fields to fill in: ipywidgets is not installed: pip install 'labkit[course]'\n")


@pytest.mark.slow
def test_what_is_not_filled_in_or_unknown_is_said(lab):
    one = lab("02_batch_and_accumulation")
    assert isinstance(one.form("reduced_batch", batch_size=...), Blank)
    assert isinstance(one.form("reduced_bath"), NotDone)
    assert one.form("reduced_batch", batch_size=8).command.endswith("batch_size=8 --profile tiny")
