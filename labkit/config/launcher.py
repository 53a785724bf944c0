"""Launcher: the numbers that a launcher of ranks leaves in the environment, checked before a library reads them."""

from collections.abc import Mapping

from labkit.config.errors import ConfigError

_NUMBERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "JSM_NAMESPACE_RANK",
)  # fmt: skip
"""Variables of torchrun, Slurm and JSM. Lightning reads some of them while it is imported."""

_RANKS = (
    ("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("LOCAL_RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)  # fmt: skip
_LONGEST = 9
"""Digits of a number; no machine has more devices or ports."""


def check_launcher(environment: Mapping[str, str]) -> None:
    """``ConfigError`` for a variable of a launcher that is not a number, or for a rank that is not below the number of
    ranks."""
    for name in _NUMBERS:
        value = environment.get(name)
        if value is not None and not (value.isascii() and value.isdecimal() and len(value) <= _LONGEST):
            raise ConfigError(
                f"{name}={value!r:.100} is not a number from 0, which a launcher would set; run 'unset {name}', or "
                "start the ranks with torchrun or srun."
            )
    for rank, count in _RANKS:
        if rank in environment and count in environment and int(environment[rank]) >= int(environment[count]):
            raise ConfigError(
                f"{rank}={environment[rank]} does not go with {count}={environment[count]}: ranks count from 0; run "
                f"'unset {rank} {count}', or start the ranks with torchrun or srun."
            )
