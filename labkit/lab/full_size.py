"""Full size: what a lab has run, with the real models on a real GPU, planned; and which part weighs otherwise there."""

from collections.abc import Iterable

from labkit.config.errors import ConfigError, nearest
from labkit.config.workspace import Workspace
from labkit.lab.figures import draw
from labkit.lab.reference import read_reference
from labkit.lab.result import Result
from labkit.lab.views import Lines, Several
from labkit.ledger.view import View
from labkit.memory.categories import NAMES, STACKED_CATEGORIES

PROFILE = "h100-94gb"
OTHERWISE = 0.1
"""Shares of a peak that differ by less are called the same."""

_WHY = {
    "parameters": "A small model's vocabulary and its few layers leave it other proportions.",
    "gradients": "They follow what is trained, and that is another part of a small model.",
    "optimizer_gpu": "It follows what is trained, and that is another part of a small model.",
    "activations": "They follow images, texts and batch, which are not scaled as the weights are.",
    "temporaries": "What one operation needs for a moment does not shrink with the number of layers.",
    "inputs": "Images are smaller here, and models are smaller still.",
    "unattributed": "CUDA's own workspaces are there, and a simulated GPU has none.",
}


def full_size(workspace: Workspace, names: Iterable[str], here: Iterable[Result]) -> View:
    """The runs called ``names`` as planned for an H100, and what of each weighs otherwise than in the one of ``here``.

    It comes from what ships with the course, so nothing is planned now. Raises ``ConfigError`` for a name that does
    not ship.
    """
    shipped = {result.name: result for result in read_reference(workspace, PROFILE)}
    for name in names:
        if name not in shipped:
            raise ConfigError(f"no run {name!r} ships with the course for {PROFILE}.{nearest(name, shipped)}")
    models = {shipped[name].config["model_name"] for name in names}
    lines = [f"model: {', '.join(sorted(models))}; predicted, nothing was run on this GPU"]
    for result in here:
        if not result.planned:
            lines += _otherwise(result, shipped[result.name])
    return Several([Lines(f"at full size on {PROFILE}", lines), draw("bars", [shipped[name] for name in names])])


def _otherwise(here: Result, there: Result) -> list[str]:
    ours, theirs = _shares(here), _shares(there)
    found = [
        f"{here.name}: {NAMES[category]} {ours[category]:.0%} of the peak here, {theirs[category]:.0%} at full size. "
        f"{_WHY[category]}"
        for category in STACKED_CATEGORIES
        if abs(ours[category] - theirs[category]) > OTHERWISE
    ]
    return found or [f"{here.name}: every part has about the same share of the peak as here"]


def _shares(result: Result) -> dict[str, float]:
    """Of the highest moment, with memory enough."""
    phases = result.prediction.phases if result.prediction else result.report.phases if result.report else []
    highest = max(phases, key=lambda phase: phase.peak_bytes)
    return {category: highest.peak.get(category, 0) / highest.peak_bytes for category in STACKED_CATEGORIES}
