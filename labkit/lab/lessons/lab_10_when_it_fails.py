"""Lesson of 10_when_it_fails: three ends of a run, and how to read them."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import capacity, needed, size
from labkit.lab.result import Result


def _reading(runs: Runs) -> list[str]:
    record = runs["baseline"].record
    lines = [f"status: {record.status}"]
    if record.died_in:
        lines.append(f"where: {record.died_in.phase.replace('_', ' ')} of step {record.died_in.step}")
    if record.out_of_memory and record.out_of_memory.requested_bytes is not None:
        lines.append(f"asked for: {size(record.out_of_memory.requested_bytes)}")
    return [*lines, f"message: {record.reason or 'none when planned'}"]


def _ending(result: Result) -> list[str]:
    diagnosis = result.record.diagnosis
    said = diagnosis.happened if diagnosis else result.record.reason
    return [f"{result.name}: {result.status}. {said}", *(diagnosis.next_steps[:2] if diagnosis else [])]


LESSON = Lesson(
    questions=(
        Question(
            id="last_request", unit="choice", choices=("the largest", "whatever came last"), about=("baseline",),
            text="Is the allocation that fails the one that takes most memory?",
            truth=lambda runs: None if runs["baseline"].record.out_of_memory is None else "whatever came last",
            because=lambda runs: (
                f"It asked for {size(runs['baseline'].record.out_of_memory.requested_bytes or 0)} when "
                f"{size(runs['baseline'].record.out_of_memory.allocated_bytes)} were in use. The last drop is not "
                "what filled the glass; read what was held."
            ),
        ),
        Question(
            id="kernel_says", unit="choice", choices=("oom", "killed", "failed"), about=("?killed",),
            text="The kernel ends a process with signal 9 when host memory runs out. What will the record say?",
            truth=lambda runs: runs["?killed"].status,
            because=lambda runs: (
                f"{runs['?killed'].record.reason}. The process has no time to say anything: its watcher must."
            ),
        ),
    ),
    checks=(
        Check(
            id="the_sum_does_not_fit", about=("baseline",), relation="above",
            claim="What was in use and what was asked for are more than the device has",
            left=lambda runs: needed("baseline")(runs) if runs["baseline"].status == "oom" else None,
            right=capacity("baseline"), names=("together they are", "the capacity,"),
            why="That is all that out of memory means.", hint="Another process may hold a part of the device.",
        ),
        Check(
            id="yours_fits", about=("?yours",), relation="below", claim="Your change makes the baseline fit",
            left=needed("?yours"), right=capacity("?yours"), names=("it needs", "the capacity,"),
            why="One change was enough; lab 11 shows which changes there are.",
            hint="It ran out of memory again: read what held the memory, and change that.",
        ),
    ),
    topics=(
        Topic(id="reading_out_of_memory", about=("baseline",), say=_reading),
        Topic(
            id="ends", about=("?killed", "?late"),
            say=lambda runs: [line for name in ("?killed", "?late") for line in _ending(runs[name])],
        ),
    ),
)  # fmt: skip
