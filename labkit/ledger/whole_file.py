"""Whole file: JSON that is on disk whole, or not there."""

import json
import os
from pathlib import Path
from typing import Any

from labkit.config.secrets import redact


def write_whole(path: Path, data: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, and a crash leaves one of them.

    Secrets are taken out of it.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(redact(data), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
