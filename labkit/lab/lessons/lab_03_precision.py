"""Lesson of 03_precision: what 16 bits save, and what they lose."""

from labkit.config.precision import DTYPES
from labkit.lab.counts import Rounding
from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Usual
from labkit.lab.lessons.quantities import STATES, held, peak, ratio, size, times

FULL, TRUE, MIXED = "grad_accumulation_lr4x", "bf16_true", "bf16_mixed"
COURSE_LR, LARGE_LR = 2e-5, 2e-3
"""The learning rate of the course at full size, and one that is a hundred times larger."""

_half = ratio(peak(TRUE), peak(FULL))
_weights = ratio(held(MIXED, "parameters"), held(FULL, "parameters"))


def _lost(precision: str, lr: float) -> object:
    return lambda runs: runs["?rounding"].lost_share(precision, lr)


def _end(precision: str, lr: float) -> object:
    return lambda runs: runs["?rounding"].last_loss(precision, lr)


def _why_lost(runs: Runs) -> str:
    found = runs["?rounding"]
    return (
        f"{found.lost_share('bf16-true', COURSE_LR):.1%} in bf16-true, {found.lost_share('bf16-mixed', COURSE_LR):.1%} "
        "in bf16-mixed. bf16 has 8 significant bits: a weight changes only if the update is larger than about one part "
        "in 500 of it. Mixed precision adds the update to a copy in 32 bits."
    )


def _lost_last(found: Rounding) -> float | None:
    tried = [one for one in found.counted if DTYPES[one["precision"]].weights_in_16_bits]
    return found.lost_share("bf16-true", tried[-1]["lr"]) if tried else None


def _bytes_of(runs: Runs, name: str) -> Case:
    precision = runs[name].config["precision"]
    numbers = held(name, "parameters")(runs) / DTYPES[precision].weight_bytes
    return Case(inputs={"precision": precision}, truth=held(name, *STATES)(runs) / numbers)


LESSON = Lesson(
    questions=(
        Question(
            id="bf16_peak", unit="times", about=(FULL, TRUE), within=0.1, truth=_half,
            usual=(
                Usual(
                    low=1.53,
                    says="Gradients, state and nearly all activations are in 16 bits too, not only the weights.",
                ),
                Usual(
                    low=0, high=0.8, says="16 bits are half of 32, for everything: nothing becomes smaller than half.",
                ),
                Usual(low=1.15, high=1.53, says="Activations and temporaries are in 16 bits as well."),
            ),
            text="bf16-true keeps every number in 16 bits. How many times the peak of 32-true is its peak?",
            because=lambda runs: (
                f"{times(_half(runs))}: {size(peak(TRUE)(runs))} against {size(peak(FULL)(runs))}. Parameters, "
                "gradients, optimizer state and nearly all activations are half as large."
            ),
        ),
        Question(
            id="mixed_weights", unit="choice", choices=("16 bits", "32 bits"), about=(FULL, MIXED),
            usual=(
                Usual(
                    choice="16 bits",
                    says=(
                        "Only the copies that operations work on are in 16 bits; the weights that the optimizer "
                        "changes are not."
                    ),
                ),
            ),
            text="In bf16-mixed, in how many bits do the weights lie in memory?",
            truth=lambda runs: None if _weights(runs) is None else "32 bits" if _weights(runs) > 0.75 else "16 bits",
            because=lambda runs: (
                f"{size(held(MIXED, 'parameters')(runs))} of parameters, as in 32-true. Arithmetic is in 16 bits, on "
                f"copies. Activations: {size(held(MIXED, 'activations')(runs))} against "
                f"{size(held(FULL, 'activations')(runs))}. Those in 16 bits are half as large, and the copy of "
                "each layer's weights is kept for backward besides. So mixed precision saves time, and hardly memory."
            ),
        ),
        Question(
            id="lost_updates", unit="percent", about=("?rounding",), within=0.25, because=_why_lost,
            usual=(
                Usual(
                    low=0, high=0.3,
                    says="8 significant bits are few: an update of one part in 500 of a weight is already too small.",
                ),
                Usual(
                    low=0.3, high=0.74,
                    says="More are lost: at this rate nearly every update is much smaller than its weight.",
                ),
                Usual(low=1.26, says="Some weights are near 0, where numbers lie closer: their updates are kept."),
            ),
            told_by="rounding",
            text="bf16-true, learning rate 2e-5: how many percent of the updates are lost to rounding?",
            truth=lambda runs: 100 * runs["?rounding"].lost_share("bf16-true", COURSE_LR),
        ),
    ),
    checks=(
        Check(
            id="true_halves_the_states", about=(FULL, TRUE), relation="equal", factor=0.5,
            claim="bf16-true halves parameters, gradients and optimizer state",
            left=held(TRUE, *STATES), right=held(FULL, *STATES), names=("bf16_true holds", "grad_accumulation_lr4x,"),
            why="Two bytes a number in place of four.", hint="Both runs must train the same model.",
        ),
        Check(
            id="mixed_keeps_the_states", about=(FULL, MIXED), relation="equal",
            claim="bf16-mixed keeps parameters, gradients and optimizer state in full",
            left=held(MIXED, *STATES), right=held(FULL, *STATES), names=("bf16_mixed holds", "grad_accumulation_lr4x,"),
            why="Only the arithmetic is in 16 bits.", hint="Both runs must train the same model.",
        ),
        Check(
            id="true_loses_updates", about=("?rounding",), relation="above", factor=2, quantity="share",
            claim="bf16-true loses updates that bf16-mixed keeps",
            left=_lost("bf16-true", COURSE_LR), right=_lost("bf16-mixed", COURSE_LR),
            names=("share lost in bf16-true", "bf16-mixed,"), why="Mixed precision adds them up in 32 bits.",
            hint="Was the same learning rate counted for both?",
        ),
        Check(
            id="lost_updates_show_in_the_loss", about=("?rounding",), relation="above", quantity="loss",
            claim="What is lost shows in the loss",
            left=_end("bf16-true", COURSE_LR), right=_end("bf16-mixed", COURSE_LR),
            names=("last loss in bf16-true", "bf16-mixed,"), why="The same steps, but most weights did not move.",
            hint="Was the same learning rate counted for both?",
        ),
        Check(
            id="small_steps_lose_more", about=("?rounding",), relation="above", factor=2, quantity="share",
            claim="Small steps lose more than large ones",
            left=_lost("bf16-true", COURSE_LR), right=_lost("bf16-true", LARGE_LR),
            names=("share lost at 2e-5", "at 2e-3,"), why="A large update is larger than what the format rounds to.",
            hint="Count bf16-true at both learning rates.",
        ),
        Check(
            id="yours_loses_about_half", about=("?yours",), relation="equal", within=0.3, quantity="share",
            claim="At your learning rate bf16-true loses about half of its updates",
            left=lambda runs: _lost_last(runs["?yours"]), right=lambda runs: 0.5,
            names=("share lost", "half, that is"), why="The larger the step, the more updates are worth a digit.",
            hint="Lost too many? Then the steps are too small: raise the rate. Too few? Lower it.",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_a_parameter", unit="count", about=(FULL, TRUE, MIXED),
            text="Bytes for each parameter: itself, its gradient and AdamW's state, by precision",
            cases=lambda runs: [_bytes_of(runs, name) for name in (FULL, TRUE, MIXED)],
            because="Four numbers: 4 bytes each in 32-true and in bf16-mixed, 2 bytes each in bf16-true.",
            usual=(
                Usual(low=0.45, high=0.55, says="In bf16-mixed weights, gradients and state stay in 32 bits."),
                Usual(low=0.7, high=0.8, says="AdamW's state is two numbers for each parameter."),
                Usual(low=0.2, high=0.3, says="That is the parameter alone: gradient and state come on top."),
                Usual(low=1.9, high=2.1, says="bf16-true has no copy in 32 bits: all four numbers take two bytes."),
                Usual(
                    low=1.1, high=1.3,
                    says="No 16-bit copy of the weights stays: it comes and goes with each operation.",
                ),
                Usual(low=6, high=9, says="These are bits; eight of them are a byte."),
            ),
        ),
    ),
)  # fmt: skip
