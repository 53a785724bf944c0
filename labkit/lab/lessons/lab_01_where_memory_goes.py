"""Lesson of 01_where_memory_goes: four kinds of memory, and when each of them is there."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import activity_at_peak, fits, held, ratio, size, sorted_parts, times

SMALL = "baseline batch_size=8 max_steps=2"

_state_ratio = ratio(held(SMALL, "optimizer_gpu"), held(SMALL, "parameters"))


def _end(phase: str, category: str) -> object:
    def number(runs: Runs) -> float | None:
        found = runs[SMALL].phase(phase)
        return None if found is None else found.end[category]

    return number


def _held_at_death(runs: Runs) -> list[str]:
    result = runs["baseline"]
    found = result.record.out_of_memory
    if found is not None:
        asked = found.requested_bytes
        lines = ["" if asked is None else f"The last allocation asked for {size(asked)}."]
        lines.append(f"At that moment {size(found.allocated_bytes)} of {size(result.capacity_bytes)} were in use:")
        return [line for line in (*lines, sorted_parts(found.held)) if line]
    phase = result.report.peak_phase
    return [
        f"With memory enough the run would hold {size(result.peak_bytes)}; the device has "
        f"{size(result.capacity_bytes)}. At that moment:",
        sorted_parts(phase.peak),
    ]


def _why_fits(runs: Runs) -> str:
    result = runs["baseline"]
    died = result.record.died_in
    if not died:
        return f"It fits here: {size(result.peak_bytes)} of {size(result.capacity_bytes)}."
    needed = result.prediction.peak_bytes if result.prediction else None
    return (
        f"It ends in the {died.phase.replace('_', ' ')} of step {died.step}. It would need {size(needed)} "
        f"(predicted), and the device has {size(result.capacity_bytes)}."
    )


LESSON = Lesson(
    questions=(
        Question(
            id="does_it_fit", unit="choice", choices=("fits", "out of memory"), about=("baseline",),
            text="Does the baseline fit into this device?", truth=fits("baseline"), because=_why_fits,
        ),
        Question(
            id="adam_state", unit="times", about=(SMALL,), within=0.1, truth=_state_ratio,
            text="AdamW keeps state for every parameter. How many times the memory of the parameters does it take?",
            because=lambda runs: (
                f"{size(held(SMALL, 'optimizer_gpu')(runs))} of state for {size(held(SMALL, 'parameters')(runs))} of "
                f"parameters, {times(_state_ratio(runs))}: a mean and a mean square of the gradient for each."
            ),
        ),
        Question(
            id="highest_moment", unit="choice", choices=("forward", "backward", "optimizer step"), about=(SMALL,),
            text="With the small batch: in which part of a step is memory highest?",
            truth=lambda runs: activity_at_peak(runs[SMALL]),
            because=lambda runs: (
                f"In the {activity_at_peak(runs[SMALL])} it held " + sorted_parts(runs[SMALL].report.peak_phase.peak)
                + ". With few activations, the temporaries of the optimizer decide."
            ),
        ),
    ),
    checks=(
        Check(
            id="gradients_like_parameters", about=(SMALL,), relation="equal",
            claim="Gradients take as much memory as the parameters",
            left=held(SMALL, "gradients"), right=held(SMALL, "parameters"),
            names=("gradients take", "parameters"), why="Every trained number has one gradient, in the same format.",
            hint="Was a part of the model frozen, or were adapters trained?",
        ),
        Check(
            id="adam_twice", about=(SMALL,), relation="equal", factor=2, claim="AdamW's state is twice the parameters",
            left=held(SMALL, "optimizer_gpu"), right=held(SMALL, "parameters"),
            names=("optimizer state takes", "the parameters"), why="Two numbers are kept for each trained number.",
            hint="Another optimizer keeps other state; lab 05 compares them.",
        ),
        Check(
            id="activations_are_freed", about=(SMALL,), relation="below", factor=0.2,
            claim="Backward frees the activations",
            left=_end("after_backward", "activations"), right=_end("after_forward", "activations"),
            names=("after backward activations take", "what they took after forward,"),
            why="Backward needs each activation once and then lets it go.",
            hint="Something holds a reference to the loss or an output.",
        ),
    ),
    topics=(
        Topic(id="what_held_the_memory", about=("baseline",), say=_held_at_death),
    ),
)  # fmt: skip
