"""Evidence: the runs that questions and tasks are judged by, from what was handed in or what ships with the course."""

import functools
from collections.abc import Mapping
from typing import Any, Literal

from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.grading.work import Run, Work
from labkit.lab.reference import read_reference, read_told
from labkit.lab.result import Result

Source = Literal["runs", "reference", "journal", ""]
"""Where the numbers come from that something is judged by; ``journal`` is the student's word."""


class Judged:
    """The runs that count, by the course of this workspace; what it has looked up once it keeps."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def course_hash(self, name: str, profile: str) -> str | None:
        """The config hash of a run as lessons call it; None for one that cannot be."""
        return self._hash(name, profile) if len(profile) <= 100 else None

    def of(
        self, work: Work, lab: str, about: tuple[str, ...], entry: dict[str, Any], named: Mapping[str, Any]
    ) -> tuple[dict[str, Result] | None, Source]:
        """The runs that something is about; None where one of them was not handed in.

        Answers that were only planned have no runs: they are judged by what ships with the course.
        """
        profile = str(entry.get("profile"))
        shipped = self._reference(profile) if entry.get("mode") == "plan" else {}
        handed = self._handed(work, lab) if any(name.startswith("?") for name in about) else {}
        runs: dict[str, Result] = {}
        source: Source = "runs"
        for name in about:
            wanted = named.get(name, handed.get(name))
            own = work.by_id.get(wanted) if isinstance(wanted, str) else None
            if not name.startswith("?"):
                own = self._named(work, name, profile, own)
            elif own is not None and own.config_hash != own.record.config_hash:
                own = None
            if own is not None:
                runs[name] = own.result
            elif name in shipped:
                runs[name], source = shipped[name], "reference"
            else:
                return None, ""
        return runs, source

    @functools.cache  # noqa: B019
    def told(self, profile: str) -> dict[str, float | str]:
        """What ships with the course of what no run tells, by ``LAB/QUESTION``."""
        try:
            return read_told(self.workspace, profile)
        except ConfigError:
            return {}

    def _named(self, work: Work, name: str, profile: str, own: Run | None) -> Run | None:
        """The run that the journal names, if it is what it should be, else the newest such run."""
        wanted = self.course_hash(name, profile)
        same = [run for run in work.same(profile, wanted or "") if run.tells]
        if own is not None and own in same:
            return own
        return same[-1] if same else None

    def _handed(self, work: Work, lab: str) -> dict[str, Any]:
        """Ids of what was handed in to the lab's checks, by its name there."""
        found: dict[str, Any] = {}
        for entry in lines_of(work, "check", lab):
            runs = entry.get("runs")
            found |= {k: v for k, v in runs.items() if k.startswith("?")} if isinstance(runs, dict) else {}
        return found

    @functools.cache  # noqa: B019 - a judge lives as long as the command
    def _hash(self, name: str, profile: str) -> str | None:
        experiment, *pairs = name.split()
        try:
            typed = dict(pair.split("=", 1) for pair in pairs)
            return resolve(self.workspace, experiment, typed, profile).config.hash
        except (ConfigError, ValueError):
            return None

    @functools.cache  # noqa: B019
    def _reference(self, profile: str) -> dict[str, Result]:
        try:
            return {result.name: result for result in read_reference(self.workspace, profile)}
        except ConfigError:
            return {}


def lines_of(work: Work, kind: str, lab: str) -> list[dict[str, Any]]:
    """The journal's lines of a kind in a lab, the oldest first."""
    return work.by_lab.get((kind, lab), [])
