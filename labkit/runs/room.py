"""Room on this machine for the processes of a run, asked before any of them starts."""

import os

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig

RANKS_PER_CORE = 2
"""Processes of a run that one core can carry: each imports torch for itself, and holds about 0.4 GB."""

ALWAYS = 4
"""Devices that the course's own experiments have, on the smallest machine too."""


def refuse_too_many(config: RunConfig) -> None:
    """Raise ``ConfigError`` for more simulated devices, a process each, than this machine's cores carry.

    How many real GPUs there are Lightning says itself.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(ALWAYS, RANKS_PER_CORE * cores)
    if config.simulated and config.devices > most:
        raise ConfigError(
            f"devices={config.devices} are as many processes, and this machine has {cores} cores: set devices={most} "
            "or less, or add --oversubscribe if you mean it."
        )
