"""Lesson of 04_larger_models: what the saved half makes room for, and where it ends."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Usual
from labkit.lab.lessons.quantities import STATES, capacity, chosen, died_in, fits, held, predicted, size

BEFORE, LARGER, XXL, ONE = "bf16_true", "larger_model", "xxl", "xxl_smallest_batch"

_states = predicted(ONE, *STATES)


def _why_one(runs: Runs) -> str:
    return (
        f"Parameters, gradients and optimizer state alone take {size(_states(runs))} (predicted), and the device has "
        f"{size(runs[ONE].capacity_bytes)}. Activations of one sample are {size(predicted(ONE, 'activations')(runs))}; "
        f"in the optimizer step {size(predicted(ONE, 'temporaries')(runs))} of temporaries come on top."
    )


def _extra_of(runs: Runs, name: str) -> Case:
    inputs = {"numbers": predicted(name, "parameters")(runs) // 2, "bytes_each": 2}
    return Case(inputs=inputs, truth=predicted(name, "temporaries")(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="larger_fits", unit="choice", choices=("fits", "out of memory"), about=(LARGER,), truth=fits(LARGER),
            usual=(
                Usual(
                    choice="out of memory",
                    says="Twice the parameters, at half of the bytes for each: that is what there was before.",
                ),
            ),
            text="A model with about twice the parameters, in bf16-true: does it fit?",
            because=lambda runs: (
                f"{size(runs[LARGER].peak_bytes)} of {size(runs[LARGER].capacity_bytes)}. What 16 bits saved is spent "
                "on parameters."
            ),
        ),
        Question(
            id="one_sample_fits", unit="choice", choices=("fits", "out of memory"), about=(ONE,), truth=fits(ONE),
            usual=(
                Usual(
                    choice="fits",
                    says="A smaller batch makes activations smaller and nothing else; what is left without them?",
                ),
            ),
            text="The xxl model with a batch of one sample: does it fit?", because=_why_one,
        ),
        Question(
            id="where_it_dies", unit="choice", choices=("forward", "backward", "optimizer step"), about=(ONE,),
            usual=(
                Usual(choice="forward", says="With one sample there are hardly any activations, and no gradients yet."),
                Usual(
                    choice="backward",
                    says="Gradients are as large as the parameters and fit; what comes after them does not.",
                ),
            ),
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
        Check(
            id="yours_has_few_temporaries", about=(ONE, "?yours"), relation="below", factor=0.3,
            claim="With your implementation the step of xxl_smallest_batch needs few temporaries",
            left=chosen(predicted("?yours", "temporaries"), "?yours", ONE, "optim_impl"),
            right=predicted(ONE, "temporaries"), names=("yours needs", "those of foreach,"),
            why="It steps one parameter after the other, or all in one kernel, and copies none of them.",
            hint="Which of the three steps all parameters at once?",
        ),
    ),
    derivations=(
        Derivation(
            id="foreach_extra", about=(BEFORE, LARGER, ONE),
            text="Extra bytes while AdamW steps all parameters at once (foreach), of so many numbers of so many bytes",
            cases=lambda runs: [_extra_of(runs, name) for name in (BEFORE, LARGER, ONE)],
            because="One temporary number for each parameter, in its format: a list of tensors as large as the model.",
            usual=(
                Usual(
                    low=0, high=0.4, says="It is not a small buffer: every parameter has a temporary number at once.",
                ),
                Usual(
                    low=0.45, high=0.55, says="The temporaries have the format of the parameters: count their bytes.",
                ),
                Usual(low=1.9, high=2.1, says="One temporary list lives at a time, not two."),
                Usual(
                    low=2.5, high=4.5,
                    says="The state is no temporary: it stays. Only what comes and goes is asked for.",
                ),
            ),
        ),
    ),
)  # fmt: skip
