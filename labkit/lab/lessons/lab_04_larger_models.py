"""Lesson of 04_larger_models: what the saved half makes room for, and where it ends."""

from labkit.lab.lesson import Check, Lesson, Question, Runs
from labkit.lab.lessons.quantities import STATES, capacity, died_in, fits, held, predicted, size

BEFORE, LARGER, XXL, ONE = "bf16_true", "larger_model", "xxl", "xxl_smallest_batch"

_states = predicted(ONE, *STATES)


def _why_one(runs: Runs) -> str:
    return (
        f"Parameters, gradients and optimizer state alone take {size(_states(runs))} (predicted), and the device has "
        f"{size(runs[ONE].capacity_bytes)}. Activations of one sample are {size(predicted(ONE, 'activations')(runs))}."
    )


LESSON = Lesson(
    questions=(
        Question(
            id="larger_fits", unit="choice", choices=("fits", "out of memory"), about=(LARGER,), truth=fits(LARGER),
            text="A model with about twice the parameters, in bf16-true: does it fit?",
            because=lambda runs: (
                f"{size(runs[LARGER].peak_bytes)} of {size(runs[LARGER].capacity_bytes)}. What 16 bits saved is spent "
                "on parameters."
            ),
        ),
        Question(
            id="one_sample_fits", unit="choice", choices=("fits", "out of memory"), about=(ONE,), truth=fits(ONE),
            text="The xxl model with a batch of one sample: does it fit?", because=_why_one,
        ),
        Question(
            id="where_it_dies", unit="choice", choices=("forward", "backward", "optimizer step"), about=(ONE,),
            text="If xxl_smallest_batch ends, in which part of a step?", truth=died_in(ONE),
            because=lambda runs: (
                "The optimizer makes its state at its first step, and needs temporaries besides: "
                f"{size(predicted(ONE, 'optimizer_gpu')(runs))} and up to {size(predicted(ONE, 'temporaries')(runs))} "
                "(predicted)."
            ),
        ),
    ),
    checks=(
        Check(
            id="larger_has_more_parameters", about=(BEFORE, LARGER), relation="above", factor=1.5,
            claim="The larger model has more parameters", left=held(LARGER, "parameters"),
            right=held(BEFORE, "parameters"), names=("larger_model has", "bf16_true,"),
            why="Twice as many, in the same format.", hint="Both must be in bf16-true.",
        ),
        Check(
            id="one_sample_has_few_activations", about=(XXL, ONE), relation="below", factor=0.3,
            claim="A batch of one has few activations", left=predicted(ONE, "activations"),
            right=predicted(XXL, "activations"), names=("xxl_smallest_batch needs", "xxl,"),
            why="They follow the batch; it cannot be smaller than this.", hint="Is its batch_size 1?",
        ),
        Check(
            id="states_fill_the_device", about=(ONE,), relation="above", factor=0.9,
            claim="Parameters, gradients and optimizer state fill the device by themselves",
            left=_states, right=capacity(ONE), names=("they take", "the capacity,"),
            why="So no batch is small enough. Only fewer or smaller states help.",
            hint="On a larger device this model fits, and the lesson needs a larger one.",
        ),
    ),
)  # fmt: skip
