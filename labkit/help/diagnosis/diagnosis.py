"""A diagnosis: what happened to a dead run, the evidence, and what to do."""

from dataclasses import dataclass

from labkit.ledger.shape import Diagnosed


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a run died. ``kind`` is a short identifier, ``happened`` says it in one to three sentences.

    ``evidence`` has quoted lines and numbers, ``next_steps`` commands to type, with the reason after a ``#``.
    """

    kind: str
    happened: str
    evidence: list[str]
    next_steps: list[str]

    def to_dict(self) -> Diagnosed:
        """Plain values, ready for JSON; ``Diagnosis(**...)`` reads them."""
        return {
            "kind": self.kind, "happened": self.happened, "evidence": list(self.evidence),
            "next_steps": list(self.next_steps),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """For people: what happened, the evidence, what to do."""
        parts = {"What happened": [self.happened], "Evidence": self.evidence, "What to do": self.next_steps}
        return [line for title, lines in parts.items() for line in (title, *(f"  {line}" for line in lines))]
