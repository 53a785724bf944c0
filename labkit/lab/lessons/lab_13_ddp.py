"""Lesson of 13_ddp: the same model on several devices, and gradients that are averaged."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import chosen, held, of_ranks, peak, ratio, size

ALONE, DDP = "multi_single", "multi_ddp"

_grown = ratio(peak(DDP), peak(ALONE))


def _more(runs: Runs) -> str | None:
    grown = _grown(runs)
    return None if grown is None else "less" if grown < 0.97 else "more" if grown > 1.03 else "the same"


def _fewer_steps(runs: Runs) -> float | None:
    alone, several = len(runs[ALONE].record.losses), len(runs[DDP].record.losses)
    return alone / several if alone and several else None


def _gradients_of(runs: Runs, name: str) -> Case:
    config = runs[name].config
    inputs = {
        "parameter_bytes": held(name, "parameters")(runs), "devices": config["devices"],
        "micro_batches": config["accumulate_grad_batches"],
    }  # fmt: skip
    return Case(inputs=inputs, truth=held(name, "gradients")(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="ddp_memory", unit="choice", choices=("less", "the same", "more"), about=(ALONE, DDP), truth=_more,
            usual=(
                Usual(choice="less", says="Nothing is divided: each device has all parameters, gradients and state."),
                Usual(
                    choice="the same",
                    says="It has all of the model, and the buckets in which gradients are averaged besides.",
                ),
            ),
            text="With DDP on several devices: what does each of them hold, against one device alone?",
            because=lambda runs: (
                f"{size(peak(DDP)(runs))} at the peak against {size(peak(ALONE)(runs))}. Each has all of the model, "
                "and its gradients lie in buckets that are never given back. DDP makes a run faster where each device "
                "is a GPU of its own, and never smaller."
            ),
        ),
        Question(
            id="ddp_steps", measured=True, unit="times", about=(ALONE, DDP), truth=_fewer_steps,
            usual=(
                Usual(
                    low=0, high=0.75, says="Every device takes batches of its own, so the same epochs are over sooner.",
                ),
                Usual(
                    low=1.3,
                    says="As many batches are seen at once as there are devices; accumulation was there before too.",
                ),
            ),
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
        Check(
            id="yours_has_no_extra_gradients", about=(ALONE, "?yours"), relation="equal", within=0.03,
            claim="With your global batch a device of several peaks where one alone does",
            left=chosen(peak("?yours"), "?yours", DDP, "global_batch_size"),
            right=peak(ALONE), names=("yours peaks at", "one alone,"),
            why="Without accumulation every backward fills the buckets, and no second sum is kept.",
            hint="At which global batch has every device exactly one micro batch a step?",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_of_gradients", about=(ALONE, DDP), within=0.02,
            text="Bytes of gradients on one device, by the bytes of its parameters, devices and micro batches",
            cases=lambda runs: [_gradients_of(runs, name) for name in (ALONE, DDP)],
            because="As large as the parameters; twice that with several devices and several micro batches.",
            usual=(
                Usual(low=0.45, high=0.55, says="Buckets and the sum of the micro batches are both there."),
                Usual(
                    low=1.9, high=2.1,
                    says="One device has no buckets; and no device shares its gradients with another.",
                ),
                Usual(
                    low=3, high=9, says="Micro batches are summed in place, and devices do not add up on one of them.",
                ),
                Usual(low=0, high=0.44, says="DDP divides nothing: every device has a gradient for every parameter."),
            ),
        ),
    ),
    topics=(Topic(id="ranks", about=(DDP,), say=lambda runs: of_ranks(runs[DDP])),),
)  # fmt: skip
