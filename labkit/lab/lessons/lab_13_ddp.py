"""Lesson of 13_ddp: the same model on several devices, and gradients that are averaged."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import held, of_ranks, peak, ratio, size

ALONE, DDP = "multi_single", "multi_ddp"

_grown = ratio(peak(DDP), peak(ALONE))


def _more(runs: Runs) -> str | None:
    grown = _grown(runs)
    return None if grown is None else "less" if grown < 0.97 else "more" if grown > 1.03 else "the same"


def _fewer_steps(runs: Runs) -> float | None:
    alone, several = len(runs[ALONE].record.losses), len(runs[DDP].record.losses)
    return alone / several if alone and several else None


LESSON = Lesson(
    questions=(
        Question(
            id="ddp_memory", unit="choice", choices=("less", "the same", "more"), about=(ALONE, DDP), truth=_more,
            text="With DDP on several devices: what does each of them hold, against one device alone?",
            because=lambda runs: (
                f"{size(peak(DDP)(runs))} at the peak against {size(peak(ALONE)(runs))}. Each has all of the model, "
                "and its gradients lie in buckets that are never given back. DDP makes a run faster, not smaller."
            ),
        ),
        Question(
            id="ddp_steps", unit="times", about=(ALONE, DDP), truth=_fewer_steps,
            text="How many times fewer optimizer steps do the same epochs have?",
            because=lambda runs: (
                f"{len(runs[ALONE].record.losses)} against {len(runs[DDP].record.losses)}: "
                f"{runs[DDP].config['devices']} devices see as many batches at once. Fewer and larger steps, so the "
                "learning rate may grow too."
            ),
        ),
    ),
    checks=(
        Check(
            id="all_of_it_everywhere", about=(ALONE, DDP), relation="equal", within=0.02,
            claim="Each device has all parameters and all optimizer state",
            left=held(DDP, "parameters", "optimizer_gpu"), right=held(ALONE, "parameters", "optimizer_gpu"),
            names=("each of several holds", "what one alone holds,"), why="Every rank takes the same step by itself.",
            hint="Are precision and optimizer the same?",
        ),
        Check(
            id="buckets_beside_gradients", about=(ALONE, DDP), relation="above", factor=1.8,
            claim="While micro batches are summed, gradients are there twice", left=held(DDP, "gradients"),
            right=held(ALONE, "gradients"), names=("gradients of multi_ddp:", "those of one device,"),
            why="Until the last micro batch they stay outside of the buckets, which wait for them.",
            hint="Does the run accumulate?",
        ),
    ),
    topics=(Topic(id="ranks", about=(DDP,), say=lambda runs: of_ranks(runs[DDP])),),
)  # fmt: skip
