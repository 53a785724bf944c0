"""Lesson of 02_batch_and_accumulation: what shrinks with the batch, and what accumulation costs."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Usual
from labkit.lab.lessons.quantities import chosen, held, last_loss, peak, predicted, ratio, size, times

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


def _activations_of(runs: Runs, name: str) -> Case:
    config = runs[name].config
    sample = held(SMALL, "activations")(runs) // runs[SMALL].config["batch_size"]
    inputs = {
        "batch_size": config["batch_size"], "accumulate_grad_batches": config["accumulate_grad_batches"],
        "sample_bytes": sample,
    }  # fmt: skip
    return Case(inputs=inputs, truth=predicted(name, "activations")(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="activations_fall", unit="times", about=("baseline", SMALL), within=0.15, truth=_fall,
            usual=(
                Usual(low=0, high=0.8, says="Every sample of a batch leaves as much: compare the two batch sizes."),
                Usual(
                    low=1.2,
                    says=(
                        "Only activations are asked for, and they follow the batch alone: compare the two batch "
                        "sizes."
                    ),
                ),
            ),
            text="How many times the activations of reduced_batch does the baseline need?",
            because=lambda runs: (
                f"{size(predicted('baseline', 'activations')(runs))} (predicted for the baseline, which does not get "
                f"to keep them) against {size(held(SMALL, 'activations')(runs))}: they grow with the batch, sample by "
                f"sample. Batches of {runs['baseline'].config['batch_size']} and {runs[SMALL].config['batch_size']}."
            ),
        ),
        Question(
            id="accumulation_memory", unit="times", about=(SMALL, FEW), within=0.1, truth=_cost,
            usual=(
                Usual(
                    low=1.15,
                    says=(
                        "The four micro batches come one after the other: each one's activations are freed before the "
                        "next."
                    ),
                ),
                Usual(
                    low=0, high=0.85,
                    says="A micro batch is as large as the batch of reduced_batch, so nothing becomes smaller.",
                ),
            ),
            text="Four micro batches before each optimizer step: how many times the peak of reduced_batch is that?",
            because=lambda runs: (
                f"{times(_cost(runs))}: {size(peak(FEW)(runs))} against {size(peak(SMALL)(runs))}. Each micro batch's "
                "activations are gone before the next one comes; only the sum of the gradients stays."
            ),
        ),
        Question(
            id="lowest_loss", measured=True, unit="choice", choices=(SMALL, FEW, LARGE), about=(SMALL, FEW, LARGE),
            usual=(
                Usual(
                    choice="grad_accumulation",
                    says="It makes a fourth of the optimizer steps with the same learning rate, so it comes less far.",
                ),
                Usual(
                    choice="grad_accumulation_lr4x",
                    says="Larger steps make up for some of the missing ones, not for all.",
                ),
                Usual(
                    choice="reduced_batch",
                    says="More steps are not always further: here the larger learning rate made up for them.",
                ),
            ),
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
            id="yours_fits_and_uses_more", about=(SMALL, "?yours"), relation="above", factor=1.02, fitting="?yours",
            claim="Your batch fits, and uses more of the device than reduced_batch",
            left=chosen(peak("?yours"), "?yours", SMALL, "batch_size"),
            right=peak(SMALL), names=("yours peaks at", "reduced_batch,"),
            why="A larger batch keeps the device busier, as long as it fits.",
            hint="Its batch_size has to be above that of reduced_batch, and not by too much.",
        ),
    ),
    derivations=(
        Derivation(
            id="activations_of_a_batch", about=("baseline", SMALL, FEW),
            text="Bytes of activations for a batch, accumulated so often, when one sample leaves so many bytes",
            cases=lambda runs: [_activations_of(runs, name) for name in ("baseline", SMALL, FEW)],
            because="Samples times bytes. The micro batches of one step are never in memory together.", within=0.03,
            usual=(
                Usual(
                    low=3.5, high=4.5, says="Only one micro batch is in memory at a time: accumulation adds nothing.",
                ),
                Usual(
                    low=0.2, high=0.3,
                    says="Accumulation does not divide the batch: batch_size is that of a micro batch.",
                ),
                Usual(low=0, high=0.19, says="Each sample of the batch leaves its own activations."),
                Usual(low=0.31, high=0.95, says="Is every sample of the batch counted?"),
                Usual(low=1.05, high=3.4, says="Samples times the bytes of one, and nothing else."),
            ),
        ),
    ),
)  # fmt: skip
