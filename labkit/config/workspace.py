"""The workspace: the folder with configs, profiles, data and runs.

labkit carries the course's own, to be read. What is made with that one lies in the folders of the XDG base directory
specification.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.printable import is_text


@dataclass(frozen=True)
class Workspace:
    """Where things lie. ``find`` looks for one."""

    root: Path

    @property
    def configs(self) -> Path:
        """Experiment files."""
        return self.root / "configs"

    @property
    def profiles(self) -> Path:
        """Profile files."""
        return self.root / "profiles"

    @property
    def data(self) -> Path:
        """Data sets that do not ship with the package."""
        return self.home / "data"

    @property
    def runs(self) -> Path:
        """The ledger; ``LABKIT_RUNS`` puts it elsewhere."""
        return Path(os.environ.get("LABKIT_RUNS") or self.home / "runs").absolute()

    @property
    def predictions(self) -> Path:
        """The cache of predictions: with the runs, or in the user's folder for caches."""
        in_runs = os.environ.get("LABKIT_RUNS") or self.home == self.root
        return self.runs / ".predictions" if in_runs else _xdg("XDG_CACHE_HOME", ".cache") / "predictions"

    @property
    def home(self) -> Path:
        """Where labkit writes: the workspace, or the user's folder for data where that is the package's own."""
        return _xdg("XDG_DATA_HOME", ".local/share") if self.is_packaged else self.root

    @property
    def is_packaged(self) -> bool:
        """Whether it is the one that labkit carries, in which nothing is to be written."""
        return self.root.resolve() == _packaged().resolve()

    def check_writable(self) -> None:
        """Raise ``ConfigError``, with the way to a workspace of one's own, for the one that labkit carries."""
        if self.is_packaged:
            raise ConfigError(
                f"{self.root} is not to be written; make a workspace of your own in this folder, which is then "
                f"found: cp -r {shlex.quote(str(self.root))} workspace"
            )

    @classmethod
    def find(cls) -> "Workspace":
        """``LABKIT_WORKSPACE``, else the first of these that has a baseline: the current folder, ``workspace/`` in it
        or above it, the checkout's, the package's own.

        Raises ``ConfigError`` when there is none.
        """
        named = os.environ.get("LABKIT_WORKSPACE")
        here = Path.cwd()
        checkout = Path(__file__).parents[2]
        places = [here, *(p / "workspace" for p in (here, *here.parents, checkout)), _packaged()]
        places = [Path(named)] if named else places
        for place in places:
            if os.path.isfile(place / "configs" / "baseline.yaml"):  # noqa: PTH113 - says no to a name that is too long
                return cls(place.absolute())._named_in_text()
        where = f"LABKIT_WORKSPACE={named}" if named else f"{here} and above"
        raise ConfigError(f"no workspace in {where}: a workspace holds configs/baseline.yaml. Set LABKIT_WORKSPACE.")

    def _named_in_text(self) -> "Workspace":
        for path in map(str, (self.root, self.runs)):
            if not is_text(path):
                raise ConfigError(
                    f"{path} has letters that are none in this locale ({sys.getfilesystemencoding()}), and records "
                    "could not name it; set PYTHONUTF8=1, or LC_ALL=C.UTF-8."
                )
        return self


def _packaged() -> Path:
    """Where the wheel puts the course's configs, profiles and reference; a checkout has nothing there."""
    return Path(__file__).absolute().parents[1] / "workspace"


def _xdg(variable: str, default: str) -> Path:
    """labkit's folder in one of the user's base folders; the specification has a relative path ignored."""
    named = os.environ.get(variable, "")
    try:
        return (Path(named) if Path(named).is_absolute() else Path.home() / default) / "labkit"
    except RuntimeError:
        raise ConfigError(f"this user has no home folder; set {variable} or LABKIT_RUNS.") from None
