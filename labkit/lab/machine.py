"""Machine: where a notebook executes, read from the environment, so that no notebook has to ask."""

import os
from dataclasses import dataclass
from typing import Literal

from labkit.config.device import is_cuda
from labkit.config.errors import ConfigError, nearest
from labkit.config.launcher import check_launcher
from labkit.config.layers import DEFAULT_PROFILE
from labkit.config.profiles import load_profile, profile_names
from labkit.config.workspace import Workspace

Mode = Literal["run", "plan"]
MODES: tuple[Mode, ...] = ("run", "plan")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``mode`` says whether experiments are run or only planned, ``profile`` for which machine.

    ``note`` says why this profile was taken, where none was named.
    """

    mode: Mode
    profile: str
    note: str = ""


def find_machine(workspace: Workspace, profile: str | None = None) -> Machine:
    """``LABKIT_MODE`` (``run`` or ``plan``) and ``profile``, else ``LABKIT_PROFILE``, else what fits this machine.

    Without a CUDA GPU that is ``tiny``; with one the largest profile that the GPU has the memory for. Raises
    ``ConfigError`` for a mode or a profile that does not exist, for what no launcher says, and for a GPU that torch
    cannot use, unless a profile is named.
    """
    check_launcher(os.environ)
    mode = os.environ.get("LABKIT_MODE") or "run"
    if mode not in MODES:
        raise ConfigError(f"LABKIT_MODE={mode!r} is not a mode ({', '.join(MODES)}).{nearest(mode, MODES)}")
    named = profile or os.environ.get("LABKIT_PROFILE")
    if named:
        load_profile(workspace, named)
        return Machine(mode=mode, profile=named)
    total_bytes, without = cuda_bytes()
    if total_bytes is None:
        return Machine(mode=mode, profile=DEFAULT_PROFILE, note=without)
    fitting = profile_for(workspace, total_bytes)
    size = f"{total_bytes / 2**30:.0f}GiB"
    if fitting is None:
        note = (
            f"no profile fits a GPU of {size}; 'labkit profiles make --gpu {size}' writes one, LABKIT_PROFILE names it"
        )
        return Machine(mode=mode, profile=DEFAULT_PROFILE, note=note)
    return Machine(mode=mode, profile=fitting, note=f"the largest that fits this GPU of {size}")


def cuda_bytes() -> tuple[int | None, str]:
    """Memory of the first CUDA GPU that this process is shown; None where there is none, and then why.

    A torch without CUDA on a machine with a GPU, as on a laptop, counts as none. Raises ``ConfigError`` for a GPU that
    a torch for CUDA cannot use: its driver, or the container.
    """
    import torch

    from labkit.memory.obstacle import find_obstacle

    obstacle = find_obstacle()
    if obstacle is None:
        return torch.cuda.get_device_properties(0).total_memory, ""
    if obstacle.gpu is None or obstacle.without_cuda:
        return None, obstacle.reason
    raise ConfigError(
        f"{obstacle.reason}. 'labkit doctor' says what to do; LABKIT_PROFILE=tiny takes the simulated GPU all the same."
    )


def profile_for(workspace: Workspace, total_bytes: int) -> str | None:
    """The profile of a CUDA GPU with the largest capacity that ``total_bytes`` hold."""
    fitting = []
    for name in profile_names(workspace):
        values = load_profile(workspace, name).values
        capacity_bytes = (values.get("capacity_gib") or 0) * 2**30
        if is_cuda(values.get("device")) and capacity_bytes <= total_bytes:
            fitting.append((capacity_bytes, name))
    return max(fitting)[1] if fitting else None
