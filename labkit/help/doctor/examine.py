"""Doctor: is this machine ready for a run, and what fixes what is not."""

from pathlib import Path

from labkit.help.doctor.data import check_data
from labkit.help.doctor.gpu import check_gpu
from labkit.help.doctor.host import check_caches, check_compiler, check_disk, check_memory, check_shared_memory
from labkit.help.doctor.libraries import check_extras, check_hub, check_versions
from labkit.help.doctor.machine import Check, Machine, Needs


def examine(machine: Machine, needs: Needs, runs: Path, requirements: Path | None = None) -> list[Check]:
    """Every check, in the order in which one would fix them. Changes nothing; each look has a time-out.

    ``runs`` is where runs are written. Commands get ten seconds each, the hub five.
    """
    return [
        *check_gpu(machine, needs),
        check_memory(machine, needs),
        check_shared_memory(machine, needs),
        check_disk(machine, needs, runs),
        check_caches(machine),
        check_compiler(machine, needs),
        check_versions(requirements),
        *check_extras(needs),
        *check_data(needs),
        *check_hub(machine, needs),
    ]


def worst(checks: list[Check]) -> str:
    """The level of the worst: ``red``, ``amber`` or ``green``."""
    levels = {check.level for check in checks}
    return next(level for level in ("red", "amber", "green") if level in levels or level == "green")
