"""Lesson of 10_when_it_fails: three ends of a run, and how to read them."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import capacity, chosen, needed, peak, size
from labkit.lab.result import Result

FAILED = "reduced_batch batch_size=80"
"""More than any machine of the course holds."""


def _reading(runs: Runs) -> list[str]:
    record = runs[FAILED].record
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


def _missing(runs: Runs) -> list[float]:
    """What was lacking when memory ran out; nothing where it only would have."""
    there = runs[FAILED].record.out_of_memory is not None
    return [needed(FAILED)(runs) - capacity(FAILED)(runs)] if there else []


LESSON = Lesson(
    questions=(
        Question(
            id="last_request", unit="choice", choices=("the largest", "whatever came last"), about=(FAILED,),
            usual=(
                Usual(choice="the largest", says="Only the last one is named. What filled the device came before it."),
            ),
            text="Is the allocation that fails the one that takes most memory?", measured=True,
            truth=lambda runs: None if runs[FAILED].record.out_of_memory is None else "whatever came last",
            because=lambda runs: (
                f"It asked for {size(runs[FAILED].record.out_of_memory.requested_bytes or 0)} when "
                f"{size(runs[FAILED].record.out_of_memory.allocated_bytes)} were in use. The last drop is not "
                "what filled the glass; read what was held."
            ),
        ),
        Question(
            id="kernel_says", unit="choice", choices=("oom", "killed", "failed"), about=("?killed",),
            usual=(
                Usual(
                    choice="oom",
                    says=(
                        "That is for memory of the device: an error that Python sees, with a message. Signal 9 leaves "
                        "none."
                    ),
                ),
                Usual(choice="failed", says="A program that fails says why. One that is killed has no time to."),
            ),
            told_by="kill",
            text="The kernel ends a process with signal 9 when host memory runs out. What will the record say?",
            truth=lambda runs: runs["?killed"].status,
            because=lambda runs: (
                f"{runs['?killed'].status}, by signal 9: it leaves no time to say anything, so its watcher does. This "
                "time we sent the signal; a diagnosis tells that from the kernel, which counts what it kills."
            ),
        ),
    ),
    checks=(
        Check(
            id="the_sum_does_not_fit", about=(FAILED,), relation="above",
            claim="What was in use and what was asked for are more than the device has",
            left=lambda runs: needed(FAILED)(runs) if runs[FAILED].status == "oom" else None,
            right=capacity(FAILED), names=("together they are", "the capacity,"),
            why="That is all that out of memory means.", hint="Another process may hold a part of the device.",
        ),
        Check(
            id="yours_fits", about=("?yours",), relation="below", fitting="?yours",
            claim="Your change makes the baseline fit",
            left=chosen(peak("?yours"), "?yours", "baseline"),
            right=capacity("?yours"), names=("it peaks at", "the capacity,"),
            why="One change was enough; lab 11 shows which changes there are.",
            hint="It ran out of memory again: read what held the memory, and change that.",
        ),
    ),
    derivations=(
        Derivation(
            id="missing_bytes", about=(FAILED,), within=0.05,
            text="How much memory was missing for the allocation that failed?",
            cases=lambda runs: [Case(inputs={}, truth=missing) for missing in _missing(runs)],
            because="What was in use and what was asked for, less the capacity.",
            usual=(
                Usual(
                    low=5, high=1e9,
                    says="Is that the capacity, or what was in use? Only what was lacking is asked for.",
                ),
                Usual(low=1.06, high=4.99, says="A part of what was asked for was still free."),
                Usual(
                    low=0, high=0.94, says="Take what was in use, add what was asked for, and take the capacity off.",
                ),
            ),
        ),
    ),
    topics=(
        Topic(id="reading_out_of_memory", about=(FAILED,), say=_reading),
        Topic(
            id="ends", about=("?killed", "?late"),
            say=lambda runs: [line for name in ("?killed", "?late") for line in _ending(runs[name])],
        ),
    ),
)  # fmt: skip
