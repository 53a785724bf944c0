"""Processes: work that a lab leaves to other rooms. It runs in a process of its own, so that this one stays small."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.layers import DEFAULT_PROFILE, resolve
from labkit.config.workspace import Workspace

ROUNDING_STEPS = 8


def captions(run_id: str, dataset: str, count: int) -> list[dict[str, str]]:
    """Captions of a run for images of a data set: ``image, caption, wanted``, with adapters also ``base_caption``.

    Raises ``ConfigError`` with what the command said, such as that the run kept no weights.
    """
    arguments = ["-m", "labkit.cli", "caption", run_id, "--dataset", dataset, "--count", str(count), "--json"]
    return _last_list(_said(arguments, Workspace.find()))


def submitted(workspace: Workspace, name: str) -> list[str]:
    """What ``labkit submit`` says of the archive that it has made: the path with its size, and what to know of it.

    Raises ``ConfigError`` with what the command said, such as that there is nothing to hand in.
    """
    return _said(["-m", "labkit.cli", "submit", f"--name={name}"], workspace).splitlines()


def rounding(workspace: Workspace, pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """For pairs of precision and learning rate: how many updates every optimizer step lost, and the losses.

    Counted on the CPU with the small model of the profile ``tiny``, whatever machine the lab has: rounding depends on
    the number format and on the size of an update, not on where it is computed.
    """
    configs = []
    for precision, lr in pairs:
        values = {
            "precision": precision, "lr": lr, "accumulate_grad_batches": 1, "dropout": 0.0, "num_workers": 0,
            "max_steps": ROUNDING_STEPS,
        }  # fmt: skip
        configs.append(resolve(workspace, "bf16_true", values, DEFAULT_PROFILE).config.to_dict())
    request = {"configs": configs, "data_folder": str(workspace.data)}
    return _last_list(_said(["-m", "labkit.train.rounding", json.dumps(request)], Workspace.find()))


def _said(arguments: Sequence[str], workspace: Workspace) -> str:
    env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    env["LABKIT_WORKSPACE"] = str(workspace.root)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", errors="replace", env=env, cwd=Path.cwd()
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(said[-1].removeprefix("error: "))
    return done.stdout


def _last_list(text: str) -> Any:
    """The JSON list at the end of what a process printed; a library may have printed before it."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("["):
            with contextlib.suppress(ValueError):
                return json.loads("\n".join(lines[at:]))
    raise ConfigError(f"the process printed no list: {text[-200:]!r}")
