"""Ranges: what a number of a config may be; each stands next to its field, as ``Annotated[int, AtLeast(1)]``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

MOST = 10**18
"""Of every count; libraries keep them in 64 bits."""


class Range(ABC):
    """The values that a number may have."""

    @abstractmethod
    def fault(self, value: float) -> str | None:
        """What the number must be, in words, where ``value`` is not so."""


@dataclass(frozen=True)
class AtLeast(Range):
    """A count. ``most`` is low where so many are made one by one, or in memory before anything counts them."""

    least: int
    most: int = MOST

    def fault(self, value: float) -> str | None:
        """In words: ``at least 1``."""
        if value < self.least:
            return f"at least {self.least}" if self.least else "0 or more"
        return f"at most {self.most:,}" if value > self.most else None


@dataclass(frozen=True)
class Above(Range):
    """A quantity; none that is just the limit."""

    limit: float
    most: int | None = None

    def fault(self, value: float) -> str | None:
        """In words: ``above 0``."""
        if value <= self.limit:
            return f"above {self.limit:g}"
        return f"at most {self.most:,}" if self.most is not None and value > self.most else None


@dataclass(frozen=True)
class Share(Range):
    """A part of a whole, and never all of it."""

    def fault(self, value: float) -> str | None:
        """In words: ``from 0 to below 1``."""
        return None if 0 <= value < 1 else "from 0 to below 1"
