"""The machine as the doctor sees it: commands, files and environment, read where a check is told to."""

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labkit.config.device import is_simulated
from labkit.config.gpus import Gpu
from labkit.config.kernels import BUILDS
from labkit.config.schema import RunConfig

COMMAND_TIMEOUT_S = 10.0
TORCH_TIMEOUT_S = 60.0
"""A child that imports torch and begins with CUDA gets more: from a cold disk that is half a minute (assumed)."""

Level = Literal["green", "amber", "red"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one look has found. ``fix`` is a command to type, empty where nothing is to be fixed.

    ``green``: as it should be. ``amber``: the run can go wrong or be slow. ``red``: it will not work.
    """

    name: str
    level: Level
    found: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"name": self.name, "level": self.level, "found": self.found, "fix": self.fix}


@dataclass(frozen=True, kw_only=True)
class DataFound:
    """A data set of a run, as it is here: in a ``folder``, None where it is nowhere, with so many ``samples``.

    ``problem`` says why a run cannot read it, None where it can. One that ships with labkit has no folder.
    """

    name: str
    folder: Path | None = None
    samples: int = 0
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run needs of the machine; without an ``experiment`` only what its profile says.

    ``gpu`` is the one that the profile is about, None for the simulated GPU. ``host_bytes``: host memory that offload
    takes, predicted. ``saved_bytes``: disk for checkpoints and the model, predicted. ``typed``: the command line's
    values, as they are typed. ``not_predicted`` says why the two are not known. ``data`` are the data sets of the
    experiment, else of all that the profile has.
    """

    profile: str
    device: str
    gpu: Gpu | None = None
    experiment: str | None = None
    config: RunConfig | None = None
    typed: tuple[str, ...] = ()
    host_bytes: int = 0
    saved_bytes: int = 0
    not_predicted: str | None = None
    data: tuple[DataFound, ...] = ()

    @property
    def simulated(self) -> bool:
        """No real GPU is needed."""
        return is_simulated(self.device)

    @property
    def name(self) -> str:
        """The experiment on its profile, in words."""
        return f"{self.experiment} on {self.profile}" if self.experiment else f"the profile {self.profile}"

    def run(self, *values: str) -> str:
        """The command that runs it with other values."""
        changed = [value.partition("=")[0] for value in values]
        kept = [value for value in self.typed if value.partition("=")[0] not in changed]
        return " ".join(["labkit run", self.experiment or "EXPERIMENT", *kept, *values, "--profile", self.profile])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the checks look. ``/proc``, ``/sys`` and ``/dev`` are read below ``root``; commands are found on the
    ``PATH`` of ``environment``, and each gets ten seconds. ``torch_folder`` is that of the installed torch, and
    ``python`` what asks it."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    torch_folder: Path | None = field(default_factory=lambda: _torch_folder())
    python: str = sys.executable
    timeout_s: float = COMMAND_TIMEOUT_S
    torch_timeout_s: float = TORCH_TIMEOUT_S

    def find(self, program: str) -> str | None:
        """Where a program is; None if it is not there."""
        return shutil.which(program, path=self.environment.get("PATH", ""))

    def output(self, program: str, *arguments: str, timeout_s: float | None = None) -> tuple[bool, str]:
        """Whether a command worked, and what it printed, or why it did not."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        path = self.find(program)
        if path is None:
            return False, f"there is no {program}"
        try:
            done = subprocess.run(
                [path, *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s,
                env=dict(self.environment), stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"{program} did not answer within {timeout_s:g} s"
        except OSError as error:
            return False, f"{program} cannot be started: {error.strerror}"
        said = (done.stdout + done.stderr).strip()
        return done.returncode == 0, done.stdout if done.returncode == 0 else said or f"exit code {done.returncode}"

    def text(self, path: str) -> str:
        """A file below ``root``; empty when it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def in_container(self) -> bool:
        """Whether this is the inside of a container."""
        return any((self.root / name).exists() for name in (".dockerenv", ".singularity.d", "run/.containerenv"))

    @property
    def torch_version(self) -> tuple[str, str | None] | None:
        """Version of torch and of the CUDA it was built for (None for a CPU build); None without torch."""
        if self.torch_folder is None:
            return None
        try:
            text = (self.torch_folder / "version.py").read_text(encoding="utf-8")
        except OSError:
            return None
        version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
        cuda = re.search(r"^cuda\b[^=]*= '([^']+)'", text, re.MULTILINE)
        return (version.group(1) if version else "?"), (cuda.group(1) if cuda else None)

    @functools.cached_property
    def torch_says(self) -> dict[str, Any]:
        """What torch itself finds on the first GPU it is shown, asked in a process of its own.

        ``reason``: why it cannot use that, None where it can. ``architectures``: what it has code for.
        """
        worked, text = self.output(self.python, "-m", "labkit.memory.obstacle", timeout_s=self.torch_timeout_s)
        lines = text.replace(self.python, "torch").strip().splitlines() or ["torch says nothing"]
        with contextlib.suppress(ValueError):
            if worked and isinstance(found := json.loads(lines[-1]), dict):
                return found
        return {"reason": lines[-1], "architectures": []}

    @property
    def architectures(self) -> tuple[str, ...]:
        """What the installed torch has code for, as it says or its release says; empty where neither does."""
        if self.torch_version is None or self.torch_version[1] is None:
            return ()
        return tuple(self.torch_says.get("architectures") or ()) or BUILDS.get(self.torch_version[1], ())


def _torch_folder() -> Path | None:
    """Where torch is installed; it is not imported, which takes seconds."""
    found = importlib.util.find_spec("torch")
    return Path(found.origin).parent if found and found.origin else None
