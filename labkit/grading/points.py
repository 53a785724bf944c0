"""Points: what an answer and a check are worth, in each lab and one by one, and what lateness costs; in one file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError, nearest
from labkit.config.yaml_files import read_yaml
from labkit.lab.lesson import LABS, lesson_of

if TYPE_CHECKING:
    from labkit.grading.grade import Row

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Points:
    """A class's weights. A file sets what it names; the rest is as here.

    ``committed`` is for an answer that was committed before the runs that tell it, right or wrong, ``right`` for a
    right one besides, and for a right one that came later if the student had not passed; ``task`` for a task that is
    passed. A check that needs nothing of the student is no task and earns nothing. ``labs`` has a factor for a lab, 0
    to leave it out. ``single`` has the points of one question or task, ``LAB/ID``, in place of the above; a question's
    are divided between ``committed`` and ``right`` as those are. ``late_a_day`` is the share of the points that a day
    costs, each that has begun, and ``most_late`` the most that lateness costs.
    """

    committed: float = 1
    right: float = 1
    task: float = 2
    late_a_day: float = 0
    most_late: float = 1
    labs: Mapping[str, float] = field(default_factory=dict)
    single: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Points":
        """The weights of a YAML file. ``ConfigError`` names the key, its value and the nearest that there is."""
        data = read_yaml(path)
        known = [one.name for one in fields(cls)]
        for key, value in data.items():
            if key not in known:
                raise ConfigError(f"{path}: there is no {key!r}.{nearest(key, known)} There are: {', '.join(known)}.")
            if key in ("labs", "single"):
                _check_names(path, key, value)
            elif not _is_number(value) or (key in ("late_a_day", "most_late") and value > 1):
                most = " to 1" if key in ("late_a_day", "most_late") else " up"
                raise ConfigError(f"{path}: {key}={value!r} must be a number from 0{most}.")
        found = cls(**data)
        if not found.committed + found.right:
            raise ConfigError(f"{path}: committed and right are both 0, so no answer counts; set one of them.")
        return found

    @staticmethod
    def ids(lab: str) -> list[str]:
        """What of a lab can earn points: its questions and its tasks."""
        return [one.id for one in (*lesson_of(lab).questions, *lesson_of(lab).tasks)]

    def most(self) -> dict[str, float]:
        """The points that each lab has."""
        return {lab: sum(self.of_one(lab, id) for id in self.ids(lab)) for lab in LABS}

    def of(self, row: "Row") -> dict[str, float]:
        """What a student has in each lab, before anything is taken off for lateness."""
        return {lab: sum(self.of_one(lab, id, row) for id in self.ids(lab)) for lab in LABS}

    def of_one(self, lab: str, id: str, row: "Row | None" = None) -> float:
        """The points of one question or task: all that it has, or what a student has of it."""
        if id in {task.id for task in lesson_of(lab).tasks}:
            passed = [one for one in row.checks if (one.lab, one.check) == (lab, id)] if row else []
            return (row is None or any(one.outcome == "passed" for one in passed)) * self._task(lab, id)
        committed, right = self._question(lab, id)
        if row is None:
            return committed + right
        mine = [one for one in row.given if (one.lab, one.question) == (lab, id) and not one.passed_over]
        return sum(committed * (one.before is True) + right * (one.right is True) for one in mine)

    def kept(self, late: timedelta) -> float:
        """The share of the points that is left of work that is so late."""
        days = math.ceil(max(late, timedelta()) / DAY)
        return 1 - min(self.most_late, days * self.late_a_day)

    def _question(self, lab: str, id: str) -> tuple[float, float]:
        whole = self.committed + self.right
        points = self.single.get(f"{lab}/{id}", whole) * self.labs.get(lab, 1) / whole
        return points * self.committed, points * self.right

    def _task(self, lab: str, id: str) -> float:
        return self.single.get(f"{lab}/{id}", self.task) * self.labs.get(lab, 1)


def lateness(row: "Row", deadline: datetime | None) -> timedelta:
    """By how much work is late, by the archive's own time; 0 where it is not."""
    if deadline is None or row.created is None:
        return timedelta()
    return max(row.created - deadline, timedelta())


def read_deadline(text: str) -> datetime:
    """A time with its zone; without one it is this machine's. ``ConfigError`` for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(f"--deadline={text!r} is no time; 2026-12-24T18:00+01:00 is one.") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_names(path: Path, key: str, value: Any) -> None:
    names = list(LABS) if key == "labs" else [f"{lab}/{id}" for lab in LABS for id in Points.ids(lab)]
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must be a mapping of names and numbers, {names[1]}: 0 say.")
    for name, number in value.items():
        if name not in names:
            raise ConfigError(f"{path}: {key} has no {name!r}.{nearest(name, names)}")
        if not _is_number(number):
            raise ConfigError(f"{path}: {key}: {name}={number!r} must be a number from 0 up.")
