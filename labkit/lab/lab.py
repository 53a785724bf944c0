"""Lab: what a notebook calls, on every machine the same."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.layers import Resolved, resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import coerce
from labkit.config.workspace import Workspace
from labkit.lab import spoken
from labkit.lab.journal import Journal
from labkit.lab.lesson import Check, lesson_of
from labkit.lab.machine import find_machine
from labkit.lab.result import NOT_PLANNED, Blank, Evidence, Result, name_of, planned, sources, with_prediction
from labkit.lab.views import Lines, Several, View
from labkit.runs.records import Ledger, LedgerError, Record

EMPTY = (..., None)
"""What stands in a cell that the student has not filled in."""


def _refusing(method: Callable[..., View]) -> Callable[..., View]:
    """What cannot work is said in the cell, and the notebook goes on."""

    @wraps(method)
    def said(self: "Lab", *args: Any, **kwargs: Any) -> View:
        try:
            return method(self, *args, **kwargs)
        except (ConfigError, LedgerError) as error:
            return Refusal(str(error))

    return said


class Refusal(Lines):
    """Why something was not done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, mark="not done")
        self.name = "refused"


class Lab(View):
    """One lab of the course on this machine.

        lab = Lab("02_batch_and_accumulation")
        small = lab.run("reduced_batch")
        lab.plot("phases", small)

    ``LABKIT_MODE`` says whether experiments are run or only planned, ``profile`` or ``LABKIT_PROFILE`` for which
    machine. What its methods return is shown by the cell; what cannot work is said there and raises nothing. Raises
    ``ConfigError`` for an unknown lab, profile or mode.
    """

    def __init__(self, name: str, profile: str | None = None) -> None:
        self.name = name
        self.lesson = lesson_of(name)
        self.workspace = Workspace.find()
        self.machine = find_machine(self.workspace, profile)
        self.profile = load_profile(self.workspace, self.machine.profile)
        self.ledger = Ledger(self.workspace.runs)
        self.journal = Journal(self.workspace.runs)
        self._results: dict[str, Result] = {}
        self._handed: dict[str, Evidence] = {}

    @property
    def plans_only(self) -> bool:
        """Whether experiments are planned and not run."""
        return self.machine.mode == "plan"

    @property
    def unit(self) -> tuple[str, int]:
        """The unit of memory that fits the machine: its name and its bytes."""
        capacity_gib = self.profile.values.get("capacity_gib")
        return ("MiB", 2**20) if capacity_gib is not None and capacity_gib < 1 else ("GiB", 2**30)

    def _text(self) -> str:
        return "\n".join(spoken.about_machine(self.name, self.machine, self.profile, self.workspace))

    def _html(self) -> str:
        head, *lines = self.text().splitlines()
        return Lines(head, lines).html()

    # -- experiments

    @_refusing
    def predict(self, experiment: str, *, on: str | None = None, **overrides: Any) -> Result | View:
        """What an experiment will hold in memory; nothing is run.

        ``on`` names another machine: a profile, a GPU, or a size such as ``24GiB``. ``overrides`` are config values.
        """
        if empty := _empty({"on": on, **overrides}):
            return Blank(experiment, empty)
        from labkit.plan.errors import PredictionError
        from labkit.plan.predict import predict, refuse_without_bf16

        machine = on or self.profile.name
        resolved = resolve(self.workspace, experiment, overrides, machine)
        _quiet_libraries()
        try:
            refuse_without_bf16(resolved.config, machine)
            found = predict(resolved.config)
        except PredictionError as error:
            return Refusal(f"{name_of(experiment, overrides)} cannot be predicted: {error}")
        return planned(resolved, _typed(overrides), found)

    @_refusing
    def run(self, experiment: str, *, timeout_s: float | None = None, **overrides: Any) -> Result | View:
        """Run an experiment, or plan it where ``LABKIT_MODE=plan``. However it ends, there is a result."""
        if empty := _empty(overrides):
            return Blank(experiment, empty)
        if self.plans_only:
            found = self.predict(experiment, **overrides)
        else:
            from labkit.lab.progress import Progress
            from labkit.runs.runner import run

            resolved = resolve(self.workspace, experiment, overrides, self.profile.name)
            with Progress(name_of(experiment, overrides), resolved.config.accumulate_grad_batches) as progress:
                found = Result(run(experiment, overrides, self.profile.name, timeout_s, progress))
        return self._keep(found)

    @_refusing
    def kill(self, experiment: str, **overrides: Any) -> Result | View:
        """Run an experiment whose process is killed as soon as it trains, as the kernel does without host memory."""
        if self.plans_only:
            return Refusal(f"nothing runs that could be killed: {NOT_PLANNED}")
        from labkit.lab.failures import killing
        from labkit.lab.progress import Progress
        from labkit.runs.runner import run

        with Progress(name_of(experiment, overrides), 1) as progress:
            return Result(run(experiment, overrides, self.profile.name, None, killing(progress)))

    @_refusing
    def captions(self, result: View, dataset: str, count: int = 24) -> View:
        """What a run's model says about images of a data set, and what its base said. It must have kept its weights."""
        from labkit.lab.counts import Captions
        from labkit.lab.processes import captions

        if not isinstance(result, Result):
            return Refusal("there is no run to ask")
        if result.planned:
            return Refusal(f"captions: {NOT_PLANNED}")
        return Captions(result, dataset, captions(result.id, dataset, count))

    @_refusing
    def rounding(self, *pairs: tuple[str, float]) -> View:
        """For pairs of precision and learning rate: how many updates are lost to rounding, counted on a small model."""
        from labkit.lab.counts import Rounding
        from labkit.lab.processes import rounding

        if not pairs:
            return Blank("rounding", ["pairs of precision and learning rate"])
        return Rounding(rounding(self.workspace, pairs))

    @_refusing
    def recall(self, experiment: str, **overrides: Any) -> Result | View:
        """The newest run of an experiment, from this or another lab; it is run if there is none."""
        overrides = _typed(overrides)
        resolved = resolve(self.workspace, experiment, overrides, self.profile.name)
        found = self._newest(name_of(experiment, overrides), resolved)
        return found or self.run(experiment, **overrides)

    def _keep(self, result: Result | View) -> Result | View:
        if isinstance(result, Result) and result.status in ("ok", "oom"):
            self._results[result.name] = result
        return result

    def _newest(self, name: str, resolved: Resolved) -> Result | None:
        """What this notebook has, else the newest run in the ledger that has these settings and came to its end."""
        if name in self._results:
            return self._results[name]
        if self.plans_only:
            return None
        same = [record for record in self._records(resolved) if record.status in ("ok", "oom")]
        return self._keep(Result(same[-1])) if same else None  # type: ignore[return-value]

    def _records(self, resolved: Resolved) -> list[Record]:
        found = self.ledger.records(self.profile.name, resolved.experiment.name)
        return [record for record in found if record.config_hash == resolved.config.hash]

    def _about(self, names: tuple[str, ...], own: tuple[Any, ...] = ()) -> tuple[dict[str, Evidence], list[str]]:
        """Runs by name, and the names of those that there are none of.

        ``?`` names take ``own`` in their order, or else what was handed in for them before.
        """
        runs: dict[str, Evidence] = {}
        lacking, left = [], list(own)
        for name in names:
            if name.startswith("?"):
                given = left.pop(0) if left else None
                found = given if isinstance(given, Evidence) else None
                if found is not None:
                    self._handed[name] = found
                elif not own:
                    found = self._handed.get(name)
            else:
                experiment, overrides = _read_name(name)
                resolved = resolve(self.workspace, experiment, overrides, self.profile.name)
                found = self._newest(name, resolved)
                if found is None and self.plans_only:
                    one = self.run(experiment, **overrides)
                    found = one if isinstance(one, Result) else None
            if found is None:
                lacking.append(name)
            else:
                runs[name] = with_prediction(found) if isinstance(found, Result) else found
        return runs, lacking

    # -- what is shown

    @_refusing
    def table(self, *results: View) -> View:
        """Results side by side, or without any the whole ledger of this machine."""
        from labkit.lab import tables

        if not results:
            return tables.ledger(self)
        found = [result for result in results if isinstance(result, Result)]
        return tables.results(found, self.unit) if found else Lines("nothing to show yet")

    @_refusing
    def plot(self, kind: str, *results: View) -> View:
        """A figure: ``phases``, ``beside``, ``bars``, ``loss`` or ``tradeoff``; see ``labkit.lab.figures``."""
        from labkit.lab import figures

        found = [result for result in results if isinstance(result, Result)]
        if not results and kind == "tradeoff":
            from labkit.lab import tables

            found = [result for result in tables.newest(self) if result.name in self.profile.expected]
        return figures.draw(kind, found)

    # -- what is asked and checked

    @_refusing
    def ask(self, question: str, answer: Any = ...) -> View:
        """Commit an answer before a run: it is stored in the ledger. ``...`` leaves the question unanswered."""
        found = self.lesson.question(question)
        unit, unit_bytes = self.unit
        if answer in EMPTY:
            return spoken.unanswered(found, unit)
        read = found.read(answer, unit_bytes)
        done = all(self._has_run(name) for name in found.about)
        self.journal.add(
            "answer", lab=self.name, question=found.id, answer=read, unit=found.unit, profile=self.profile.name,
            mode=self.machine.mode, committed="after" if done else "before",
        )  # fmt: skip
        return spoken.answered(found, read, done)

    @_refusing
    def explain(self, topic: str, *own: Any) -> View:
        """A question's answer beside what was measured, or the sentences of a topic, with numbers from the records.

        ``own`` is what the notebook hands in, where the topic is about such.
        """
        questions = [question.id for question in self.lesson.questions]
        if topic not in questions:
            found = self.lesson.topic(topic)
            runs, lacking = self._about(found.about, own)
            return (
                spoken.lacking(topic.replace("_", " "), lacking)
                if lacking
                else Lines(sources(runs.values()), found.say(runs))
            )
        question = self.lesson.question(topic)
        runs, lacking = self._about(question.about, own)
        if lacking:
            return spoken.lacking(question.text, lacking)
        given = self.journal.entries("answer", lab=self.name, question=topic, profile=self.profile.name)
        return spoken.resolved(question, given[-1] if given else None, runs, sources(runs.values()))

    @_refusing
    def check(self, check: str | None = None, *own: Any) -> View:
        """Whether a relation between runs holds; without a name every check of the lab whose evidence is there.

        ``own`` is what the notebook hands in, where the check is about such; what was handed to ``explain`` counts
        too. The outcome is stored in the ledger.
        """
        if check is None:
            own_names = {name for one in self.lesson.checks for name in one.about if name.startswith("?")}
            missing = own_names - set(self._handed)
            found = [one for one in self.lesson.checks if not missing & set(one.about)]
            return Several(self._check(one, ()) for one in found)
        return self._check(self.lesson.check(check), own)

    def _check(self, check: Check, own: tuple[Any, ...]) -> View:
        runs, lacking = self._about(check.about, own)
        outcome, left, right = ("open", None, None) if lacking else check.outcome(runs)
        self.journal.add(
            "check", lab=self.name, check=check.id, outcome=outcome, left=left, right=right,
            runs={name: one.id for name, one in runs.items()}, profile=self.profile.name, mode=self.machine.mode,
        )  # fmt: skip
        if lacking:
            return spoken.lacking(check.claim, lacking)
        return spoken.checked(check, runs, outcome, left, right)

    @_refusing
    def advise(self, experiment: str, *, on: str | None = None, **overrides: Any) -> View:
        """The changes that would make an experiment fit, each planned, the cheapest first."""
        if empty := _empty(overrides):
            return Blank(experiment, empty)
        from labkit.lab import tables
        from labkit.plan.advise import advise
        from labkit.plan.errors import PredictionError

        resolved = resolve(self.workspace, experiment, overrides, on or self.profile.name)
        _quiet_libraries()
        try:
            return tables.advice(name_of(experiment, overrides), resolved, advise(resolved.config))
        except PredictionError as error:
            return Refusal(f"{name_of(experiment, overrides)} cannot be planned: {error}")

    def _has_run(self, name: str) -> bool:
        if name.startswith("?"):
            return name in self._handed
        experiment, overrides = _read_name(name)
        resolved = resolve(self.workspace, experiment, overrides, self.profile.name)
        return name in self._results or bool(self._records(resolved))


def _empty(overrides: Mapping[str, Any]) -> list[str]:
    return [key for key, value in overrides.items() if value is ...]


def _typed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    read = {key: coerce(key, value) for key, value in overrides.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}


def _read_name(name: str) -> tuple[str, dict[str, Any]]:
    """``"xxl_lora act_ckpt=True"`` as an experiment and its values."""
    experiment, *pairs = name.split()
    return experiment, _typed(dict(pair.split("=", 1) for pair in pairs))


def _quiet_libraries() -> None:
    """What libraries say while they load is not for whoever asked for a prediction."""
    import logging
    import warnings

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
