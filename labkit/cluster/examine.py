"""What is wrong with a batch script, said before it waits in a queue."""

from collections.abc import Mapping
from pathlib import Path

from labkit.cluster.batch_script import BatchScript
from labkit.cluster.launches import with_srun
from labkit.cluster.ranks import check_ranks
from labkit.cluster.site import check_caches, check_file, check_kind, check_output, check_signal, check_time
from labkit.help.doctor.machine import Check, Machine


def examine_script(
    text: str, folder: Path, environment: Mapping[str, str], precision: str | None = None, cuda: str | None = None
) -> list[Check]:
    """Every check of a script's ``text``. ``folder`` and ``environment`` are those that ``sbatch`` is called in.

    ``precision`` is that of the run, where it is known; else what the script says counts. ``cuda`` is what torch was
    built for; without it that of the installed one.
    """
    script = BatchScript.read(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    file = check_file(text, script)
    if cuda is None:
        installed = Machine().torch_version
        cuda = installed[1] if installed else None
    fix = with_srun(script.training) if script.training else ""
    checks = [*file, *check_ranks(script), check_kind(script, precision, cuda), check_caches(script, environment)]
    return [*checks, check_output(script, folder), check_time(script), check_signal(script, fix)]
