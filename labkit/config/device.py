"""Device: which value of the key is the simulated GPU and which a real one."""

from typing import Final, Literal

Device = Literal["simulated", "cuda"]

SIMULATED: Final = "simulated"
SIMULATED_GPU: Final = "simulated GPU"
"""The name in texts, and as the source of reports."""

OLD_NAMES: Final = {"virtual": SIMULATED}
"""Old names of values. They are still accepted in configs, profiles, records and on the command line, and never
written."""

_OLD_GPU = "virtual GPU"


def is_simulated(device: object) -> bool:
    """Whether this value, of a config or of a record as it was written, means the CPU with a hard memory capacity."""
    return isinstance(device, str) and OLD_NAMES.get(device, device) == SIMULATED


def source_today(said: str) -> str:
    """The source of a report, or the name of a device, as it was written, with today's name of the simulated GPU."""
    return SIMULATED_GPU + said.removeprefix(_OLD_GPU) if said.startswith(_OLD_GPU) else said


def is_cuda(device: object) -> bool:
    """Whether this value means a real GPU."""
    return device == "cuda"
