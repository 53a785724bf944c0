"""Next steps: the commands that a diagnosis ends with, each for the run that died."""

from collections.abc import Iterable, Mapping

from labkit.config.values import pairs
from labkit.runs.records import Record


class NextSteps:
    """Commands to type, with the reason behind a ``#``. Without a record EXPERIMENT and PROFILE stay to be filled in.

        NextSteps(record).fill(["{run:num_workers=0}  # no workers"], {})

    In a template ``{run:key=value}`` is the command of the run with another value, ``{doctor}`` and ``{advise}`` the
    other verbs for it. A template that is one of ``{fit} {host} {nan} {again} {elsewhere}`` and nothing else becomes
    the steps of that name.
    """

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._config = record.config if record else {}
        self._run = _Run(record)
        name = record.experiment if record else "EXPERIMENT"
        self.doctor = f"labkit doctor {name} --profile {self._run.profile}"

    def run(self, values: str = "") -> str:
        """The command of the run, with other values if there are any."""
        return format(self._run, values)

    def fill(self, templates: Iterable[str], found: Mapping[str, str]) -> list[str]:
        """The steps of ``templates``; ``found`` are further names, and a name that nobody knows is left in capitals."""
        named = {"{fit}": self.fit, "{host}": self.host, "{nan}": self.nan, "{again}": self.again,
                 "{elsewhere}": self.elsewhere}  # fmt: skip
        words = Blanks({
            **found, "run": self._run, "doctor": self.doctor, "advise": self._run.advise,
            "model": self._config.get("model_name", "MODEL"), "runs": "${LABKIT_RUNS:-workspace/runs}",
        })  # fmt: skip
        steps: list[str] = []
        for template in templates:
            steps += named[template]() if template in named else [template.format_map(words)]
        return steps

    def fit(self) -> list[str]:
        """What would fit, and the run that finds it by itself."""
        return [
            f"{self._run.advise}  # changes that make it fit, each planned, the cheapest first",
            f"{self.run()} --fit  # takes such changes by itself, one after the other, until it fits",
        ]

    def host(self) -> list[str]:
        """More host memory, or less need of it."""
        steps = ["{doctor}  # host memory and swap against what the run needs, with the commands for more swap"]
        workers = self._config.get("num_workers")
        if workers is None or workers > 0:
            had = "" if workers is None else f" (it had {workers})"
            steps.append(f"{{run:num_workers=0}}  # no loader workers{had}: each takes host memory")
        return [*self.fill(steps, {}), *self.again()]

    def nan(self) -> list[str]:
        """What keeps a loss finite."""
        lr = self._config.get("lr")
        steps = [f"{{run:lr={'...' if lr is None else f'{lr / 10:g}'}}}  # smaller steps"]
        if not self._config.get("warmup_steps"):
            steps.append("{run:warmup_steps=10}  # the first steps small")
        if str(self._config.get("precision", "16")).startswith("16"):
            steps.append("{run:precision=bf16-mixed}  # the range of 32 bits; 16-bit floats end at 65504")
        return self.fill(steps, {})

    def elsewhere(self) -> list[str]:
        """The run on another disk."""
        return [f"LABKIT_RUNS=/another/disk/runs {self.run()}  # runs and checkpoints on another disk"]

    def again(self) -> list[str]:
        """The same run once more, from its last checkpoint where it writes them."""
        if self._record is not None and self._config.get("enable_checkpointing"):
            return [f"labkit run --resume {self._record.id}  # goes on from the last checkpoint"]
        return [f"{self.run()}  # again, from the start"]


class Blanks(dict):
    """Names for ``format_map``; one that is not there becomes a blank to fill in."""

    def __missing__(self, key: str) -> str:
        return key.upper()


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
