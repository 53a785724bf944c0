"""Profiles: the facts of a machine, and what each experiment does on it."""

from dataclasses import dataclass, field
from typing import Any

from labkit.config.architectures import ARCHITECTURES
from labkit.config.errors import ConfigError, nearest
from labkit.config.schema import keys
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

STATUSES = ("ok", "oom", "killed", "timeout", "failed", "skipped")
"""How a run can end."""

ACTIVITIES = ("load_model", "load_batch", "forward", "backward", "optimizer_step")
"""What a run can be doing when it dies."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How an experiment ends on a machine; for ``oom`` also the optimizer step (from 0) and the activity."""

    status: str = "ok"
    step: int | None = None
    phase: str | None = None

    def matches(self, status: str, died_in: dict[str, Any] | None) -> bool:
        """Whether a run ended like this."""
        if status != self.status:
            return False
        died = died_in or {}
        return all(want is None or died.get(key) == want for key, want in (("step", self.step), ("phase", self.phase)))

    def __str__(self) -> str:
        if self.phase is None:
            return self.status
        return f"{self.status}, {self.phase.replace('_', ' ')} of step {self.step}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A machine: values for every experiment and for single ones, stand-in models, caps, expectations.

    ``values`` hold for all experiments, ``experiments`` for one each. ``models`` puts a stand-in for a model.
    ``caps`` are upper limits for values nobody typed. ``lr_multiplier`` goes with stand-ins, which need larger steps.
    ``skip`` says why an experiment cannot run here.
    """

    name: str
    about: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    caps: dict[str, int] = field(default_factory=dict)
    lr_multiplier: float = 1.0
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    expected: dict[str, Expected] = field(default_factory=dict)
    skip: dict[str, str] = field(default_factory=dict)


def profile_names(workspace: Workspace) -> list[str]:
    """Names of all profiles."""
    return sorted(path.stem for path in workspace.profiles.glob("*.yaml"))


def load_profile(workspace: Workspace, name: str) -> Profile:
    """The profile called ``name``; ``ConfigError`` for an unknown name or a file that is not one."""
    path = workspace.profiles / f"{name}.yaml"
    if not path.is_file():
        known = profile_names(workspace)
        raise ConfigError(f"no profile '{name}'.{nearest(name, known)} There are: {', '.join(known)}.")
    data = read_yaml(path)
    known_keys = ("about", "values", "models", "caps", "lr_multiplier", "experiments", "skip")
    for key in data:
        if key not in known_keys:
            raise ConfigError(f"{path}: unknown key '{key}'.{nearest(key, known_keys)}")
    experiments, expected = {}, {}
    for experiment, values in (data.pop("experiments", None) or {}).items():
        values = dict(values or {})
        expected[experiment] = _expected(path, experiment, values.pop("expect", {"status": "ok"}))
        experiments[experiment] = values
    for values in (data.get("values", {}), data.get("caps", {}), *experiments.values()):
        for key in values:
            if key not in keys():
                raise ConfigError(f"{path}: unknown key '{key}'.{nearest(key, keys())}")
    for model in [*data.get("models", {}), *data.get("models", {}).values()]:
        if model not in ARCHITECTURES:
            raise ConfigError(f"{path}: models names '{model}', which is not known.{nearest(model, ARCHITECTURES)}")
    return Profile(name=name, experiments=experiments, expected=expected, **data)


def _expected(path: Any, experiment: str, values: Any) -> Expected:
    if not isinstance(values, dict) or not set(values) <= {"status", "step", "phase"}:
        raise ConfigError(f"{path}: {experiment}.expect has status and, for oom, step and phase; it is {values!r}.")
    if values.get("status") not in STATUSES or values.get("phase", "forward") not in ACTIVITIES:
        raise ConfigError(f"{path}: {experiment}.expect={values!r}; status is one of {', '.join(STATUSES)}, phase one "
                          f"of {', '.join(ACTIVITIES)}.")  # fmt: skip
    return Expected(**values)
