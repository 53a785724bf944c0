"""A diagnosis: what happened to a dead run, the evidence, and what to do."""

from dataclasses import asdict, dataclass
from typing import Any

from labkit.ledger.parts import Diagnosed


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a run died. ``kind`` is a short identifier, ``happened`` says it in one to three sentences.

    ``evidence`` has quoted lines and numbers, ``next_steps`` commands to type, with the reason after a ``#``.
    """

    kind: str
    happened: str
    evidence: list[str]
    next_steps: list[str]

    @classmethod
    def of(cls, kept: Diagnosed) -> "Diagnosis":
        """The diagnosis that a record has."""
        return cls(kind=kept.kind, happened=kept.happened, evidence=kept.evidence, next_steps=kept.next_steps)

    @property
    def kept(self) -> Diagnosed:
        """It as a record has it."""
        return Diagnosed(kind=self.kind, happened=self.happened, evidence=self.evidence, next_steps=self.next_steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people: what happened, the evidence, what to do."""
        parts = {"What happened": [self.happened], "Evidence": self.evidence, "What to do": self.next_steps}
        return [line for title, lines in parts.items() for line in (title, *(f"  {line}" for line in lines))]
