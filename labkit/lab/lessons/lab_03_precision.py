"""Lesson of 03_precision: what 16 bits save, and what they lose."""

from labkit.lab.lesson import Check, Lesson, Question, Runs
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


LESSON = Lesson(
    questions=(
        Question(
            id="bf16_peak", unit="times", about=(FULL, TRUE), within=0.1, truth=_half,
            text="bf16-true keeps every number in 16 bits. How many times the peak of 32-true is its peak?",
            because=lambda runs: (
                f"{times(_half(runs))}: {size(peak(TRUE)(runs))} against {size(peak(FULL)(runs))}. Parameters, "
                "gradients, optimizer state and nearly all activations are half as large."
            ),
        ),
        Question(
            id="mixed_weights", unit="choice", choices=("16 bits", "32 bits"), about=(FULL, MIXED),
            text="In bf16-mixed, in how many bits do the weights lie in memory?",
            truth=lambda runs: None if _weights(runs) is None else "32 bits" if _weights(runs) > 0.75 else "16 bits",
            because=lambda runs: (
                f"{size(held(MIXED, 'parameters')(runs))} of parameters, as in 32-true. Arithmetic is done in 16 bits "
                "on copies that come and go. So mixed precision saves time, and hardly memory."
            ),
        ),
        Question(
            id="lost_updates", unit="percent", about=("?rounding",), within=0.25, because=_why_lost,
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
    ),
)  # fmt: skip
