"""Symptoms whose words a terminal, a pager or a panel may have broken into several lines."""

from labkit.help.diagnosis.symptoms.symptom import Symptom, Tier, symptom


def wrapped(kind: str, texts: str, happened: str, *next_steps: str, tier: Tier = "cause") -> Symptom:
    """A symptom; a blank in ``texts`` matches any white space, and `` ?`` any or none.

    So no blank may stand in a class of characters.
    """
    return symptom(kind, texts.replace(" ?", r"\s*").replace(" ", r"\s+"), happened, *next_steps, tier=tier)
