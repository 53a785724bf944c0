"""Lesson of 11_fit_your_gpu: advice, and predictions for other devices."""

from labkit.lab.lesson import Check, Lesson, Question, Topic
from labkit.lab.lessons.quantities import capacity, fits, needed, size

LESSON = Lesson(
    questions=(
        Question(
            id="fits_in_24", unit="choice", choices=("fits", "out of memory"), about=("?small",),
            text="bf16_true at full size on a GPU of 24 GiB: does it fit?", truth=fits("?small"),
            because=lambda runs: (
                f"It needs {size(runs['?small'].peak_bytes)} (predicted), and such a GPU leaves about "
                f"{size(runs['?small'].capacity_bytes)} to a program (assumed)."
            ),
        ),
    ),
    checks=(
        Check(
            id="advice_holds", about=("?yours",), relation="below", claim="With the advice it fits",
            left=needed("?yours"), right=capacity("?yours"),
            names=("it needs", "the capacity,"), why="It was planned before it was proposed.",
            hint="Take the values of the first line of the advice, all of them.",
        ),
        Check(
            id="larger_gpu_holds_more", about=("?small", "?large"), relation="above",
            claim="The larger GPU leaves more", left=capacity("?large"), right=capacity("?small"),
            names=("it has", "the smaller one,"), why="What is needed stays the same, whatever the GPU.",
            hint="Hand in the smaller GPU first.",
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
