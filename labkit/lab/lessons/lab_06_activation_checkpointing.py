"""Lesson of 06_activation_checkpointing: memory paid for with time."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import capacity, held, last_loss, needed, ratio, size
from labkit.lab.one_layer import kept_bytes

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


def _without(runs: Runs) -> float | None:
    """What is needed without checkpointing, if it is the same batch."""
    same = runs["?without"].config["batch_size"] == runs["?yours"].config["batch_size"]
    wanted = not runs["?without"].config["act_ckpt"] and runs["?yours"].config["act_ckpt"]
    return needed("?without")(runs) if same and wanted else None


def _layer(samples: int, tokens: int, width: int, bytes_each: int) -> Case:
    inputs = {"samples": samples, "tokens": tokens, "width": width, "bytes_each": bytes_each}
    return Case(inputs=inputs, truth=kept_bytes(samples, tokens, width, bytes_each))


LESSON = Lesson(
    questions=(
        Question(
            id="what_is_left", unit="choice", choices=("about the same", "about half", "a third or less"),
            usual=(
                Usual(
                    choice="about the same", says="What is inside of a layer is most of it, and none of that is kept.",
                ),
                Usual(
                    choice="about half",
                    says="The inside of a layer is many times its input: attention and the wide feed-forward part.",
                ),
            ),
            about=(PLAIN, CHECKPOINTED), truth=_kept,
            text="With checkpointing, how much of the activations is left?",
            because=lambda runs: (
                f"{size(held(CHECKPOINTED, 'activations')(runs))} of {size(held(PLAIN, 'activations')(runs))}. Only "
                "the input of each layer is kept; what is inside is computed again when backward comes there."
            ),
        ),
        Question(
            id="what_it_costs", unit="choice", choices=("faster", "the same", "slower"), about=(PLAIN, CHECKPOINTED),
            usual=(
                Usual(choice="the same", says="Each layer's forward is computed once more when backward reaches it."),
                Usual(choice="faster", says="Nothing is left out: each layer's forward is computed once more."),
            ),
            text="And the time of a sample?", truth=_slower, measured=True,
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
        Check(
            id="yours_needs_checkpointing", about=("?without", "?yours"), relation="above", fitting="?yours",
            claim="Your batch fits with checkpointing, and without it does not", left=_without,
            right=capacity("?without"), names=("without it needs", "the capacity,"),
            why="The activations of the inside of the layers were what did not fit.",
            hint="The batch has to be so large that it does not fit without checkpointing.",
        ),
    ),
    derivations=(
        Derivation(
            id="activations_of_a_layer", about=(), within=0.03,
            text="Bytes that one transformer layer keeps for its backward",
            cases=lambda runs: [_layer(*sizes) for sizes in ((2, 96, 192, 4), (3, 256, 1024, 2), (16, 40, 512, 4))],
            because=(
                "Sixteen times the width for each token: the two inputs of the normalizations and their results 4, "
                "query, key and value 3, what attention gives 1, the feed-forward part's 4 before GELU and 4 after it."
            ),
            usual=(
                Usual(low=0.05, high=0.08, says="That is the layer's input: what checkpointing keeps."),
                Usual(
                    low=0.23, high=0.27,
                    says="Sixteen numbers for each, but of how many bytes? Or is the feed-forward part alone?",
                ),
                Usual(
                    low=0.45, high=0.55, says="The feed-forward part is four times as wide, before GELU and after it.",
                ),
                Usual(
                    low=0.7, high=0.8,
                    says="GELU keeps its input and gives another tensor: both are four times as wide.",
                ),
                Usual(
                    low=0.85, high=0.97,
                    says="Nearly: do both normalizations keep what goes in, and the next layers what comes out?",
                ),
                Usual(
                    low=1.03, high=1.6,
                    says="More than is kept: a fused attention keeps no matrix of tokens by tokens.",
                ),
                Usual(low=1.9, high=2.1, says="Is each number counted in bytes_each, and once?"),
            ),
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
