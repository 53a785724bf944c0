"""Reference: the course's own runs, which ship with it for students who cannot make them.

    python -m labkit.lab.reference              every profile of the workspace
    python -m labkit.lab.reference tiny         one

writes ``workspace/reference/<profile>.json``: for every run of the course its newest record in the ledger. Where there
is none, it is run on the simulated GPU, and planned for a GPU. Only what tables and lessons read is kept.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.config.device import is_simulated
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile, profile_names
from labkit.config.schema import RunConfig
from labkit.config.secrets import redact
from labkit.config.versions import version_of
from labkit.config.workspace import Workspace
from labkit.lab.lesson import LABS, lesson_of
from labkit.lab.result import Evidence, Result, with_prediction
from labkit.ledger.ledger import Ledger
from labkit.ledger.records import Record
from labkit.ledger.shape import read_object
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import MemoryReport, PhaseMemory

if TYPE_CHECKING:
    from labkit.lab.session import Session

COMMAND = "python -m labkit.lab.reference"

PLANNED = "planned"
"""The id of what was planned and not run."""

_LEFT_OUT = ("diagnosis", "reason", "attempts", "fallback", "others_bytes", "exit_code")
"""Fields of a record that are not read in a reference, and that may name places of the machine."""


class Shipped(Result):
    """A run that ships with the course; ``made`` is when, and on what."""

    def __init__(self, record: Record, made: str) -> None:
        super().__init__(record)
        self.made = made

    @property
    def source(self) -> str:
        """Where the numbers come from, marked as not the student's."""
        return f"shipped, {super().source}"

    @property
    def said(self) -> str:
        """The same as a title says it."""
        return "shipped with the course (predicted)" if self.planned else f"shipped with the course ({super().source})"


def path_of(workspace: Workspace, profile: str) -> Path:
    """Where the reference of a profile lies."""
    return workspace.root / "reference" / f"{profile}.json"


def read_reference(workspace: Workspace, profile: str) -> list[Shipped]:
    """The runs that ship for a profile; ``ConfigError`` where there are none or they are damaged."""
    path, data = path_of(workspace, profile), _read(workspace, profile)
    try:
        made = f"{data['made'][:10]}, {data['machine']}"
        return [Shipped(Record.from_dict(_filled(run)), made) for run in data["runs"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, profile, error) from None


def outdated(workspace: Workspace, profile: str) -> list[str]:
    """Names of runs whose settings the course has changed since, or that are only in one of course and reference."""
    shipped = {result.name: result.record.config_hash for result in read_reference(workspace, profile)}
    wanted = {name: resolve(workspace, *_parts(name), profile).config.hash for name in wanted_names(workspace, profile)}
    return sorted(name for name in {*shipped, *wanted} if shipped.get(name) != wanted.get(name))


def wanted_names(workspace: Workspace, profile: str) -> list[str]:
    """The runs of the course on a profile, and those that lessons are about, as lessons call them."""
    of_the_course = list(load_profile(workspace, profile).expected)
    lessons = [lesson_of(lab) for lab in LABS]
    about = [name for lesson in lessons for one in lesson.all for name in one.about]
    more = sorted({name for name in about if not name.startswith("?") and name not in of_the_course})
    return [*of_the_course, *more]


def make(workspace: Workspace, profile: str) -> Path:
    """Make the reference of one profile; takes minutes where much has to be run or planned. Raises ``ConfigError`` for
    a workspace that is not to be written."""
    workspace.check_writable()
    runs = []
    for name in wanted_names(workspace, profile):
        print(f"{profile}: {name}", file=sys.stderr, flush=True)
        runs.append(_kept(with_prediction(_one(workspace, profile, name)).record))
    versions = ", ".join(f"{lib} {version_of(lib)}" for lib in ("torch", "transformers", "peft", "bitsandbytes"))
    data = {
        "profile": profile, "told": _told(workspace, profile), "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}",
    }  # fmt: skip
    path = path_of(workspace, profile)
    path.parent.mkdir(exist_ok=True)
    *head, last = [f'"{key}": {json.dumps(value)}' for key, value in redact({**data, "runs": []}).items()]
    lines = ",\n".join(json.dumps(redact(run)) for run in runs)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("{" + ",\n".join([*head, f"{last[:-1]}\n{lines}\n]"]) + "}\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_told(workspace: Workspace, profile: str) -> dict[str, float | str]:
    """The right answers, by ``LAB/QUESTION``, to questions about what a notebook hands in, which no record tells."""
    found = _read(workspace, profile).get("told", {})
    return found if isinstance(found, dict) else {}


def _read(workspace: Workspace, profile: str) -> dict[str, Any]:
    load_profile(workspace, profile)
    path = path_of(workspace, profile)
    try:
        return read_object(path)
    except FileNotFoundError:
        raise ConfigError(f"no runs ship for the profile {profile}; '{COMMAND} {profile}' makes them.") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, profile, error) from None


def _damaged(path: Path, profile: str, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is damaged ({error}); '{COMMAND} {profile}' makes it again.")


def _told(workspace: Workspace, profile: str) -> dict[str, float | str]:
    """By doing what the notebooks do; without those that cannot be answered where nothing is run."""
    from labkit.lab.session import Session

    session = Session(profile)
    runs = is_simulated(session.profile.values.get("device", RunConfig.device))
    found: dict[str, float | str] = {}
    for lab in LABS:
        for question in lesson_of(lab).questions:
            if question.told_by and (shown := _shown(session, question.told_by, runs)) is not None:
                print(f"{profile}: {lab} {question.id}", file=sys.stderr, flush=True)
                truth = question.truth(dict.fromkeys(question.about, shown))
                if truth is not None:
                    found[f"{lab}/{question.id}"] = truth
    return found


def _shown(session: "Session", told_by: str, runs: bool) -> Evidence | None:
    planned, _, machine = told_by.partition(" on ")
    if machine:
        found = session.predict(planned, on=machine)
    elif told_by == "rounding":
        found = session.rounding(("bf16-true", 2e-5), ("bf16-mixed", 2e-5), ("bf16-true", 2e-3))
    elif not runs:
        return None
    elif told_by == "kill":
        found = session.kill("reduced_batch", max_steps=3)
    else:
        found = session.captions(session.recall("food_lora", max_epochs=20), told_by.split()[1])
    if not isinstance(found, Evidence):
        raise ConfigError(f"{told_by}: {found.text()}")
    return found


def _one(workspace: Workspace, profile: str, name: str) -> Result:
    """The newest run in the ledger that is as the course has it, else one made now: run, or planned for a GPU."""
    from labkit.lab.session import Session

    experiment, overrides = _parts(name)
    resolved = resolve(workspace, experiment, overrides, profile)
    records = Ledger(workspace.runs).records(profile, experiment)
    same = [r for r in records if r.config_hash == resolved.config.hash and r.status in ("ok", "oom")]
    if same:
        return Result(same[-1])
    session = Session(profile)
    do = session.run if resolved.config.simulated else session.predict
    found = do(experiment, **overrides)
    if not isinstance(found, Result) or found.status not in ("ok", "oom"):
        raise ConfigError(f"{name} on {profile}: {found.text()}")
    return found


def _kept(record: Record) -> dict[str, Any]:
    """What of a record is read by tables and lessons: of many micro steps the first, the last and the highest."""
    run = {key: value for key, value in record.to_dict().items() if key not in _LEFT_OUT}
    report = record.memory
    if record.id == PLANNED:
        del run["memory"]  # what was planned, once more
    elif report is not None:
        peaks = report.category_peaks
        wanted = (0, record.config["accumulate_grad_batches"] - 1)
        run["memory"]["phases"] = [
            phase.to_dict()
            for phase in report.phases
            if (phase.step <= 1 and phase.micro_step in wanted)
            or phase is report.peak_phase
            or any(phase is _first_highest(report, category) for category in peaks)
        ]
    for phase, key in _breakdowns(run):
        phase[key] = {category: count for category, count in phase[key].items() if count}
    return run


def _first_highest(report: MemoryReport, category: str) -> PhaseMemory:
    return max(report.phases, key=lambda phase: phase.highest.get(category, 0))


def _parts(name: str) -> tuple[str, dict[str, str]]:
    experiment, *pairs = name.split()
    return experiment, dict(pair.split("=", 1) for pair in pairs)


def _breakdowns(run: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for report in (run.get("memory"), run.get("prediction")):
        for phase in (report or {}).get("phases", []):
            for key in ("end", "peak", "highest"):
                yield phase, key


def _filled(run: dict[str, Any]) -> dict[str, Any]:
    if run["id"] == PLANNED:
        run["memory"] = {key: run["prediction"][key] for key in ("source", "capacity_bytes", "phases")}
    for phase, key in _breakdowns(run):
        phase[key] = {category: phase[key].get(category, 0) for category in CATEGORIES}
    return run


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main(names: list[str]) -> None:
    """Make the references of these profiles, or of all."""
    workspace = Workspace.find()
    for profile in names or profile_names(workspace):
        path = make(workspace, profile)
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
