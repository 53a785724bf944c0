"""Check of the data sets: whether they are here, whether a run can read them, and what brings them."""

import shlex

from labkit.config.datasets import DATASETS
from labkit.help.doctor.machine import Check, DataFound, Needs
from labkit.memory.units import counted


def check_data(needs: Needs) -> list[Check]:
    """The data sets of the run, or of the profile's experiments. Downloads nothing."""
    return [_check(needs, data) for data in needs.data]


def _check(needs: Needs, data: DataFound) -> Check:
    if data.problem is None:
        found = f"{data.name}, {counted(data.samples, 'sample')} in {data.folder}"
        return Check(name="data", level="green", found=found if data.folder else f"{data.name} ships with labkit")
    level = "red" if needs.config else "amber"  # without an experiment the data is not needed yet
    found = f"{data.name} is not here" if data.folder is None else f"{data.name} cannot be read: {data.problem}"
    entry = DATASETS.get(data.name)
    if entry is None:
        return Check(name="data", level=level, found=found, fix=needs.run("dataset=fluent_emoji"))
    fix = f"labkit fetch --data {data.name}"
    if data.folder is not None:
        fix = f"mv {shlex.quote(str(data.folder))} {shlex.quote(f'{data.folder}.old')} && {fix}"
    return Check(name="data", level=level, found=found, fix=fix)
