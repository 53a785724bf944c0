"""Random states: what a run resumes with draws what the run in one piece would have drawn."""

import random

import numpy
import pytest
import torch

from labkit.train.own_state import random_state, set_random_state

DRAWS = {
    "Python": lambda: [random.gauss(0, 1) for _ in range(5)],  # the second of a pair is kept, and is state too
    "NumPy": lambda: [float(numpy.random.standard_normal()) for _ in range(5)],
    "torch": lambda: torch.rand(5).tolist(),
}


@pytest.fixture(autouse=True)
def states_as_before():
    before = random_state()
    yield
    set_random_state(before)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_each_generator_resumes_where_it_was_saved(draw, tmp_path):
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    draw()
    torch.save(random_state(), tmp_path / "random.ckpt")
    wanted = draw()
    draw()
    set_random_state(torch.load(tmp_path / "random.ckpt", weights_only=True))  # as data, with no type of its own
    assert draw() == wanted


def test_where_only_nvml_says_that_there_is_cuda_no_generator_of_its_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # which a driver that is too old does not hinder
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: pytest.fail("CUDA was not begun with"))
    assert random_state()["cuda"] == []
