"""Lesson of 05_optimizer_state: the optimizer as the largest part, and two ways to have less of it."""

from labkit.config.precision import DTYPES
from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import capacity, chosen, fits, held, peak, predicted, size
from labkit.memory.units import counted

FULL, XXL, SGD, ADAM8 = "grad_accumulation_lr4x", "xxl", "xxl_sgd", "xxl_adam8bit"
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


def _bytes_of(runs: Runs, name: str) -> Case:
    config = runs[name].config
    numbers = predicted(name, "parameters")(runs) / DTYPES[config["precision"]].weight_bytes
    inputs = {"precision": config["precision"], "optimizer": config["optim"]}
    return Case(inputs=inputs, truth=predicted(name, "parameters", "gradients", "optimizer_gpu")(runs) / numbers)


LESSON = Lesson(
    questions=(
        Question(
            id="sgd_fits", unit="choice", choices=("fits", "out of memory"), about=(XXL, SGD), truth=fits(SGD),
            usual=(
                Usual(
                    choice="out of memory",
                    says="Its state is gone, and that was the largest part; add up what is left.",
                ),
            ),
            text="SGD keeps no state. Does the xxl model fit with it, at the batch that did not fit with AdamW?",
            because=lambda runs: (
                f"{size(runs[SGD].peak_bytes)} of {size(runs[SGD].capacity_bytes)}, with "
                f"{size(held(SGD, 'optimizer_gpu')(runs))} of optimizer state in place of "
                f"{size(predicted(XXL, 'optimizer_gpu')(runs))} (predicted for xxl)."
            ),
        ),
        Question(
            id="bytes_of_state", unit="count", about=(ADAM8,), within=0.15, truth=_bytes_each,
            usual=(
                Usual(low=0, high=0.6, says="Two numbers are kept for each parameter, a byte each."),
                Usual(
                    low=1.2, high=2.2,
                    says="That is AdamW's state in bf16: two numbers of two bytes. Here each has one byte.",
                ),
                Usual(
                    low=2.2,
                    says="That is AdamW's state in 32 bits, or bits for bytes. Here each of two numbers has one byte.",
                ),
            ),
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
        Check(
            id="yours_fills_the_device", about=("?yours",), relation="above", factor=0.9, fitting="?yours",
            claim="With 8-bit Adam your batch fills at least nine tenths of the device, and fits",
            left=chosen(peak("?yours"), "?yours", ADAM8, "batch_size"),
            right=capacity("?yours"), names=("yours peaks at", "the capacity,"),
            why="What the state gave back goes to activations.",
            hint="How many bytes does one more sample take? Two predictions tell.",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_a_parameter", unit="count", within=0.05, about=(FULL, XXL, SGD, ADAM8),
            text="Bytes for each parameter: itself, its gradient and the optimizer's state, by precision and optimizer",
            cases=lambda runs: [_bytes_of(runs, name) for name in (FULL, XXL, SGD, ADAM8)],
            because="The number and its gradient in its format; AdamW two more, SGD none, 8-bit Adam two bytes.",
            usual=(
                Usual(
                    low=1.9, high=2.1,
                    says="In bf16-true every number takes two bytes; without state SGD has only two.",
                ),
                Usual(low=1.3, high=1.4, says="8-bit Adam keeps its two numbers in one byte each, not in two."),
                Usual(low=0.8, high=0.86, says="8-bit Adam keeps two numbers for each parameter, not one."),
                Usual(low=0.6, high=0.7, says="8-bit Adam keeps state as well: a byte for each of two numbers."),
                Usual(
                    low=0.45, high=0.55, says="32-true takes four bytes a number; and does AdamW's state count twice?",
                ),
                Usual(low=0.7, high=0.79, says="AdamW keeps two numbers for each parameter, not one."),
                Usual(low=1.45, high=1.55, says="SGD without momentum remembers nothing between steps."),
            ),
        ),
    ),
    topics=(Topic(id="losses", about=(SGD, ADAM8), say=_losses),),
)  # fmt: skip
