"""Lesson of 11_fit_your_gpu: advice, and predictions for other devices."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Topic, Usual
from labkit.lab.lessons.quantities import capacity, chosen, fits, needed, peak, size

LESSON = Lesson(
    questions=(
        Question(
            id="fits_in_24", unit="choice", choices=("fits", "out of memory"), about=("?small",),
            usual=(
                Usual(
                    choice="fits",
                    says=(
                        "The weights do. Gradients and AdamW's two numbers each take as much again, and activations "
                        "come on top."
                    ),
                ),
            ),
            told_by="bf16_true on 24GiB",
            text="bf16_true at full size on a GPU of 24 GiB: does it fit?", truth=fits("?small"),
            because=lambda runs: (
                f"It needs {size(runs['?small'].peak_bytes)} (predicted), and such a GPU leaves about "
                f"{size(runs['?small'].capacity_bytes)} to a program (assumed)."
            ),
        ),
    ),
    checks=(
        Check(
            id="advice_holds", about=("?yours",), relation="below", fitting="?yours", claim="With the advice it fits",
            left=chosen(needed("?yours"), "?yours", "baseline"), right=capacity("?yours"),
            names=("it needs", "the capacity,"), why="It was planned before it was proposed.",
            hint="Take the values of the first line of the advice, all of them.",
        ),
        Check(
            id="your_gpu_is_just_large_enough", about=("?yours_gpu",), relation="below", factor=1.15,
            fitting="?yours_gpu",
            claim="bf16_true at full size fits on your GPU, and it is not much larger than needed",
            left=capacity("?yours_gpu"),
            right=chosen(peak("?yours_gpu"), "?yours_gpu", "bf16_true"), names=("the GPU leaves", "what is needed,"),
            why="A larger GPU costs more an hour, and holds nothing more of this run.",
            hint="Take what is needed from the prediction, and a tenth for the GPU itself and the allocator's holes.",
        ),
    ),
    derivations=(
        Derivation(
            id="largest_model", unit="count", about=(), within=0.02,
            text="Parameters, in billions, whose states fit into so many GiB when each takes so many bytes",
            cases=lambda runs: [
                Case(inputs={"gib": gib, "bytes_each": each}, truth=gib * 2**30 / each / 1e9)
                for gib, each in ((24, 8), (80, 16), (12, 6))
            ],
            because="GiB times 2**30 over the bytes of one, over a billion. Activations need room besides.",
            usual=(
                Usual(low=0.4, high=0.6, says="bytes_each has the gradient and the state in it: divide once."),
                Usual(low=1.8, high=2.2, says="bytes_each is all that a parameter takes: divide by it as it is."),
                Usual(low=0.9, high=0.96, says="A GiB is 2**30 bytes; a billion is 10**9."),
                Usual(low=1e6, high=1e12, says="In billions: divide by 10**9."),
                Usual(low=5, high=999, says="Divide by what one parameter takes with its gradient and state."),
                Usual(low=0, high=0.01, says="Is it GiB times 2**30, over bytes_each, over 10**9?"),
            ),
        ),
    ),
    topics=(
        Topic(
            id="what_is_missing", about=("?small", "?large"),
            say=lambda runs: [
                f"needs {size(one.peak_bytes)}, has {size(one.capacity_bytes)}: {fits('?')({'?': one})} (predicted)"
                for one in (runs["?small"], runs["?large"])
            ],
        ),
    ),
)  # fmt: skip
