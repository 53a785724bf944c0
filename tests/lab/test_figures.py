"""Figures: each is a PNG with its contents in words; without colour they still differ."""

import io
import itertools
import math
import sys

import pytest
from made import MIB, breakdown, report
from msgspec.structs import replace
from PIL import Image

from labkit.config.errors import ConfigError
from labkit.lab import figures
from labkit.lab.figures import Figure, canvas
from labkit.lab.figures_training import _numbered, _samples_seen
from labkit.lab.result import Result
from labkit.memory.categories import STACKED_CATEGORIES
from labkit.memory.units import unit_of

TOLD = {"verdict": "fits", "died_in": None} | report("predicted").to_dict()
RAN = {"losses": [3.0, None, 2.0], "samples": 192, "train_seconds": 4.0, "prediction": TOLD}


@pytest.fixture
def results(add_run):
    plain = add_run("reduced_batch", **RAN)
    held_out = add_run("bf16_mixed", {"val_fraction": 0.25}, validation_losses=[2.9, 2.8], **RAN)
    oom = add_run(
        "baseline", status="oom", died_in={"step": 1, "micro_step": 0, "phase": "forward"}, losses=[],
        out_of_memory={
            "requested_bytes": 2 * MIB, "capacity_bytes": 95 * MIB, "allocated_bytes": 94 * MIB, "operation": "mul",
            "held": breakdown(parameters=15, gradients=15, optimizer_gpu=30, activations=34),
        },
    )  # fmt: skip
    return plain, held_out, oom


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phases", "compared", "bars", "loss", "tradeoff"])
def test_every_kind_is_drawn_with_its_source_and_numbers_in_words(results, kind):
    figure = figures.draw(kind, results)
    assert isinstance(figure, Figure)
    image = Image.open(io.BytesIO(figure.png))
    assert min(image.size) > 150
    assert len(image.convert("L").getcolors()) > 10
    assert "measured on the simulated GPU" in figure.alt
    assert any(digit in figure.alt for digit in "123456789")
    assert f'alt="{figure.alt[:20]}' in figure.html()
    assert figure.text() == f"[figure] {figure.alt}"


def test_without_matplotlib_a_line_says_what_installs_it(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = figures.draw("phases", results).text()
    assert "matplotlib is not installed: pip install 'labkit[course]'" in text


@pytest.mark.slow
def test_a_plan_of_many_micro_steps_says_that_it_shows_two(lab):
    one = lab("02_batch_and_accumulation")
    many, two = (one.predict("grad_accumulation", accumulate_grad_batches=n) for n in (4, 2))
    assert "two micro steps stand for all" in figures.draw("phases", [many]).alt
    assert "stand for all" not in figures.draw("phases", [two]).alt


@pytest.mark.parametrize(
    ("steps", "samples", "seen"),
    [(4, 256, [64, 128, 192, 256]), (4, 192, [64, 96, 160, 192]), (2, 128, [64, 128]), (3, 150, [64, 128, 192])],
    ids=["full", "a short step ends each epoch", "stopped early", "no whole epochs"],
)
def test_samples_after_each_step(add_run, steps, samples, seen):
    run = add_run("grad_accumulation", losses=[1.0] * steps, samples=samples)
    assert _samples_seen(run) == seen  # 64 a step, 2 epochs


def test_numbers_of_near_points_are_not_on_one_another():
    drawing, axes = canvas(6, 6, "t", "s")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    points = [(50, 50), (51, 50), (90, 90), (50, 51), (50, 50)]
    _numbered(axes, points)
    assert axes.texts[2].xyann == pytest.approx((0, 17))  # nothing is near
    places = [
        axes.transData.transform(point) + text.xyann for point, text in zip(points, axes.texts, strict=True)
    ]  # fmt: skip
    assert min(math.dist(one, other) for one, other in itertools.combinations(places, 2)) > 10


@pytest.mark.slow
def test_the_words_of_a_death_say_what_was_held(results):
    assert "when memory ran out" in figures.draw("phases", results[2:]).alt
    assert "baseline 94.00 MiB out of memory" in figures.draw("bars", results).alt


def test_an_unknown_kind_is_refused_with_the_nearest(results):
    with pytest.raises(ConfigError, match="tradeoff"):
        figures.draw("tradeof", results)


@pytest.mark.slow
def test_an_older_notebook_asks_for_predicted_and_measured_by_another_name(results):
    assert figures.draw("beside", results).alt == figures.draw("compared", results).alt


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loss", "tradeoff", "compared"])
def test_what_a_plan_does_not_know_is_said(add_run, kind):
    planned = add_run("reduced_batch", memory=report("predicted"), prediction=TOLD)
    assert planned.planned
    assert "not available when planned" in figures.draw(kind, [planned]).text()
    assert "predicted" in figures.draw("bars", [planned]).alt
    assert "predicted" in figures.draw("phases", [planned]).alt


def test_without_anything_measured_there_is_no_figure(results):
    bare = Result(replace(results[0].record, memory=None))
    for kind in ("phases", "bars", "loss"):
        assert "[not available]" in figures.draw(kind, [bare]).text()
    assert "[not available]" in figures.draw("bars", []).text()


@pytest.mark.slow
def test_one_run_draws_a_tradeoff_too(results):
    assert isinstance(figures.draw("tradeoff", results[:1]), Figure)


def test_categories_differ_in_colour_and_in_hatch():
    for looks in (figures.COLOURS, figures.HATCHES, figures.LABELS):
        assert list(looks) == list(STACKED_CATEGORIES)
        assert len(set(looks.values())) == len(looks)


def test_the_unit_is_that_of_the_largest_number():
    assert unit_of(2 * MIB, None) == ("MiB", MIB)
    assert unit_of(2 * MIB, 2**31) == ("GiB", 2**30)
