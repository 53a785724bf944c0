"""Counts: captions before and after, updates lost to rounding."""

import pytest
from PIL import Image

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.lab import processes
from labkit.lab.counts import Captions, Rounding

TRUE, MIXED = ("bf16-true", 2e-5), ("bf16-mixed", 2e-5)


def test_shares_of_exact_captions(add_run, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    rows = [
        {"image": str(tmp_path / "a.png"), "wanted": "apple", "caption": "apple", "base_caption": "ball"},
        {"image": str(tmp_path / "a.png"), "wanted": "pear", "caption": "apple", "base_caption": "pear"},
        {"image": str(tmp_path / "a.png"), "wanted": "plum", "caption": "plum", "base_caption": "ball"},
    ]
    found = Captions(add_run("food_lora"), "fluent_emoji_food", rows)
    assert found.share == pytest.approx(2 / 3)
    assert found.base_share == pytest.approx(1 / 3)
    assert "67% of 3 captions are exact, 33% without the adapter" in found.text()
    assert 'alt="apple"' in found.html() and "data:image/png" in found.html()


def test_a_run_without_adapters_has_no_before(add_run):
    found = Captions(add_run("reduced_batch"), "x", [{"image": "a.png", "wanted": "a", "caption": "b"}])
    assert found.base_share is None and found.share == 0


def test_shares_of_lost_updates():
    found = Rounding(
        [
            {"precision": "bf16-true", "lr": 2e-5, "updates": [100, 100], "lost": [70, 80], "losses": [7.0, 6.5]},
            {"precision": "bf16-mixed", "lr": 2e-5, "updates": [100, 100], "lost": [0, 0], "losses": [7.0, 5.5]},
        ]
    )
    assert found.lost_share(*TRUE) == 0.75
    assert found.last_loss(*MIXED) == 5.5
    assert "75.0%" in found.text() and "6.500" in found.html()
    assert "75.0%         70.0%        80.0%" in found.text()  # in all steps, the first, the last


@pytest.mark.slow
def test_rounding_is_counted_in_a_process(monkeypatch, ledger):
    monkeypatch.setattr(processes, "ROUNDING_STEPS", 1)
    (found,) = processes.rounding(Workspace.find(), [TRUE])
    assert found["precision"] == "bf16-true"
    assert 0 < Rounding([found]).lost_share(*TRUE) < 1


@pytest.mark.slow
def test_what_the_command_says_is_passed_on(ledger):
    with pytest.raises(ConfigError, match="no run"):
        processes.captions("20200101", "fluent_emoji", 2)


@pytest.mark.slow
def test_json_is_found_after_what_libraries_print():
    code = "print('[warning] hello'); print('{}'); import json; print(json.dumps([{'a': 1}], indent=1))"
    assert processes._last_list(processes._said(["-c", code], Workspace.find())) == [{"a": 1}]
