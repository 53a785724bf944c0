"""Proposed: a proposal in plain values, as pages, scripts and records have it. Imports nothing heavy."""

from typing import Any, TypedDict


class Proposed(TypedDict):
    """What ``Proposal.to_dict`` gives: the changes, what they cost, and the prediction with them, in bytes."""

    changes: list[str]
    overrides: dict[str, Any]
    environment: dict[str, str]
    kind: str
    cost: str
    verdict: str
    margin: float | None
    peak_bytes: int
    reserved_bytes: int | None
    host_bytes: int
    saved_bytes: int
