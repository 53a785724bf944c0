"""The lease's end, as provisioning wrote it."""

import json
from datetime import datetime
from pathlib import Path


def read_end(file: Path | None) -> datetime | None:
    """When the lease ends, in UTC; None where it is not written down. ``ValueError`` for a file that does not hold a
    time."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        end = datetime.fromisoformat(json.loads(text)["end"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} does not say when the lease ends. Run 'up' for this node again.") from None
    if end.tzinfo is None:
        raise ValueError(f"{file} has an end without a time zone. Run 'up' for this node again.")
    return end
