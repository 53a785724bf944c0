"""Result: one experiment, run or only planned, in one shape."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from labkit.config.errors import ConfigError
from labkit.config.layers import Resolved
from labkit.config.schema import read_config
from labkit.config.strategy import PLACEMENTS
from labkit.lab.views import Lines
from labkit.ledger.parts import Predicted
from labkit.ledger.predicted import prediction_of
from labkit.ledger.records import Record
from labkit.ledger.shape import shaped
from labkit.ledger.summary import summary
from labkit.ledger.view import View
from labkit.ledger.words import activity, error_words, parts
from labkit.memory.categories import HOST_CATEGORIES
from labkit.memory.report import MemoryReport, PhaseMemory

if TYPE_CHECKING:
    from labkit.plan.predict import Prediction

NOT_PLANNED = "not available when planned"
NOT_MEASURED = "not measured"


def name_of(experiment: str, overrides: Mapping[str, Any]) -> str:
    """``"reduced_batch batch_size=8"``: how lessons, tables and figures call a run."""
    return " ".join([experiment, *(f"{key}={overrides[key]}" for key in sorted(overrides))])


class Evidence(View):
    """Something measured or predicted that a question, a check or a topic can be about.

    ``name`` says what it is of, ``said`` where its numbers come from, ``id`` which run or count it is.
    """

    name: str
    id: str = ""
    said: str = ""
    planned: bool = False


class Result(Evidence):
    """A record, and how it is shown. ``planned`` ones come from a prediction: they have no loss and no time."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._report = record.memory

    @property
    def name(self) -> str:
        """The experiment and the values that were typed."""
        return name_of(self.record.experiment, self.record.overrides)

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def planned(self) -> bool:
        """Whether nothing was run."""
        return self._report is not None and self._report.source == "predicted"

    @property
    def source(self) -> str:
        """Where the numbers come from: ``predicted``, ``simulated GPU`` or ``CUDA``."""
        return self._report.source if self._report else NOT_MEASURED

    @property
    def said(self) -> str:
        """The source as figures and tables say it."""
        return "predicted" if self.planned else f"measured on the {self.source}" if self._report else NOT_MEASURED

    @property
    def status(self) -> str:
        """How it ended, or would: ok, oom, killed, timeout, failed or skipped."""
        return self.record.status

    @property
    def report(self) -> MemoryReport | None:
        """The memory by phase; None where nothing was measured."""
        return self._report

    @property
    def peak_bytes(self) -> int:
        """Highest device bytes. Planned: with memory enough."""
        return self.record.peak_bytes

    @property
    def capacity_bytes(self) -> int | None:
        """What the device holds."""
        return self._report.capacity_bytes if self._report else None

    @property
    def peaks(self) -> dict[str, int]:
        """Highest bytes of each category, also those held when memory ran out."""
        return self.record.category_peaks

    @property
    def prediction(self) -> Predicted | None:
        """What was predicted for it."""
        found = self.record.prediction
        return found if isinstance(found, Predicted) else None

    @property
    def config(self) -> dict[str, Any]:
        """Its settings."""
        return self.record.config

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step."""
        return self.config["batch_size"] * self.config["accumulate_grad_batches"] * self.config["devices"]

    @property
    def last_loss(self) -> float | None:
        """Loss of the last optimizer step; None where there is none."""
        return self.record.losses[-1] if self.record.losses else None

    @property
    def samples_per_second(self) -> float | None:
        """Samples over the training time; None where nothing was trained."""
        return self.record.samples / self.record.train_seconds if self.record.train_seconds else None

    def phase(self, name: str, step: int = 0) -> PhaseMemory | None:
        """The first report of a phase in an optimizer step; None if it was not reached."""
        phases = self._report.phases if self._report else []
        return next((p for p in phases if (p.phase, p.step) == (name, step)), None)

    def lines(self) -> list[str]:
        """How it ended, in a few lines."""
        if self.planned:
            return _planned_lines(self)
        found = summary(self.record).splitlines()
        found.insert(1, _settings(self.config))
        told = prediction_of(self.record)
        if told is not None and told["error"] is not None:
            found.append(f"  predicted for the phases that were reached: {error_words(told['error'])} off")
        return found

    def _text(self) -> str:
        return "\n".join(self.lines())

    def _html(self) -> str:
        head, *below = self.lines()
        return Lines(head, below).html()


def sources(found: Iterable[Evidence]) -> str:
    """Where the numbers of all of these come from, in words."""
    said = {one.said for one in found}
    return " and ".join(sorted(said - {NOT_MEASURED} or said))


class Blank(View):
    """In place of a result whose values the student has not filled in yet."""

    def __init__(self, experiment: str, keys: list[str]) -> None:
        self.name = experiment
        self.keys = keys

    def _text(self) -> str:
        return f"{self.name}: fill in {', '.join(self.keys)} and execute this cell again; nothing was run."

    def _html(self) -> str:
        return Lines(self._text(), mark="open").html()


def planned(resolved: Resolved, overrides: dict[str, Any], prediction: "Prediction") -> Result:
    """A prediction in the shape of a run."""
    found = shaped(Predicted, prediction.to_dict())
    status = "oom" if prediction.died_in else "ok"
    reason = (
        "borderline: 5% more or less memory would change how it ends" if prediction.verdict == "borderline" else None
    )
    return Result(Record(
        id="planned", experiment=resolved.experiment.name, profile=resolved.profile.name, status=status,
        overrides=overrides, config=resolved.config.to_dict(), config_hash=resolved.config.hash, created="",
        reason=reason, died_in=found.died_in, prediction=found, peak_bytes=prediction.peak_bytes,
        memory=MemoryReport(source=found.source, capacity_bytes=found.capacity_bytes, phases=found.phases),
    ))  # fmt: skip


def with_prediction(result: Result) -> Result:
    """The result with a prediction made now, if the run had to end without one because the machine was busy."""
    from labkit.plan.errors import PredictionError
    from labkit.plan.predict import predict

    if result.prediction is not None or result.report is None:
        return result
    try:
        found = shaped(Predicted, predict(read_config(result.config)).to_dict())
    except (PredictionError, ConfigError):
        return result
    return Result(replace(result.record, prediction=found))


def visible(by_category: Mapping[str, int]) -> dict[str, int]:
    """A breakdown without what is less than a hundredth of it, such as step counters."""
    total = sum(by_category.values())
    return {category: count for category, count in by_category.items() if count > total / 100}


def _settings(config: Mapping[str, Any]) -> str:
    """The values that labs change most, as they are typed."""
    keys = ["batch_size", "accumulate_grad_batches", "lr", "precision", "optim"]
    keys += ["devices", "strategy"] if config.get("devices", 1) > 1 else []
    return "  " + ", ".join(f"{key}={config[key]}" for key in keys if key in config)


def _planned_lines(result: Result) -> list[str]:
    from labkit.memory.units import human_bytes

    record, report, prediction = result.record, result.report, result.prediction
    assert report is not None and prediction is not None
    peak = report.peak_phase
    of = f" of {human_bytes(report.capacity_bytes)}" if report.capacity_bytes else ""
    head = f"{result.name} on {record.profile}: {prediction.verdict} (predicted, not run)"
    lines = [head, _settings(result.config)]
    if record.died_in:
        died = record.died_in
        asked = human_bytes(prediction.requested_bytes or 0)
        lines.append(f"  dies in the {died.phase.replace('_', ' ')} of step {died.step}, which asks for {asked}")
    if peak is not None:
        need = "would need" if record.died_in else "peak"
        where = f"in {activity(peak.phase)} of step {peak.step}"
        ranks = result.config["devices"] * result.config["num_nodes"]
        if ranks > 1 and PLACEMENTS[result.config["strategy"]].ranks_differ:
            where = f"on rank {prediction.rank or 0}, which needs most, {where}"
        on_device = {c: n for c, n in visible(peak.peak).items() if c not in HOST_CATEGORIES}
        lines.append(f"  {need} {human_bytes(report.peak_bytes)}{of}, {where}: {parts(on_device)}")
    if prediction.host_bytes > report.peak_bytes / 100:  # more than step counters
        lines.append(f"  host memory {human_bytes(prediction.host_bytes)}")
    if record.reason:
        lines.append(f"  {record.reason}")
    lines.append(f"  loss and time: {NOT_PLANNED}")
    return lines
