"""Names: which folders of a ledger have a panel."""

import re
from pathlib import Path

from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import RunFolder

NEWEST = 20

NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
"""What profiles, experiments and runs are called that have a panel; a file of one's own may be called otherwise."""


def find_run(runs: Path, profile: str, experiment: str, id: str) -> RunFolder | None:
    """The folder of a run by its names; None for one that is not in the ledger, or that a link leads out of it."""
    if not all(NAME.fullmatch(part) for part in (profile, experiment, id)):
        return None
    folder = RunFolder(runs / profile / experiment / id)
    try:
        return folder if lies_in(runs, folder.path) and folder.config.exists() else None
    except (OSError, RuntimeError):  # a name that is too long, a folder that is closed, links in a circle
        return None


def lies_in(runs: Path, folder: Path) -> bool:
    """Whether a folder is in the ledger when links are followed."""
    return folder.resolve().is_relative_to(runs.resolve())


def newest(runs: Path) -> list[dict[str, str]]:
    """The newest runs of a ledger, the newest first: ``id, title, path``."""
    found = []
    for folder in reversed(Ledger(runs).folders()):
        id, experiment, profile = folder.path.name, folder.path.parent.name, folder.path.parents[1].name
        if find_run(runs, profile, experiment, id) is not None:
            found.append(
                {"id": id, "title": f"{experiment} on {profile}, {id}", "path": f"{profile}/{experiment}/{id}"}
            )
        if len(found) == NEWEST:
            break
    return found
