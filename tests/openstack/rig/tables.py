"""The tables of the services' databases: made once by the services' own tools, and read back by each later start."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .install import one_at_a_time
from .stores import Database

AT_ONCE = 4
"""Services that make their tables at the same time."""
Command = tuple[str, Sequence[tuple[str, ...]]]
"""A service's own tool, and the words of what it does, one after the other."""


@dataclass(frozen=True)
class Tables:
    """Kept in ``folder``, a part of the services' environment: they go with its pins."""

    folder: Path
    database: Database
    run: Callable[[str, Sequence[tuple[str, ...]]], None]

    def make(self, made_by: Mapping[tuple[str, ...], Command]) -> None:
        """Fill the databases, by their names; of several workers the first makes what the others read."""
        self.folder.mkdir(exist_ok=True)
        with one_at_a_time(self.folder), ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(self._fill, names, command) for names, command in made_by.items()]:
                done.result()

    def _fill(self, names: tuple[str, ...], command: Command) -> None:
        kept = {name: self.folder / f"{name}.sql" for name in names}
        if all(path.exists() for path in kept.values()):
            for name, path in kept.items():
                self.database.load(name, path)
            return
        self.run(*command)
        for name, path in kept.items():
            self.database.dump(name, path)
