"""Lesson of 02_batch_and_accumulation: what shrinks with the batch, and what accumulation costs."""

from labkit.lab.lesson import Check, Lesson, Question, Runs
from labkit.lab.lessons.quantities import fitting_peak, held, last_loss, peak, predicted, ratio, size, times

SMALL, FEW, LARGE = "reduced_batch", "grad_accumulation", "grad_accumulation_lr4x"

_fall = ratio(predicted("baseline", "activations"), held(SMALL, "activations"))
_cost = ratio(peak(FEW), peak(SMALL))


def _lowest(runs: Runs) -> str | None:
    losses = {name: runs[name].last_loss for name in (SMALL, FEW, LARGE)}
    return None if None in losses.values() else min(losses, key=lambda name: losses[name])


def _why_lowest(runs: Runs) -> str:
    said = ", ".join(
        f"{name} {runs[name].last_loss:.3f} after {len(runs[name].record.losses)} optimizer steps"
        for name in (SMALL, FEW, LARGE)
    )
    return f"{said}. Accumulation makes fewer steps with the same samples; a larger learning rate makes up for some."


LESSON = Lesson(
    questions=(
        Question(
            id="activations_fall", unit="times", about=("baseline", SMALL), within=0.15, truth=_fall,
            text="How many times the activations of reduced_batch does the baseline need?",
            because=lambda runs: (
                f"{size(predicted('baseline', 'activations')(runs))} (predicted for the baseline, which does not get "
                f"to keep them) against {size(held(SMALL, 'activations')(runs))}: they grow with the batch, sample by "
                f"sample. Batches of {runs['baseline'].config['batch_size']} and {runs[SMALL].config['batch_size']}."
            ),
        ),
        Question(
            id="accumulation_memory", unit="times", about=(SMALL, FEW), within=0.1, truth=_cost,
            text="Four micro batches before each optimizer step: how many times the peak of reduced_batch is that?",
            because=lambda runs: (
                f"{times(_cost(runs))}: {size(peak(FEW)(runs))} against {size(peak(SMALL)(runs))}. Each micro batch's "
                "activations are gone before the next one comes; only the sum of the gradients stays."
            ),
        ),
        Question(
            id="lowest_loss", unit="choice", choices=(SMALL, FEW, LARGE), about=(SMALL, FEW, LARGE),
            text="Which of the three ends with the lowest loss, after the same samples?", truth=_lowest,
            because=_why_lowest,
        ),
    ),
    checks=(
        Check(
            id="activations_follow_the_batch", about=("baseline", SMALL), relation="below", factor=0.6,
            claim="Activations shrink with the batch", left=held(SMALL, "activations"),
            right=predicted("baseline", "activations"),
            names=("activations of reduced_batch take", "those predicted for the baseline,"),
            why="Every sample of a batch leaves its own.", hint="Is its batch_size at most half of the baseline's?",
        ),
        Check(
            id="accumulation_is_free", about=(SMALL, FEW), relation="equal", within=0.05,
            claim="Accumulation costs no memory", left=peak(FEW), right=peak(SMALL),
            names=("grad_accumulation peaks at", "reduced_batch,"),
            why="Gradients are summed in place, and were there before.", hint="Both must have the same batch_size.",
        ),
        Check(
            id="larger_steps_learn_more", about=(FEW, LARGE), relation="below", quantity="loss",
            claim="With four times the learning rate the accumulated run ends lower",
            left=last_loss(LARGE), right=last_loss(FEW), names=("loss of grad_accumulation_lr4x", "grad_accumulation,"),
            why="A fourth of the steps; larger ones go further.", hint="Look at the loss figure: did it diverge?",
        ),
        Check(
            id="yours_fits_and_uses_more", about=(SMALL, "?yours"), relation="above", factor=1.02,
            claim="Your batch fits, and uses more of the device than reduced_batch",
            left=fitting_peak("?yours"), right=peak(SMALL), names=("yours peaks at", "reduced_batch,"),
            why="A larger batch keeps the device busier, as long as it fits.",
            hint="Either it ran out of memory, or its batch_size is not above that of reduced_batch.",
        ),
    ),
)  # fmt: skip
