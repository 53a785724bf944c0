"""Progress: plain lines while a run runs."""

from made import phase

from labkit.lab.progress import Progress

MODEL = {"parameters": 1000, "trainable": 10}


def test_it_says_phase_memory_loss_and_time_left(capsys):
    one = phase("after_forward", 0, parameters=3, activations=5)
    with Progress("reduced_batch", 1) as progress:
        assert progress.text() == "reduced_batch: starting"
        progress({"event": "created", "folder": "x"})
        progress({"event": "start", "device": "simulated GPU", "steps": 10, "model": MODEL})
        progress({"event": "phase", "time": 0, **one.to_dict()})
        progress({"event": "progress", "step": 4, "losses": [2.5], "train_seconds": 2.0})
        assert "step 4 of 10, loss 2.500, 3 s left" in progress.html()
        progress({"event": "result", "status": "oom"})
    said = capsys.readouterr().out
    assert "1,000 parameters (10 trainable), 10 optimizer steps" in said
    assert "step 0 forward" in said
    assert "activations 5.00 MiB, parameters 3.00 MiB" in said
    assert "step 4 of 10, loss 2.500, 3 s left" in said
    assert said.endswith("\n")
    assert progress.text().endswith("step 4 of 10, loss 2.500, then out of memory")  # no time is left
    html = progress.html()
    assert "<details>" in html and "loss 2.500" in html and ">5.0<" in html


def test_an_end_before_the_first_step_is_an_end(capsys):
    progress = Progress("xxl", 1)
    progress({"event": "result", "status": "oom"})
    assert progress.now.strip() == "out of memory"


def test_of_many_micro_steps_only_the_last_is_said(capsys):
    one = phase("after_forward", 0, parameters=3)
    progress = Progress("x", 4)
    progress({"event": "phase", **one.to_dict()})
    progress({"event": "phase", **one.to_dict() | {"micro_step": 3, "step": 50}})
    assert capsys.readouterr().out == ""
    progress({"event": "phase", **one.to_dict() | {"micro_step": 3}})
    assert "step 0 forward" in capsys.readouterr().out


def test_a_loss_that_is_no_number_is_said(capsys):
    progress = Progress("x", 1)
    progress({"event": "start", "device": "d", "steps": 2, "model": MODEL})
    progress({"event": "progress", "step": 1, "losses": [None], "train_seconds": 1.0})
    assert "not a number" in capsys.readouterr().out
