"""labkit: where GPU memory goes when a large vision-language model is fine-tuned.

``predict`` an experiment, ``run`` it, read its ``Record``, ``compare`` many; ``MemoryCapture`` reports the memory of
any LightningModule, and a ``Tracker`` with a capacity is a simulated GPU. Names are imported when they are used.
"""

import importlib
from typing import Any

_HOMES = {
    "ConfigError": "labkit.config.errors",
    "Ledger": "labkit.ledger.ledger",
    "MemoryCapture": "labkit.memory.capture",
    "MemoryReport": "labkit.memory.report",
    "Record": "labkit.ledger.records",
    "RunConfig": "labkit.config.schema",
    "Tracker": "labkit.memory.tracker",
    "predict": "labkit.plan.predict",
    "compare": "labkit.ledger.compare",
    "resolve": "labkit.config.layers",
    "run": "labkit.runs.runner",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"labkit has no '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
