"""Layers: where each value of a run comes from.

Later layers win: defaults, ``baseline``, the experiment, the profile's values for every and for this experiment, the
command line. Last, the profile adapts the result, but never a value that was typed. Stand-ins replace the model and the
data, and caps cut values. A stand-in model comes with random weights, a multiple of the learning rate and the profile's
other values for it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.config.catalogue.models import is_folder
from labkit.config.errors import ConfigError, nearest
from labkit.config.printable import is_text
from labkit.config.profiles import Expected, Profile, load_profile
from labkit.config.schema import RunConfig, coerce, keys
from labkit.config.secrets import redact
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

BASE = "baseline"
DEFAULT_PROFILE = "tiny"
_ABOUT_KEYS = ("base", "number", "compare_with", "lesson")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment file: a difference to ``baseline``, its place in the course (None outside) and what it shows."""

    name: str
    number: int | None
    compare_with: str | None
    lesson: str
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A run before it starts: its config, the layer each value came from, and what is expected of it."""

    experiment: Experiment
    profile: Profile
    config: RunConfig
    origins: dict[str, str]
    """For each key the layer that its value comes from."""
    expected: Expected | None
    """How the profile says that this ends; None with typed values."""

    @property
    def skip_reason(self) -> str | None:
        """Why the profile says that this experiment cannot run; None where it can."""
        return self.profile.skip.get(self.experiment.name)


def load_experiment(workspace: Workspace, name: str) -> Experiment:
    """The experiment called ``name``, or in the file ``name``; ``ConfigError`` when it cannot be used."""
    if not is_text(name):
        raise ConfigError(
            f"experiment {name!r} has letters that are none in this locale, and records could not name it; set "
            "PYTHONUTF8=1, or give it another name."
        )
    path = _experiment_path(workspace, name)
    data = read_yaml(path)
    base = data.pop("base", None)
    if base != (None if path.stem == BASE else BASE):
        raise ConfigError(f"{path}: base={base!r}; an experiment is a difference to '{BASE}', one level deep.")
    about = {key: data.pop(key, None) for key in _ABOUT_KEYS[1:]}
    values = {}
    for key, value in data.items():
        if key not in keys():
            raise ConfigError(f"{path}: unknown key {key!r}.{nearest(key, (*keys(), *_ABOUT_KEYS))}")
        try:
            values[key] = coerce(key, value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    number = about["number"]
    if number is not None and type(number) is not int:
        raise ConfigError(f"{path}: number={number!r} is the place in the course, a whole number.")
    for key in ("compare_with", "lesson"):
        if not isinstance(about[key], str | None):
            raise ConfigError(f"{path}: {key}={about[key]!r} is not text.")
    return Experiment(
        name=path.stem, number=number, compare_with=about["compare_with"],
        lesson=about["lesson"] or "", values=values,
    )  # fmt: skip


def course(workspace: Workspace) -> list[Experiment]:
    """All experiments in the order of the course."""
    found = [load_experiment(workspace, path.stem) for path in workspace.configs.glob("*.yaml")]
    return sorted(found, key=lambda e: (e.number is None, e.number or 0, e.name))


def resolve(
    workspace: Workspace, name: str, overrides: dict[str, Any] | None = None, profile_name: str = DEFAULT_PROFILE
) -> Resolved:
    """The run of experiment ``name`` with typed ``overrides`` on a profile's machine.

        resolve(Workspace.find(), "reduced_batch", {"batch_size": 8}, "a100-80gb").config.lr

    ``name`` may also be a YAML file. Raises ``ConfigError`` for anything that cannot work. Imports nothing heavy and
    writes nothing.
    """
    experiment = load_experiment(workspace, name)
    profile = load_profile(workspace, profile_name)
    typed = {key: coerce(key, value) for key, value in (overrides or {}).items()}
    base = experiment if experiment.name == BASE else load_experiment(workspace, BASE)
    machine = f"profile {profile.name}"
    if "accumulate_grad_batches" in typed and typed.get("global_batch_size") is not None:
        raise ConfigError(
            f"accumulate_grad_batches={typed['accumulate_grad_batches']} does not go with "
            f"global_batch_size={typed['global_batch_size']}, which sets it; type one of them.",
            ("accumulate_grad_batches", "global_batch_size"),
        )
    layers = [
        (BASE, base.values),
        (f"experiment {experiment.name}", experiment.values if experiment is not base else {}),
        (machine, profile.values),
        (f"{machine}, {experiment.name}", profile.experiments.get(experiment.name, {})),
        ("command line", typed),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(keys(), "default")
    for origin, layer in layers:
        for key, value in layer.items():
            values[key], origins[key] = coerce(key, value), origin
    _adapt(profile, values, origins, typed)
    model = values.get("model_name")
    if model is not None and is_folder(model):
        values["model_name"] = os.path.abspath(model)  # noqa: PTH100 - a record is read from anywhere
    config = RunConfig(**values)
    _refuse_secrets({"the experiment's name": experiment.name, **config.to_dict()})
    if config.global_batch_size is not None:
        origins["accumulate_grad_batches"] = "from global_batch_size"
        if config.batch_size != values.get("batch_size"):
            origins["batch_size"] = "from global_batch_size"
    arch = config.architecture
    if config.weights == "pretrained" and config.model_name in profile.models.values():
        raise ConfigError(
            f"weights=pretrained does not go with model_name={config.model_name}: a stand-in has no checkpoint; leave "
            "weights=random.",
            ("weights", "model_name"),
        )
    room = arch.positions
    if room is not None and arch.image_tokens + config.max_length > room:
        raise ConfigError(
            f"max_length={config.max_length} does not go with model_name={config.model_name}: it has {room} positions, "
            f"{arch.image_tokens} of them for the image; use at most {room - arch.image_tokens}.",
            ("max_length", "model_name"),
        )
    return Resolved(
        experiment=experiment, profile=profile, config=config, origins=origins,
        expected=None if typed else profile.expected.get(experiment.name),
    )  # fmt: skip


def _refuse_secrets(named: dict[str, Any]) -> None:
    for (key, value), clean in zip(named.items(), redact(named).values(), strict=True):
        if clean != value:
            raise ConfigError(
                f"{key} holds a secret ({clean!r}), and a config is written down and shown; take it out. A token for "
                "the hub belongs into HF_TOKEN.",
                (key,) if key in keys() else (),
            )


def _adapt(profile: Profile, values: dict[str, Any], origins: dict[str, str], typed: dict[str, Any]) -> None:
    machine = f"profile {profile.name}"
    defaults = {key: getattr(RunConfig, key) for key in keys()}
    for key, stand_ins in (("model_name", profile.models), ("dataset", profile.datasets)):
        value = values.get(key, defaults[key])
        if value in stand_ins:
            values[key], origins[key] = stand_ins[value], f"{machine}, stands in for {value}"
    for key, cap in profile.caps.items():
        value = values.get(key, defaults[key])
        if key not in typed and (value is None or value > cap):
            values[key], origins[key] = cap, f"{machine}, cap (was {'no limit' if value is None else value})"
    stands_in = values.get("model_name", defaults["model_name"]) in profile.models.values()
    if stands_in:
        for key, value in {"weights": "random", **profile.stand_in_values}.items():
            if key not in typed:
                values[key], origins[key] = value, f"{machine}, goes with a stand-in"
    if stands_in and profile.lr_multiplier != 1 and "lr" not in typed:
        lr = values.get("lr", defaults["lr"])
        values["lr"] = float(f"{lr * profile.lr_multiplier:.6g}")
        origins["lr"] = f"{machine}, {profile.lr_multiplier:g} x {lr:g}"


def _experiment_path(workspace: Workspace, name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        for path in (Path(name), workspace.root / name):
            if os.path.exists(path):  # noqa: PTH110 - says no to a name that is too long, where Path raises
                return path
        raise ConfigError(f"no experiment file {name}, here or in {workspace.root}.")
    path = workspace.configs / f"{name}.yaml"
    if not os.path.exists(path):  # noqa: PTH110
        known = sorted(p.stem for p in workspace.configs.glob("*.yaml"))
        raise ConfigError(f"no experiment '{name}'.{nearest(name, known)} 'labkit configs' lists them.")
    return path
