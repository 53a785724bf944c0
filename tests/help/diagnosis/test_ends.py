"""The further ends are recognised, whatever a log's lines begin with, and no other text is taken for one of them."""

import json
import re
import textwrap
import time
from re import _constants, _parser  # the parsed form of a pattern: the standard library shows it nowhere else

import logs_adapters
import logs_compilers
import logs_data
import logs_files
import logs_gpu
import logs_jobs
import logs_libraries
import logs_ranks
import logs_steps
import pytest
from harmless import HARMLESS
from sequences import SEQUENCES

from labkit.help.diagnosis.diagnose import diagnose_log
from labkit.help.diagnosis.next_steps import NextSteps, filled
from labkit.help.diagnosis.symptoms import (
    SYMPTOMS,
    adapters,
    clusters,
    compilers,
    cuda,
    data,
    files,
    packages,
    ranks,
)
from labkit.help.diagnosis.symptoms.symptom import Symptom

FURTHER = (clusters, cuda, compilers, adapters, packages, files, data, ranks)
ENDS = tuple(symptom for module in FURTHER for symptom in module.SYMPTOMS)

TOLD = (
    *logs_jobs.LOGS,
    *logs_gpu.LOGS,
    *logs_compilers.LOGS,
    *logs_adapters.LOGS,
    *logs_libraries.LOGS,
    *logs_files.LOGS,
    *logs_data.LOGS,
    *logs_steps.LOGS,
    *logs_ranks.LOGS,
)
NAMES = [f"{told.kind}-{number}" for number, told in enumerate(TOLD)]


def first_end(log: str) -> tuple[Symptom, re.Match[str]] | None:
    """The first symptom in its order that the log shows, echoes last; warnings are none."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.replace("\r\n", "\n"))
    looked_for = [end for end in ENDS if end.tier != "warning"]
    for end in sorted(looked_for, key=lambda end: end.tier == "follow_up"):
        if (match := end.pattern.search(text)) is not None:
            return end, match
    return None


def answer(end: Symptom, match: re.Match[str]) -> str:
    """What is told of an end: what happened, and the steps."""
    found = {name: value for name, value in match.groupdict().items() if value}
    return "\n".join([filled(end.happened, found), *NextSteps(None).fill(end.next_steps, found)])


def json_lines(log: str) -> str:
    return "\n".join(json.dumps({"level": "error", "msg": line}, ensure_ascii=False) for line in log.split("\n"))


# What stands around a line, in the logs of launchers, containers and terminals.
WRITTEN = {
    "as it is": lambda log: log,
    "by a rank": lambda log: "".join(f"[rank3]: {line}" for line in log.splitlines(keepends=True)),
    "with kubectl's time": lambda log: "".join(f"2025-03-11T10:41:07.113Z {x}" for x in log.splitlines(keepends=True)),
    "in the journal": lambda log: "".join(f"Mar 11 10:41:07 n7 run[81]: {x}" for x in log.splitlines(keepends=True)),
    "by a logger": lambda log: "".join(
        f"2025-03-11 10:41:07 | ERROR | t:9 - {x}" for x in log.splitlines(keepends=True)
    ),
    "in colours": lambda log: "".join(f"\x1b[1;31m{line}\x1b[0m\n" for line in log.splitlines()),
    "on Windows": lambda log: log.replace("\n", "\r\n"),
    "in 80 columns": lambda log: "\n".join(
        "\n".join(textwrap.wrap(line, 80, break_long_words=False, break_on_hyphens=False)) for line in log.splitlines()
    ),
    "as JSON": json_lines,
}


@pytest.mark.parametrize("told", TOLD, ids=NAMES)
def test_an_end_is_recognised_however_its_lines_are_written(told):
    found = {name: first_end(write(told.log)) for name, write in WRITTEN.items()}
    assert {name: end and end[0].kind for name, end in found.items()} == dict.fromkeys(WRITTEN, told.kind)


@pytest.mark.parametrize("told", TOLD, ids=NAMES)
def test_the_answer_names_the_lever(told):
    text = answer(*first_end(told.log)).lower()
    assert [word for word in told.must if word.lower() not in text] == []
    assert [word for word in told.must_not if word in answer(*first_end(told.log))] == []


@pytest.mark.parametrize("name", HARMLESS)
def test_a_run_that_is_well_has_no_end(name):
    found = first_end(HARMLESS[name])
    assert found is None, f"taken for {found[0].kind}: {found[1].group()!r}"


def test_every_kind_has_a_log_and_none_is_told_twice():
    kinds = [end.kind for end in ENDS]
    assert len(kinds) == len(set(kinds))
    assert {end.kind for end in ENDS if end.tier != "warning"} == {told.kind for told in TOLD}
    others = [symptom.kind for symptom in SYMPTOMS if symptom not in ENDS]
    assert set(kinds).isdisjoint(others)


@pytest.mark.parametrize(
    ("kind", "line"),
    {
        "numpy_built_for_1": "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.2 as it "
        "may crash.",
        "inputs_without_gradient": "UserWarning: None of the inputs have requires_grad=True. Gradients will be None",
        "hub_retry": "'(ReadTimeoutError)' thrown while requesting GET https://h/x\nRetrying in 2s [Retry 2/5].",
    }.items(),
)
def test_a_warning_is_evidence_only(kind, line):
    assert next(end for end in ENDS if end.kind == kind).pattern.search(line)
    assert first_end(line) is None


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.kind)
def test_steps_are_commands_with_a_reason_and_leave_no_brace(end):
    steps = NextSteps(None).fill(end.next_steps, {})
    assert all("  # " in step or "&&" in step for step in steps), steps
    assert "{{" not in "".join(steps) + filled(end.happened, {})
    assert end.happened.endswith(".") and len(re.split(r"[.:] ", end.happened)) <= 4


# -- a log may have a gigabyte, and a line a megabyte


def unbounded(parsed, inside: bool = False):
    """Repetitions without a bound in a parsed pattern, with whether they lie in another one."""
    for operation, argument in parsed:
        if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            _least, most, body = argument
            if most == _constants.MAXREPEAT:
                yield body, inside
            yield from unbounded(body, inside or most == _constants.MAXREPEAT)
        elif operation is _constants.SUBPATTERN:
            yield from unbounded(argument[-1], inside)
        elif operation is _constants.BRANCH:
            for branch in argument[1]:
                yield from unbounded(branch, inside)
        elif operation in (_constants.ASSERT, _constants.ASSERT_NOT):
            yield from unbounded(argument[1], inside)


def first_items(parsed):
    """What each way through a parsed pattern begins with."""
    for operation, argument in parsed[:1]:
        if operation is _constants.SUBPATTERN:
            yield from first_items(argument[-1])
        elif operation is _constants.BRANCH:
            for branch in argument[1]:
                yield from first_items(branch)
        else:
            yield operation, argument


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.kind)
def test_no_repetition_is_nested_or_of_anything_or_comes_first(end):
    parsed = _parser.parse(end.pattern.pattern, end.pattern.flags)
    for body, inside in unbounded(parsed):
        assert not inside, "a repetition within one that has no bound"
        assert len(body) == 1 and body[0][0] is not _constants.ANY, "a repetition of anything, without a bound"
    for operation, argument in first_items(parsed):  # it would begin again at every place of a long word
        assert operation is not _constants.MAX_REPEAT or argument[1] <= 80, "a long repetition at the beginning"


@pytest.mark.slow
def test_long_lines_cost_in_proportion_to_their_length():
    """A line eight times as long costs about eight times as much; with backtracking it would be 64 or more."""
    almost = {told.kind: first_end(told.log)[1].group() for told in TOLD}
    for end in ENDS:
        for text in (almost.get(end.kind, "x")[:-1] + "\x00", "a", " ", "1"):
            cost = []
            for size in (1 << 11, 1 << 14):
                line = text * (size // len(text))
                spent = []
                for _ in range(3):
                    start = time.process_time()
                    end.pattern.search(line)
                    spent.append(time.process_time() - start)
                cost.append(min(spent))
            assert cost[1] < 20 * cost[0] + 0.005, (end.kind, text[:40], cost)


# -- the whole of it


@pytest.mark.parametrize("told", TOLD, ids=NAMES)
def test_the_diagnosis_of_a_log_tells_it(told):
    found = diagnose_log(told.log)
    assert found.kind == told.kind
    text = "\n".join([found.happened, *found.next_steps]).lower()
    assert [word for word in told.must if word.lower() not in text] == []


@pytest.mark.parametrize("case", SEQUENCES, ids=lambda case: case["name"])
def test_the_end_decides(case):
    found = diagnose_log(case["log"])
    text = "\n".join([found.happened, *found.next_steps]).lower()
    assert found.kind == (case["kind"] or "no_failure"), text
    assert [word for word in case["must"] if word.lower() not in text] == []
    assert [word for word in case["must_not"] if word.lower() in text] == []


@pytest.mark.parametrize("name", HARMLESS)
def test_a_run_that_is_well_is_not_said_to_have_died(name):
    assert diagnose_log(HARMLESS[name]).kind in ("no_failure", "unknown")
