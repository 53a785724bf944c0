"""Spoken: machines, questions, answers and checks in words."""

from collections.abc import Sequence
from typing import Any

from labkit.config.datasets import DATASETS
from labkit.config.device import is_simulated
from labkit.config.profiles import Profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.lab.lesson import LABS, PASS, Case, Check, Derivation, Question, Runs, Usual, is_number
from labkit.lab.machine import Machine
from labkit.lab.result import NOT_PLANNED
from labkit.lab.views import Lines
from labkit.memory.units import human_bytes


def about_machine(lab: str, machine: Machine, profile: Profile, workspace: Workspace) -> list[str]:
    """Profile and device; in the first lab also which models and data are small ones."""
    capacity_gib = profile.values.get("capacity_gib")
    capacity = f", {human_bytes(capacity_gib * 2**30)}" if capacity_gib else ""
    device = "a simulated GPU" if is_simulated(profile.values.get("device", RunConfig.device)) else "a CUDA GPU"
    why = f" ({machine.note})" if machine.note else ""
    lines = [f"Lab {lab} on profile {profile.name}{why}", f"device: {device}{capacity}", f"profile: {profile.about}"]
    if machine.mode == "plan":
        lines.append("mode: plan. Nothing is run; every number is predicted, and there is no loss and no time.")
    else:
        lines.append("mode: run. Every number is measured, unless it says predicted.")
    if lab == LABS[0]:
        lines += _stand_ins(profile)
    return [*lines, f"records: {workspace.runs / profile.name}"]


def _stand_ins(profile: Profile) -> list[str]:
    lines = [f"{stand_in} stands in for {wanted}" for wanted, stand_in in profile.models.items()]
    for wanted, stand_in in profile.datasets.items():
        lines.append(f"{stand_in} stands in for {wanted}: {DATASETS[stand_in].about}")
    if profile.lr_multiplier != 1:
        lines.append(f"learning rates are {profile.lr_multiplier:g} times the course's, as smaller models need")
    return lines


def unanswered(question: Question, unit: str) -> Lines:
    """A question that waits for an answer."""
    return Lines(question.text, [_how(question, unit), "replace ... and execute the cell again"], mark="unanswered")


def withheld(question: Question) -> Lines:
    """What is not shown before a question has an answer."""
    lines = [
        f'it would answer this question. Answer first: lab.ask("{question.id}", ...)',
        f'without an answer: lab.ask("{question.id}", "{PASS}"), which is recorded and earns nothing',
    ]
    return Lines(question.text, lines, mark="not yet shown")


def answered(question: Question, answer: float | str, after: bool) -> Lines:
    """An answer that was stored."""
    if answer == PASS:
        return Lines(question.text, ["you pass; the cells below tell"], mark="passed over")
    lines = [f"your answer: {_value(question, answer)}"]
    if after:
        lines.append("it was given after a run or a prediction had told it, and is marked so")
    return Lines(question.text, lines, mark="committed")


def lacking(what: str, names: Sequence[str]) -> Lines:
    """Something that needs runs which are not there."""
    own = [name for name in names if name.startswith("?")]
    lines = [f"run first: {', '.join(name for name in names if name not in own)}"] if len(own) < len(names) else []
    lines += ["it is about a cell that is not filled in, or that gave nothing"] if own else []
    return Lines(what, lines, mark="open")


def resolved(question: Question, entry: dict[str, Any] | None, runs: Runs, source: str) -> Lines:
    """The student's answer compared with the truth, and why it is so."""
    truth = question.truth(runs)
    given = None if entry is None else entry["answer"]
    yours = "none" if given is None else _value(question, given)
    if truth is None:
        return Lines(question.text, [f"your answer: {yours}", f"the truth: {NOT_PLANNED}"], mark="not available")
    mark = "unanswered" if given in (None, PASS) else "right" if question.is_right(given, truth) else "not yet"
    off = ""
    if isinstance(given, float | int) and isinstance(truth, float | int) and truth:
        off = f", {given / truth - 1:+.0%} off"
    lines = [f"your answer: {yours}{off}", *(_said_of(question.usual, given, truth) if mark == "not yet" else [])]
    lines += [f"{source}: {_value(question, truth)}", question.because(runs)]
    return Lines(question.text, lines, mark=mark)


def checked(check: Check, runs: Runs, outcome: str, left: float | None, right: float | None) -> Lines:
    """A check with its two numbers."""
    if check.fitting and (ended := runs[check.fitting].status) != "ok":
        said = {"oom": "it does not fit: out of memory"}.get(ended, f"it did not come to its end: {ended}")
        return Lines(check.claim, [said, check.hint], mark=outcome)
    if left is None or right is None:
        planned = any(result.planned for result in runs.values())
        return Lines(check.claim, [NOT_PLANNED if planned else "the runs do not tell"], mark="not available")
    factor = "" if check.factor == 1 else f"{check.factor:g} times "
    relation = f"within {check.within:.0%} of" if check.relation == "equal" else check.relation
    wanted = f"{relation} {factor}{check.names[1]} {_quantity(check, right)}"
    said = f"{check.names[0]} {_quantity(check, left)}; wanted: {wanted}"
    return Lines(check.claim, [said, check.why if outcome == "passed" else check.hint], mark=outcome)


def underived(derivation: Derivation, cases: Sequence[Case]) -> Lines:
    """A derivation that waits for its number or function."""
    arguments = ", ".join(cases[0].inputs) if cases else ""
    wanted = f"a function of {arguments}" if arguments else "a number"
    unit = ", in bytes" if derivation.unit == "memory" and arguments else ""
    lines = [f"wanted: {wanted}{unit}", "replace ... and execute the cell again"]
    return Lines(derivation.text, lines, mark="open")


def derived(derivation: Derivation, cases: Sequence[Case], results: Sequence[Any], outcome: str, source: str) -> Lines:
    """What a student has worked out, case by case, compared with the records."""
    lines = [_case(derivation, case, result) for case, result in zip(cases, results, strict=False)]
    if outcome == "passed":
        return Lines(derivation.text, [*lines, *[source] * bool(source), derivation.because], mark=outcome)
    if not cases:
        return Lines(derivation.text, ["the runs do not tell"], mark=outcome)
    said: list[str] = []
    for case, result in zip(cases, results, strict=False):
        if is_number(result) and not derivation.is_right(result, case):
            said += _said_of(derivation.usual, result, case.truth)
    return Lines(derivation.text, [*lines, *dict.fromkeys(said), source], mark=outcome)


def _case(derivation: Derivation, case: Case, result: Any) -> str:
    inputs = ", ".join(f"{name}={value}" for name, value in case.inputs.items())
    if not is_number(result):
        return f"{inputs}: {result if isinstance(result, str) else f'{result!r} is no number'}"
    value = human_bytes(result) if derivation.unit == "memory" else f"{result:.4g}"
    right = derivation.is_right(result, case)
    off = f"{result / case.truth - 1:+.1%} off" if case.truth else "wanted: 0"
    return f"{inputs}{': ' if inputs else ''}{value}, {'right' if right else off}"


def _said_of(usual: Sequence[Usual], given: float | str | None, truth: float | str) -> list[str]:
    """The sentence for a usual wrong answer, where it is one."""
    if given in (None, PASS):
        return []
    return [one.says for one in usual if one.meets(given, truth)][:1]  # type: ignore[arg-type]


def _quantity(check: Check, number: float) -> str:
    if check.quantity == "bytes":
        return human_bytes(number)
    return {"loss": f"{number:.3f}", "count": f"{number:g}"}.get(check.quantity, f"{number:.1%}")


def _how(question: Question, unit: str) -> str:
    match question.unit:
        case "memory":
            return f"answer: a number in {unit}"
        case "times":
            return "answer: how many times as much, 1 for the same"
        case "percent":
            return "answer: a number in percent"
        case "count":
            return "answer: a number"
    return "answer: one of " + ", ".join(f'"{choice}"' for choice in question.choices)


def _value(question: Question, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return {"memory": human_bytes(value), "times": f"{value:.3g} times", "percent": f"{value:.0f}%"}.get(
        question.unit, f"{value:.3g}"
    )
