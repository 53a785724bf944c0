"""One guard: a line that stands between labkit and what comes from outside, or between a run and a lie."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Guard:
    """One guard: ``before`` is the code as it is, ``after`` the code without it; ``tests`` are nodes of pytest."""

    name: str
    why: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def removed_from(self, text: str) -> str:
        """The text of the file without the guard. ``ValueError`` where the snippet is not there just once."""
        if (count := text.count(self.before)) != 1:
            raise ValueError(f"guard {self.name!r}: {self.file} has its snippet {count} times; follow it there.")
        return text.replace(self.before, self.after)
