"""The workspace: the folder with configs, profiles, data and runs."""

import os
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
        return self.root / "data"

    @property
    def runs(self) -> Path:
        """The ledger; ``LABKIT_RUNS`` puts it elsewhere."""
        return Path(os.environ.get("LABKIT_RUNS") or self.root / "runs").absolute()

    @classmethod
    def find(cls) -> "Workspace":
        """``LABKIT_WORKSPACE``, else the first of these that has a baseline: the current folder, ``workspace/`` in it
        or above it, the checkout's.

        Raises ``ConfigError`` when there is none.
        """
        named = os.environ.get("LABKIT_WORKSPACE")
        here = Path.cwd()
        checkout = Path(__file__).parents[2]
        places = [Path(named)] if named else [here, *(p / "workspace" for p in (here, *here.parents, checkout))]
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
