"""Profiles: the facts of a machine, and what each experiment does on it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.config.catalogue.models import ARCHITECTURES, STAND_INS
from labkit.config.datasets import DATASETS
from labkit.config.errors import ConfigError, nearest
from labkit.config.gpus import GPUS, gpus_named
from labkit.config.schema import coerce, keys
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

STATUSES = ("ok", "oom", "killed", "timeout", "failed", "skipped")
"""How a run can end."""

ACTIVITIES = ("load_model", "load_batch", "forward", "backward", "optimizer_step", "validation")
"""What a run can be doing when it dies."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How an experiment ends on a machine; for ``oom`` also the optimizer step (from 0) and the activity."""

    status: str = "ok"
    step: int | None = None
    phase: str | None = None

    def matches(self, status: str, step: int | None = None, phase: str | None = None) -> bool:
        """Whether a run ended like this; ``step`` and ``phase`` are where it died."""
        if status != self.status:
            return False
        return self.step in (None, step) and self.phase in (None, phase)

    def __str__(self) -> str:
        where = [self.phase.replace("_", " ")] if self.phase else []
        where += [f"step {self.step}"] if self.step is not None else []
        return ", ".join([self.status, " of ".join(where)] if where else [self.status])


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A machine: values for every experiment and for single ones, stand-ins, caps, expectations.

    ``values`` hold for all experiments, ``experiments`` for one each. ``models`` puts a stand-in for a model,
    ``datasets`` for a data set; ``stand_in_values`` go with a stand-in model, whatever the experiment says.
    ``caps`` are upper limits for values that were not typed. ``lr_multiplier`` goes with stand-ins, which need larger
    steps. ``skip`` says why an experiment cannot run here.
    """

    name: str
    about: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    stand_in_values: dict[str, Any] = field(default_factory=dict)
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
    if "/" in name or name.startswith(".") or len(name) > 100:  # it names a folder of the ledger
        raise ConfigError(f"no profile {name!r}: a profile is named, not a path; 'labkit profiles' lists them.")
    path = workspace.profiles / f"{name}.yaml"
    if not path.is_file() and (found := gpus_named(name)):  # a GPU has more than one name
        path = workspace.profiles / f"{found[0].name}.yaml"
    if not path.exists():
        return _of_gpu(name, profile_names(workspace))
    data = read_yaml(path)
    known_keys = (
        "about",
        "values",
        "models",
        "datasets",
        "stand_in_values",
        "caps",
        "lr_multiplier",
        "experiments",
        "skip",
    )
    for key in data:
        if key not in known_keys:
            raise ConfigError(f"{path}: unknown key '{key}'.{nearest(key, known_keys)}")
    data = {key: value for key, value in data.items() if value is not None}
    for key in ("values", "models", "datasets", "stand_in_values", "caps", "experiments", "skip"):
        if not isinstance(data.get(key, {}), dict):
            raise ConfigError(f"{path}: {key} must hold 'key: value' lines; it is {data[key]!r}.")
    known = sorted(p.stem for p in workspace.configs.glob("*.yaml"))
    for experiment in (*data.get("experiments", {}), *data.get("skip", {})):
        if experiment not in known:
            raise ConfigError(f"{path}: no experiment {experiment!r}.{nearest(experiment, known)}")
    experiments: dict[str, dict[str, Any]] = {}
    expected: dict[str, Expected] = {}
    for experiment, values in data.pop("experiments", {}).items():
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"{path}: {experiment} must hold 'key: value' lines; it is {values!r}.")
        values = dict(values or {})
        expected[experiment] = _expected(path, experiment, values.pop("expect", {"status": "ok"}))
        experiments[experiment] = _values(path, values)
    for key in ("values", "stand_in_values"):
        data[key] = _values(path, data.get(key, {}))
    data["caps"] = _values(path, data.get("caps", {}))
    for key, cap in data["caps"].items():
        if type(cap) not in (int, float):
            raise ConfigError(f"{path}: caps has {key}={cap!r}; a cap is a number.")
    for model in [*data.get("models", {}), *data.get("models", {}).values()]:
        if not isinstance(model, str) or (model not in ARCHITECTURES and model not in STAND_INS):
            raise ConfigError(f"{path}: models names {model!r}, which is not known.{nearest(model, ARCHITECTURES)}")
    for dataset in [*data.get("datasets", {}), *data.get("datasets", {}).values()]:
        if not isinstance(dataset, str) or dataset not in DATASETS:
            raise ConfigError(f"{path}: datasets names {dataset!r}, which is not known.{nearest(dataset, DATASETS)}")
    factor = data.get("lr_multiplier", 1)
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        raise ConfigError(f"{path}: lr_multiplier={factor!r} must be a number above 0.")
    texts = {"about": data.get("about", ""), **data.get("skip", {})}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise ConfigError(f"{path}: {key}={text!r} is not text.")
    return Profile(name=path.stem, experiments=experiments, expected=expected, **data)


def _of_gpu(name: str, profiles: list[str]) -> Profile:
    """The facts of a GPU that has no profile; its experiments are as the course has them."""
    found = gpus_named(name)
    if not found:
        known = [*profiles, *GPUS]
        raise ConfigError(
            f"no profile '{name}'.{nearest(name.lower(), known)} There are: {', '.join(profiles)}; the GPUs "
            f"{', '.join(g for g in GPUS if g not in profiles)}; and sizes such as 24GiB."
        )
    gpu = found[0]
    about = f"one {gpu.name}, for which no batch sizes are chosen"
    return Profile(name=gpu.name, about=about, values=gpu.values)


def _values(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    for key in values:
        if key not in keys():
            raise ConfigError(f"{path}: unknown key {key!r}.{nearest(key, keys())}")
    try:
        return {key: coerce(key, value) for key, value in values.items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _expected(path: Any, experiment: str, values: Any) -> Expected:
    if not isinstance(values, dict) or not set(values) <= {"status", "step", "phase"}:
        raise ConfigError(f"{path}: {experiment}.expect has status and, for oom, step and phase; it is {values!r}.")
    if values.get("status") not in STATUSES or values.get("phase", "forward") not in ACTIVITIES:
        raise ConfigError(f"{path}: {experiment}.expect={values!r}; status is one of {', '.join(STATUSES)}, phase one "
                          f"of {', '.join(ACTIVITIES)}.")  # fmt: skip
    step = values.get("step")
    if step is not None and (type(step) is not int or step < 0):
        raise ConfigError(f"{path}: {experiment}.expect has step={step!r}; it is a whole number from 0.")
    return Expected(**values)
