"""Lesson of 01_where_memory_goes: four kinds of memory, and when each of them is there."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import STATES, activity_at_peak, chosen, fits, held, ratio, size, sorted_parts, times

SMALL = "baseline batch_size=8 max_steps=2"
FROZEN = "baseline batch_size=8 freeze_vision=True max_steps=2"

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


def _states_of(runs: Runs, name: str) -> Case:
    inputs = {"numbers": held(name, "parameters")(runs) // 4, "trained": held(name, "gradients")(runs) // 4}
    return Case(inputs=inputs, truth=held(name, *STATES)(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="does_it_fit", unit="choice", choices=("fits", "out of memory"), about=("baseline",),
            usual=(
                Usual(
                    choice="fits",
                    says="The weights alone fit many times; training adds gradients, AdamW's state and activations.",
                ),
            ),
            text="Does the baseline fit into this device?", truth=fits("baseline"), because=_why_fits,
        ),
        Question(
            id="adam_state", unit="times", about=(SMALL,), within=0.1, truth=_state_ratio,
            usual=(
                Usual(
                    low=0, high=0.75,
                    says="One number for each parameter would be momentum alone; AdamW keeps a mean square as well.",
                ),
                Usual(
                    low=1.3, high=1.6,
                    says=(
                        "Parameters and gradients are not its state: count only what the optimizer remembers between "
                        "steps."
                    ),
                ),
                Usual(
                    low=1.6,
                    says="That counts parameters or gradients too. The state alone is two numbers for each parameter.",
                ),
            ),
            text="AdamW keeps state for every parameter. How many times the memory of the parameters does it take?",
            because=lambda runs: (
                f"{size(held(SMALL, 'optimizer_gpu')(runs))} of state for {size(held(SMALL, 'parameters')(runs))} of "
                f"parameters, {times(_state_ratio(runs))}: a mean and a mean square of the gradient for each."
            ),
        ),
        Question(
            id="highest_moment", unit="choice", choices=("forward", "backward", "optimizer step"), about=(SMALL,),
            usual=(
                Usual(choice="forward", says="Activations are highest there, but with this batch they are few."),
                Usual(
                    choice="backward",
                    says="Gradients grow while activations fall, so with few activations something else is higher.",
                ),
            ),
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
        Check(
            id="yours_is_led_by_activations", about=("?yours",), relation="above", fitting="?yours",
            claim="Your run fits, and its activations take more than its gradients",
            left=chosen(held("?yours", "activations"), "?yours", "baseline", "batch_size", "max_steps"),
            right=held("?yours", "gradients"), names=("activations take", "the gradients,"),
            why="Activations follow the batch; gradients follow the model.",
            hint="Every sample leaves its own activations. How many samples make up for the gradients, and still fit?",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_of_states", about=(SMALL, FROZEN),
            text="Bytes of parameters, gradients and AdamW's state, in 32 bits, when only some numbers are trained",
            cases=lambda runs: [_states_of(runs, name) for name in (SMALL, FROZEN)],
            because="Four bytes for each number, and for each trained one 4 of gradient and 8 of state: 4 n + 12 t.",
            usual=(
                Usual(low=0.2, high=0.36, says="The weights are there, and what training adds is not."),
                Usual(low=0.45, high=0.55, says="Half: AdamW's state is missing, two numbers for each trained one."),
                Usual(low=0.7, high=0.8, says="A quarter is missing: AdamW keeps two numbers for each, not one."),
                Usual(
                    low=1.05, high=1.4,
                    says="Frozen numbers have no gradient and no state: count the trained ones there, not all.",
                ),
                Usual(low=0.55, high=0.7, says="Frozen numbers are there too: they take their four bytes."),
                Usual(low=1.9, high=2.1, says="Numbers in 32 bits take four bytes, not eight."),
            ),
        ),
    ),
    topics=(
        Topic(id="what_held_the_memory", about=("baseline",), say=_held_at_death),
    ),
)  # fmt: skip
