"""Lesson of 05_optimizer_state: the optimizer as the largest part, and two ways to have less of it."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import fits, held, predicted, size
from labkit.memory.units import counted

XXL, SGD, ADAM8 = "xxl", "xxl_sgd", "xxl_adam8bit"
BF16_BYTES = 2


def _bytes_each(runs: Runs) -> float | None:
    state, parameters = held(ADAM8, "optimizer_gpu")(runs), held(ADAM8, "parameters")(runs)
    return None if state is None or not parameters else state / (parameters / BF16_BYTES)


def _losses(runs: Runs) -> list[str]:
    if runs[SGD].last_loss is None or runs[ADAM8].last_loss is None:
        return ["losses: not available when planned"]
    return [
        f"{name}: loss {runs[name].record.losses[0]:.3f} to {runs[name].last_loss:.3f} in "
        f"{counted(len(runs[name].record.losses), 'step')} and {counted(runs[name].record.samples, 'sample')}"
        for name in (SGD, ADAM8)
    ] + [
        "The two saw different batches and numbers of samples, so this is no contest; SGD wants its own learning rate."
    ]


LESSON = Lesson(
    questions=(
        Question(
            id="sgd_fits", unit="choice", choices=("fits", "out of memory"), about=(XXL, SGD), truth=fits(SGD),
            text="SGD keeps no state. Does the xxl model fit with it, at the batch that did not fit with AdamW?",
            because=lambda runs: (
                f"{size(runs[SGD].peak_bytes)} of {size(runs[SGD].capacity_bytes)}, with "
                f"{size(held(SGD, 'optimizer_gpu')(runs))} of optimizer state in place of "
                f"{size(predicted(XXL, 'optimizer_gpu')(runs))} (predicted for xxl)."
            ),
        ),
        Question(
            id="bytes_of_state", unit="count", about=(ADAM8,), within=0.15, truth=_bytes_each,
            text="How many bytes of state does 8-bit Adam keep for one parameter?",
            because=lambda runs: (
                f"{_bytes_each(runs):.2f}: one byte for the mean and one for the mean square, and a scale for each "
                "block of 256 numbers. AdamW in bf16 keeps four bytes, in fp32 eight."
            ),
        ),
    ),
    checks=(
        Check(
            id="sgd_has_no_state", about=(SGD, ADAM8), relation="below", factor=0.01,
            claim="SGD without momentum keeps no state", left=held(SGD, "optimizer_gpu"),
            right=held(ADAM8, "optimizer_gpu"), names=("xxl_sgd holds", "xxl_adam8bit's,"),
            why="A step is the gradient times the learning rate; nothing is remembered.",
            hint="Was momentum, or another optimizer, set?",
        ),
        Check(
            id="eight_bits_halve_the_state", about=(XXL, ADAM8), relation="equal", factor=0.5, within=0.05,
            claim="8-bit Adam keeps half of what AdamW keeps in bf16", left=held(ADAM8, "optimizer_gpu"),
            right=predicted(XXL, "optimizer_gpu"), names=("xxl_adam8bit holds", "what was predicted for xxl,"),
            why="One byte a number in place of two.", hint="Both must be in bf16-true, and train the same model.",
        ),
    ),
    topics=(Topic(id="losses", about=(SGD, ADAM8), say=_losses),),
)  # fmt: skip
