"""Session: experiments on one machine, as a notebook uses them: predict, run, recall, count."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.layers import Resolved, resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import coerce
from labkit.config.workspace import Workspace
from labkit.lab.machine import find_machine
from labkit.lab.result import NOT_PLANNED, Blank, Evidence, Result, name_of, planned, with_prediction
from labkit.lab.views import Lines
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.records import Record
from labkit.ledger.view import View
from labkit.runs.fork_server import environment, warm_up


class NotDone(Lines):
    """Why something was not done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, mark="not done")
        self.name = "refused"


def showing_errors(method: Callable[..., View]) -> Callable[..., View]:
    """What cannot work is said in the cell, and the notebook continues."""

    @wraps(method)
    def said(self: Any, *args: Any, **kwargs: Any) -> View:
        try:
            return method(self, *args, **kwargs)
        except (ConfigError, LedgerError) as error:
            return NotDone(str(error))

    return said


class Session(View):
    """Experiments on the machine that the environment or ``profile`` names. ``Lab`` is one with a lesson.

    What its methods return is shown by a cell; what cannot work is a ``NotDone`` and raises nothing. Raises
    ``ConfigError`` for an unknown profile or mode.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.workspace = Workspace.find()
        self.machine = find_machine(self.workspace, profile)
        self.profile = load_profile(self.workspace, self.machine.profile)
        self.ledger = Ledger(self.workspace.runs)
        self._results: dict[str, Result] = {}
        self._handed: dict[str, Evidence] = {}
        if not self.plans_only:
            warm_up(environment())  # while the first cells are read

    @property
    def plans_only(self) -> bool:
        """Whether experiments are planned and not run."""
        return self.machine.mode == "plan"

    @showing_errors
    def predict(self, experiment: str, *, on: str | None = None, **overrides: Any) -> Result | View:
        """What an experiment will hold in memory; nothing is run.

        ``on`` names another machine: a profile, a GPU, or a size such as ``24GiB``. ``overrides`` are config values.
        """
        if empty := empty_keys({"on": on, **overrides}):
            return Blank(experiment, empty)
        from labkit.plan.errors import PredictionError
        from labkit.plan.predict import predict, refuse_without_bf16
        from labkit.plan.quiet import quiet_warnings

        machine = on or self.profile.name
        resolved = resolve(self.workspace, experiment, overrides, machine)
        quiet_warnings()
        try:
            refuse_without_bf16(resolved.config, machine)
            found = predict(resolved.config)
        except PredictionError as error:
            return NotDone(f"{name_of(experiment, overrides)} cannot be predicted: {error}")
        return planned(resolved, _typed(overrides), found)

    @showing_errors
    def run(self, experiment: str, *, timeout_s: float | None = None, **overrides: Any) -> Result | View:
        """Run an experiment, or plan it where ``LABKIT_MODE=plan``. However it ends, there is a result."""
        if empty := empty_keys(overrides):
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

    @showing_errors
    def watch(self, run: Result | str | None = None) -> View:
        """A run while it runs, by its id or without one the newest: after this kernel was restarted, or from another
        notebook. A run that a terminal has started can be watched too."""
        from labkit.lab.panel import Panel

        id = run.id if isinstance(run, Result) else run
        folders = [self.ledger.find(id)] if id else self.ledger.folders()[-1:]
        if not folders:
            return NotDone(f"there is no run in {self.ledger.root} yet")
        return Panel.of(str(folders[0].path)) or Result(folders[0].read())

    @showing_errors
    def settings(self, *experiments: str) -> View:
        """What experiments are on this machine; of several only the values in which they differ."""
        from labkit.lab import tables

        return tables.settings({name: self._resolved(name).config for name in experiments})

    @showing_errors
    def form(self, experiment: str, **overrides: Any) -> View:
        """An experiment's config to edit, with what is wrong, what is predicted, and the command that runs it."""
        from labkit.lab.form import Form

        if empty := empty_keys(overrides):
            return Blank(experiment, empty)
        return Form(self, experiment, _typed(overrides))

    @showing_errors
    def kill(self, experiment: str, **overrides: Any) -> Result | View:
        """Run an experiment whose process is killed as soon as it trains, as the kernel does without host memory."""
        if self.plans_only:
            return NotDone(f"nothing runs that could be killed: {NOT_PLANNED}")
        from labkit.lab.failures import killing
        from labkit.lab.progress import Progress
        from labkit.runs.runner import run

        with Progress(name_of(experiment, overrides), 1) as progress:
            return Result(run(experiment, overrides, self.profile.name, None, killing(progress)))

    @showing_errors
    def captions(self, result: View, dataset: str, count: int = 24) -> View:
        """What a run's model says about images of a data set, and what its base said. It must have kept its weights."""
        from labkit.lab.counts import Captions
        from labkit.lab.processes import captions

        if not isinstance(result, Result):
            return NotDone("there is no run to ask")
        if result.planned:
            return NotDone(f"captions: {NOT_PLANNED}")
        return Captions(result, dataset, captions(result.id, dataset, count))

    @showing_errors
    def rounding(self, *pairs: tuple[str, float]) -> View:
        """For pairs of precision and learning rate: how many updates are lost to rounding, counted on a small model."""
        from labkit.lab.counts import Rounding
        from labkit.lab.processes import rounding

        if not pairs:
            return Blank("rounding", ["pairs of precision and learning rate"])
        return Rounding(rounding(self.workspace, pairs))

    @showing_errors
    def advise(self, experiment: str, *, on: str | None = None, **overrides: Any) -> View:
        """The changes that would make an experiment fit, each planned, the cheapest first."""
        if empty := empty_keys(overrides):
            return Blank(experiment, empty)
        from labkit.lab import tables
        from labkit.plan.advise import advise
        from labkit.plan.errors import PredictionError
        from labkit.plan.quiet import quiet_warnings

        resolved = resolve(self.workspace, experiment, overrides, on or self.profile.name)
        quiet_warnings()
        try:
            return tables.advice(name_of(experiment, overrides), resolved, advise(resolved.config))
        except PredictionError as error:
            return NotDone(f"{name_of(experiment, overrides)} cannot be planned: {error}")

    @showing_errors
    def recall(self, experiment: str, **overrides: Any) -> Result | View:
        """The newest run of an experiment, from this or another lab; it is run if there is none."""
        overrides = _typed(overrides)
        resolved = resolve(self.workspace, experiment, overrides, self.profile.name)
        found = self._newest(name_of(experiment, overrides), resolved)
        return found or self.run(experiment, **overrides)

    def withheld(self, config_hash: str) -> View | None:
        """What is said in place of a prediction that may not be shown yet; here every one may be."""
        return None

    def tell(self, config_hash: str) -> None:
        """Remember that the prediction of these settings was shown; here nothing has to be."""

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

    def _has_run(self, name: str) -> bool:
        return name in self._results or bool(self._records(self._resolved(name)))

    def _resolved(self, name: str, machine: str | None = None) -> Resolved:
        experiment, overrides = _read_name(name)
        return resolve(self.workspace, experiment, overrides, machine or self.profile.name)


def empty_keys(overrides: Mapping[str, Any]) -> list[str]:
    """Keys whose values the student has not filled in."""
    return [key for key, value in overrides.items() if value is ...]


def _typed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    read = {key: coerce(key, value) for key, value in overrides.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}


def _read_name(name: str) -> tuple[str, dict[str, Any]]:
    """``"xxl_lora act_ckpt=True"`` as an experiment and its values."""
    experiment, *pairs = name.split()
    return experiment, _typed(dict(pair.split("=", 1) for pair in pairs))
