"""Lesson of 00_setup: whether everything works, and how a lab goes."""

from labkit.lab.lesson import Check, Lesson, Question, Runs
from labkit.lab.lessons.quantities import predicted_peak, size

FIRST = "reduced_batch max_steps=2"


def _share(runs: Runs) -> float | None:
    found = runs[FIRST].report
    phase = found.peak_phase if found else None
    return 100 * phase.peak["parameters"] / phase.peak_bytes if phase else None


def _why_share(runs: Runs) -> str:
    phase = runs[FIRST].report.peak_phase
    return (
        f"At the highest moment {size(phase.peak['parameters'])} of {size(phase.peak_bytes)} are parameters. The rest "
        "is there because the model is trained: gradients, optimizer state, activations, temporaries."
    )


LESSON = Lesson(
    questions=(
        Question(
            id="share_of_parameters", unit="percent", about=(FIRST,), truth=_share, because=_why_share, within=0.3,
            text="At the moment of highest memory, how many percent of it are the model's parameters?",
        ),
    ),
    checks=(
        Check(
            id="prediction_holds", about=(FIRST,), relation="equal", within=0.05,
            claim="What was predicted is what was measured",
            left=lambda runs: None if runs[FIRST].planned else runs[FIRST].peak_bytes,
            right=predicted_peak(FIRST), names=("the measured peak is", "the predicted"),
            why="The prediction executes the same two steps on tensors without storage and adds up what they allocate.",
            hint="Another process may use the device, or the run was another one than was predicted.",
        ),
    ),
)  # fmt: skip
