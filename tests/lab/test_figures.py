"""Figures: each is a PNG with its contents in words; without colour they still differ."""

import io
import itertools
import math
import sys

import pytest
from made import MIB, breakdown, report
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.text import Text
from msgspec.structs import replace
from PIL import Image, ImageColor

from labkit.config.errors import ConfigError
from labkit.lab import figures, figures_memory
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
    drawing, axes = canvas(6, "t", "s")
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


def contrast(one, other):
    """As WCAG has it."""

    def luminance(colour):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
        return sum(share * v for share, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


GROUNDS = [ground for _, ground in figures.INKS.values()]


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_colour_stands_out_on_both_grounds(ground):
    pair = [colour for _, _, colour, _ in figures_memory._PAIR]
    for colour in (*figures.COLOURS.values(), *figures.SERIES, *pair):
        assert contrast(colour, ground) >= 3, colour  # what WCAG asks of graphics


def test_text_stands_out_on_its_ground():
    assert all(contrast(ink, ground) >= 7 for ink, ground in figures.INKS.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phases", "compared", "bars", "loss", "tradeoff"])
def test_a_figure_is_700_pixels_wide_no_text_is_outside_of_it_and_both_themes_have_one(
    results, add_run, kind, monkeypatch
):
    drawn, save = [], Drawing.savefig
    monkeypatch.setattr(Drawing, "savefig", lambda it, *args, **named: (drawn.append(it), save(it, *args, **named)))
    long = add_run("grad_accumulation", {"num_train_samples": 1000,
                   "accumulate_grad_batches": 8, "max_length": 20, "batch_size": 4}, **RAN)  # fmt: skip
    figure = figures.draw(kind, results[2:] if kind == "phases" else [*results, long])
    light, dark = (Image.open(io.BytesIO(png)).convert("RGB") for png in (figure.png, figure.dark))
    assert light.size == dark.size and light.width == 700
    assert [ImageColor.getrgb(ground) for ground in GROUNDS] == [light.getpixel((0, 0)), dark.getpixel((0, 0))]
    assert figure.html().count("<img") == 2 and figure.html().count("display:none") == 1
    assert len(drawn) == 2
    texts, draw = [], Text.draw  # a tick beyond an axis is there and is not drawn
    monkeypatch.setattr(Text, "draw", lambda it, renderer: (texts.append(it), draw(it, renderer)))
    for drawing in drawn:
        texts.clear()
        drawing.set_dpi(figures.DPI)
        drawing.draw_without_rendering()
        whole, worded = drawing.bbox.padded(1), [text for text in texts if text.get_text().strip()]
        assert len(worded) > 8
        for text in worded:
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, text


def test_the_unit_is_that_of_the_largest_number():
    assert unit_of(2 * MIB, None) == ("MiB", MIB)
    assert unit_of(2 * MIB, 2**31) == ("GiB", 2**30)
