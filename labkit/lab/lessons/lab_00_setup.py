"""Lesson of 00_setup: whether everything works, and how a lab goes."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Usual
from labkit.lab.lessons.quantities import chosen, held, peak, predicted_peak, size

FIRST = "reduced_batch max_steps=2"
FULL_BYTES = 4
"""Of a number in 32 bits."""


def _share(runs: Runs) -> float | None:
    found = runs[FIRST].report
    phase = found.peak_phase if found else None
    return 100 * phase.peak["parameters"] / phase.peak_bytes if phase else None


def _why_share(runs: Runs) -> str:
    phase = runs[FIRST].report.peak_phase
    return (
        f"At the highest moment {size(phase.peak['parameters'])} of {size(phase.peak_bytes)} are parameters. The rest "
        "is there because the model is trained: gradients, optimizer state, activations, temporaries."
    )


LESSON = Lesson(
    questions=(
        Question(
            id="share_of_parameters", unit="percent", about=(FIRST,), truth=_share, because=_why_share, within=0.3,
            usual=(
                Usual(
                    low=0, high=0.6,
                    says=(
                        "That is less than is there: parameters are one of four kinds of similar size, not one of "
                        "ten."
                    ),
                ),
                Usual(
                    low=1.4, high=3.2,
                    says=(
                        "That would leave room for gradients alone: AdamW's state and the activations are there as "
                        "well."
                    ),
                ),
                Usual(
                    low=3.2,
                    says="Nearly all would be parameters if the model were only used. Here it is trained.",
                ),
            ),
            text="At the moment of highest memory, how many percent of it are the model's parameters?",
        ),
    ),
    checks=(
        Check(
            id="prediction_holds", about=(FIRST,), relation="equal", within=0.05,
            claim="What was predicted is what was measured",
            left=lambda runs: None if runs[FIRST].planned else runs[FIRST].peak_bytes,
            right=predicted_peak(FIRST), names=("the measured peak is", "the predicted"),
            why="The prediction executes the same two steps on tensors without storage and adds up what they allocate.",
            hint="Another process may use the device, or the run was another one than was predicted.",
        ),
        Check(
            id="yours_takes_less", about=(FIRST, "?yours"), relation="below", factor=0.99, fitting="?yours",
            claim="Your run takes less memory than the first one",
            left=chosen(peak("?yours"), "?yours", "reduced_batch", "batch_size", "max_steps"), right=peak(FIRST),
            names=("yours peaks at", "the first run's peak,"), why="Fewer samples leave fewer activations.",
            hint="Which way does the batch have to go? Compare the two rows of the table.",
        ),
    ),
    derivations=(
        Derivation(
            id="numbers_of_the_model", unit="count", about=(FIRST,),
            text="How many numbers (parameters) does the model have? Work it out from the memory of its parameters.",
            cases=lambda runs: [Case(inputs={}, truth=held(FIRST, "parameters")(runs) / FULL_BYTES)],
            because=(
                "A number in 32 bits takes four bytes, and a MiB is 2**20 bytes. Memory is given out in blocks of 512 "
                "bytes, so this is a little more than the parameters that the run counts."
            ),
            usual=(
                Usual(low=3.5, high=4.5, says="These are bytes. A number in 32 bits takes four of them."),
                Usual(low=0.9, high=0.97, says="Close: a MiB is 2**20 bytes, not a million (and a GiB 2**30)."),
                Usual(low=0.1, high=0.14, says="32 bits are four bytes: eight bits make one."),
                Usual(low=1.9, high=2.1, says="Two bytes a number is the 16-bit format; this run is in 32 bits."),
                Usual(low=0.45, high=0.55, says="Eight bytes a number is a 64-bit format; this run is in 32 bits."),
                Usual(low=0, high=1e-5, says="Is it in bytes? MiB times 2**20, or GiB times 2**30."),
            ),
        ),
    ),
)  # fmt: skip
