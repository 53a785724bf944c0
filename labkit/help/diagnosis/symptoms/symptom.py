"""A symptom: texts that mean one thing, how much they weigh, and what to do."""

import functools
import re
from dataclasses import dataclass
from typing import Literal

Tier = Literal["cause", "sign", "follow_up", "note", "warning"]
"""How much a text says about why a program ended.

``cause``: it is why. ``sign``: it died of something that often has a cause of its own near it in the log.
``follow_up``: others end like this when one has died. ``note``: no process ends of it, but the run is of no use.
``warning``: no process ends of it, but it may be why.
"""


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """Texts that mean one thing. ``next_steps`` are templates of ``NextSteps``; in them and in ``happened`` the name of
    a group of ``texts`` becomes what it has matched.

    ``final`` texts come from who ends a program (Slurm, a launcher): lines that other processes print after them do not
    mean that it was survived. One that ``reaches_back`` says that some process has failed, whose own words come before
    it, also when other processes continued for a while.
    """

    kind: str
    texts: str
    happened: str
    next_steps: tuple[str, ...]
    tier: Tier = "cause"
    final: bool = False
    reaches_back: bool = False

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """``texts``, compiled when it is first looked for: all of them take a tenth of a second."""
        return re.compile(self.texts, re.MULTILINE | re.IGNORECASE)


def symptom(
    kind: str, texts: str, happened: str, *next_steps: str, tier: Tier = "cause", final: bool = False,
    reaches_back: bool = False,
) -> Symptom:  # fmt: skip
    """A symptom of the regular expression ``texts``, which does not mind capitals."""
    return Symptom(
        kind=kind, texts=texts, happened=happened, next_steps=next_steps, tier=tier, final=final,
        reaches_back=reaches_back,
    )  # fmt: skip
