"""The form: fields from the config, errors in its words, a prediction that follows, and the line to copy."""

import sys
import time

import pytest
from support.wait import wait_for

from labkit.config.layers import resolve
from labkit.config.schema import keys
from labkit.config.workspace import Workspace
from labkit.lab.form import FIRST, Form, verdict
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
    assert set(form._fields) == set(keys()) >= set(FIRST)
    assert form._fields["batch_size"].value == str(config.batch_size)
    assert form._fields["max_steps"].value == ""
    assert form._fields["act_ckpt"].value is config.act_ckpt
    assert "bf16-mixed" in form._fields["precision"].options
    assert all(field.tooltip for field in form._fields.values())


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
def test_the_widget_follows_what_is_typed(form):
    form.widget()
    wait_for(lambda: "fits (predicted)" in form._shown["said"].value)
    form._fields["batch_size"].value = "64"
    assert form._shown["command"].value == "labkit run reduced_batch batch_size=64 --profile tiny"
    wait_for(lambda: "out of memory (predicted)" in form._shown["said"].value)
    form._fields["batch_size"].value = "<b>"
    assert "&lt;b&gt;" in form._shown["said"].value
    time.sleep(1)
    assert "not possible" in form._shown["said"].value  # an older prediction does not come after it
    form._fields["batch_size"].value = "16"
    wait_for(lambda: "fits (predicted)" in form._shown["said"].value)


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
