"""Next steps: the commands that a diagnosis ends with, each for the run that died."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labkit.config.precision import DTYPES
from labkit.config.values import pairs
from labkit.help.diagnosis.frameworks import Levers
from labkit.ledger.records import Record

_OURS = re.compile(r"\blabkit\b")
_SLURM = re.compile(r"slurmstepd|\bsrun\b|SLURM_|#SBATCH")
_NAMED = re.compile(r"(?<!\$)\{([a-z_]+)(?::(?! )([^{}\n]*))?\}")
_LEVERS = {
    "num_workers=0": "workers", "precision=bf16-mixed": "bf16", "precision=32-true": "bf16", "lr": "lr",
}  # fmt: skip
"""What a value of labkit's is called as a lever of any program."""


class NextSteps:
    """Commands to type, with the reason after a ``#``, for the run of a record, or for the program of a log.

        NextSteps(record).fill(["{run:num_workers=0}  # no workers"], {})

    A log of labkit's own leaves EXPERIMENT and PROFILE to be filled in. For another program's, levers are said in the
    words of the framework that wrote it, and what only labkit can do is left out.

    In a template ``{run:key=value}`` is the command of the run with another value, ``{doctor}`` and ``{advise}`` the
    other verbs for it. A template that is one of ``{fit} {host} {nan} {again} {elsewhere}`` and nothing else becomes
    the steps of that name.
    """

    def __init__(self, record: Record | None, log: str = "") -> None:
        self._record = record
        self.is_ours = record is not None or not log or bool(_OURS.search(log))
        self.under_slurm = bool(_SLURM.search(log))
        self.levers = Levers(log)
        self._config: Mapping[str, Any] = record.config if record else {}
        self._run = _Run(record)
        name = record.experiment if record else "EXPERIMENT"
        self.doctor = f"labkit doctor {name} --profile {self._run.profile}"

    def run(self, values: str = "") -> str:
        """The command of the run, with other values if there are any."""
        return format(self._run, values)

    def fill(self, templates: Iterable[str], found: Mapping[str, str]) -> list[str]:
        """The steps of ``templates``; ``found`` are further names, and a name that is not known is left in capitals."""
        named = {"{fit}": self.fit, "{host}": self.host, "{nan}": self.nan, "{again}": self.again,
                 "{elsewhere}": self.elsewhere}  # fmt: skip
        words = {
            **found, "run": self._run, "doctor": self.doctor, "advise": self._run.advise,
            "model": self._config.get("model_name", "MODEL"), "runs": "${LABKIT_RUNS:-workspace/runs}",
        }  # fmt: skip
        steps: list[str] = []
        for template in templates:
            if template in named:
                steps += named[template]()
            elif self.is_ours:
                steps.append(filled(template, words))
            elif (lever := self._lever(template)) is not None:
                steps.append(filled(lever, words))
        return steps

    def _lever(self, template: str) -> str | None:
        """A template for a program that is not labkit's: its own lever in place of labkit's, or nothing."""
        if (match := re.match(r"\{run:([\w=-]+)\}", template)) is not None:
            key = match[1].partition("=")[0]
            lever = _LEVERS.get(match[1], _LEVERS.get(key))
            return None if lever is None else self.levers[lever]
        return None if "{doctor}" in template or re.search(r"\blabkit\b", template) else template

    def fit(self) -> list[str]:
        """What would fit, and the run that finds it by itself."""
        return [
            f"{self._run.advise}  # changes that make it fit, each planned, the cheapest first",
            f"{self.run()} --fit  # takes such changes by itself, one after the other, until it fits",
        ]

    def host(self) -> list[str]:
        """More host memory, or less need of it."""
        if self.under_slurm:
            asked = (
                "#SBATCH --mem=...G  # more: the job's share of host memory is what is used up, whatever the node has"
            )
            less = (
                [self.levers["workers"]] if not self.is_ours else self.fill(["{run:num_workers=0}  # no workers"], {})
            )
            return [asked, *less, *self.again()]
        if not self.is_ours:
            return [
                "free -h; swapon --show  # RAM and swap of the machine (in a container: its own limit)",
                self.levers["workers"],
                "less offload to the CPU, or more RAM or swap  # optimizer state that is offloaded lies in host memory",
                *self.again(),
            ]
        steps = ["{doctor}  # host memory and swap against what the run needs, with the commands for more swap"]
        workers = self._config.get("num_workers")
        if workers is None or workers > 0:
            had = "" if workers is None else f" (it had {workers})"
            steps.append(f"{{run:num_workers=0}}  # no loader workers{had}: each takes host memory")
        return [*self.fill(steps, {}), *self.again()]

    def nan(self) -> list[str]:
        """What keeps a loss finite."""
        if not self.is_ours:
            return [self.levers["bf16"].replace("  #", "  # precision=bf16-mixed:", 1), self.levers["lr"],
                    "look at the first batch with a NaN: empty labels, log(0), a division by zero"]  # fmt: skip
        lr = self._config.get("lr")
        steps = [f"{{run:lr={'...' if lr is None else f'{lr / 10:g}'}}}  # smaller steps"]
        if not self._config.get("warmup_steps"):
            steps.append("{run:warmup_steps=10}  # the first steps small")
        dtypes = DTYPES.get(str(self._config.get("precision")))
        if "precision" not in self._config or (dtypes is not None and dtypes.half):
            steps.append("{run:precision=bf16-mixed}  # the range of 32 bits; 16-bit floats end at 65504")
        return self.fill(steps, {})

    def elsewhere(self) -> list[str]:
        """The run on another disk."""
        if not self.is_ours:
            return [
                "output_dir=/another/disk/...  # checkpoints on another disk, and fewer of them (save_total_limit=2)"
            ]
        return [f"LABKIT_RUNS=/another/disk/runs {self.run()}  # runs and checkpoints on another disk"]

    def again(self) -> list[str]:
        """The same run once more, from its last checkpoint where it writes them."""
        if not self.is_ours:
            return [self.levers["resume"]]
        if self._record is not None and self._config.get("enable_checkpointing"):
            return [f"labkit run --resume {self._record.id}  # resumes from the last checkpoint"]
        return [f"{self.run()}  # again, from the start"]


def filled(template: str, words: Mapping[str, object]) -> str:
    """``template`` with ``words`` in place of ``{name}`` and ``{name:format}``.

    A name that is not among them becomes a blank to fill in, in capitals. Other braces, such as JSON's, stay.
    """
    return _NAMED.sub(
        lambda found: format(words[found[1]], found[2] or "") if found[1] in words else found[1].upper(), template
    )


class _Run:
    """``labkit run`` of one run; as format, the values that are to differ."""

    def __init__(self, record: Record | None) -> None:
        self._name = record.experiment if record else "EXPERIMENT"
        self._overrides = record.overrides if record else {}
        self.profile = record.profile if record else "PROFILE"

    @property
    def advise(self) -> str:
        return " ".join(["labkit advise", self._name, *pairs(self._overrides), "--gpu", self.profile])

    def __format__(self, values: str) -> str:
        changed = [value.partition("=")[0] for value in values.split()]
        kept = pairs({key: value for key, value in self._overrides.items() if key not in changed})
        return " ".join(["labkit run", self._name, *kept, *values.split(), "--profile", self.profile])
