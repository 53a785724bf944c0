"""Profile file: what ``tune`` found, as the YAML that ``load_profile`` reads, with the reason next to each value."""

import json
from pathlib import Path
from typing import Any

from labkit.config.errors import ConfigError
from labkit.plan.tune import Lesson, Tuned


def profile_yaml(tuned: Tuned) -> str:
    """The text of a profile. Values that differ from the experiment's file carry the original's and why they do."""
    gpu = tuned.gpu
    lines = [
        f"# {_gpu(tuned)}, written by 'labkit profiles make'. Each experiment that is not skipped ends as the course",
        "# has it, with 5% of the capacity to spare either way (predicted, not run). Batches are the largest powers of",
        "# two, up to the course's, that fit; experiments that are compared with each other have the same.",
        f'about: "one {_gpu(tuned)}, batch sizes by prediction{_of_scale(tuned)}"',
        "",
        "values:",
        "  device: cuda",
        f"  capacity_gib: {gpu.usable_bytes / 2**30:.6g}  # what torch can reserve; {gpu.usable_is}",
    ]
    if (capability := gpu.values["compute_capability"]) is not None:
        lines.append(f"  compute_capability: {capability}")
    if tuned.models:
        lines += ["", f"# The course's own models are too large or too small here: {_share(tuned)}, random weights."]
        lines += ["models:", *(f"  {real}: {model}" for real, model in tuned.models.items())]
    lines += ["", "experiments:", *(_row(lesson) for lesson in tuned.lessons)]
    if tuned.skipped:
        lines += ["", "skip:", *(f"  {name}: {json.dumps(reason)}" for name, reason in tuned.skipped.items())]
    return "\n".join(lines) + "\n"


def write_profile(tuned: Tuned, path: Path, *, force: bool = False) -> None:
    """Write the file. Raises ``ConfigError`` if it is there and ``force`` is not given, or cannot be written."""
    check_free(path, force=force)
    try:
        path.write_text(profile_yaml(tuned), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def check_free(path: Path, *, force: bool) -> None:
    """Raise ``ConfigError`` for a profile that must not, or cannot, be written, before anything is planned."""
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; --force overwrites it, --name gives another name.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}.")


def _gpu(tuned: Tuned) -> str:
    return f"GPU of {tuned.gpu.name}" if tuned.gpu.compute_capability is None else tuned.gpu.name


def _share(tuned: Tuned) -> str:
    return f"{'an' if tuned.scale == 'eighth' else 'a'} {tuned.scale} of the layers"


def _of_scale(tuned: Tuned) -> str:
    return f", models with {_share(tuned)}" if tuned.scale else ""


def _row(lesson: Lesson) -> str:
    values: dict[str, Any] = dict(lesson.values)
    if lesson.reason is not None:
        values = {"expect": {"status": "skipped"}}
    elif lesson.wanted == "out of memory":
        died = lesson.prediction.died_in if lesson.prediction else None
        place = {key: died[key] for key in ("step", "phase")} if died else {}
        values["expect"] = {"status": "oom", **place}
    comment = f"  # {'; '.join(lesson.comments)}" if lesson.comments and lesson.reason is None else ""
    row = f"  {lesson.experiment}: {_flow(values)}".rstrip() if values else f"  {lesson.experiment}:"
    return row + comment


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)
