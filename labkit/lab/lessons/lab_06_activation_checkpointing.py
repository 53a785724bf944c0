"""Lesson of 06_activation_checkpointing: memory paid for with time."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import held, last_loss, ratio, size

PLAIN, CHECKPOINTED = "xxl_adam8bit", "xxl_checkpointing"

_left = ratio(held(CHECKPOINTED, "activations"), held(PLAIN, "activations"))


def _speed(runs: Runs) -> float | None:
    plain, checkpointed = runs[PLAIN].samples_per_second, runs[CHECKPOINTED].samples_per_second
    return None if plain is None or checkpointed is None else checkpointed / plain


def _slower(runs: Runs) -> str | None:
    speed = _speed(runs)
    return None if speed is None else "slower" if speed < 0.97 else "faster" if speed > 1.03 else "the same"


def _kept(runs: Runs) -> str | None:
    left = _left(runs)
    return (
        None if left is None else "about the same" if left > 0.8 else "about half" if left > 0.35 else "a third or less"
    )


LESSON = Lesson(
    questions=(
        Question(
            id="what_is_left", unit="choice", choices=("about the same", "about half", "a third or less"),
            about=(PLAIN, CHECKPOINTED), truth=_kept,
            text="With checkpointing, how much of the activations is left?",
            because=lambda runs: (
                f"{size(held(CHECKPOINTED, 'activations')(runs))} of {size(held(PLAIN, 'activations')(runs))}. Only "
                "the input of each layer is kept; what is inside is computed again when backward comes there."
            ),
        ),
        Question(
            id="what_it_costs", unit="choice", choices=("faster", "the same", "slower"), about=(PLAIN, CHECKPOINTED),
            text="And the time of a sample?", truth=_slower,
            because=lambda runs: (
                f"{_speed(runs):.2f} times the speed: every layer's forward is computed twice. What the optimizer step "
                "takes stays as it is, and with a slow one the difference looks small."
            ),
        ),
    ),
    checks=(
        Check(
            id="fewer_activations", about=(PLAIN, CHECKPOINTED), relation="below", factor=0.5,
            claim="Checkpointing leaves less than half of the activations",
            left=held(CHECKPOINTED, "activations"), right=held(PLAIN, "activations"),
            names=("xxl_checkpointing keeps", "xxl_adam8bit's,"), why="Inputs of layers, not what is inside them.",
            hint="Is act_ckpt true, and the batch the same?",
        ),
        Check(
            id="same_loss", about=(PLAIN, CHECKPOINTED), relation="equal", within=0.02, quantity="loss",
            claim="The loss is the same", left=last_loss(CHECKPOINTED), right=last_loss(PLAIN),
            names=("last loss of xxl_checkpointing", "xxl_adam8bit's,"),
            why="The same numbers, computed twice. Also dropout draws the same numbers again.",
            hint="Both must have the same seed and the same number of steps.",
        ),
    ),
    topics=(
        Topic(
            id="share_of_the_peak", about=(PLAIN, CHECKPOINTED),
            say=lambda runs: [
                f"{name}: activations {size(held(name, 'activations')(runs))}, peak {size(runs[name].peak_bytes)}"
                for name in (PLAIN, CHECKPOINTED)
            ],
        ),
    ),
)  # fmt: skip
