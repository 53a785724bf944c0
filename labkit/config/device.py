"""Device: which of the values of the key is the simulated GPU and which a real one."""

from typing import Final, Literal

Device = Literal["virtual", "cuda"]

SIMULATED: Final = "virtual"


def is_simulated(device: object) -> bool:
    """Whether this value, of a config or of a record as it was written, means the CPU with a hard memory capacity."""
    return device == SIMULATED


def is_cuda(device: object) -> bool:
    """Whether this value means a real GPU."""
    return device == "cuda"
