"""Lesson of 09_qlora: base weights in 4 bits, and the second change that comes with it."""

from labkit.lab.four_bits import packed_bytes
from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import chosen, held, ratio, size, times

LORA, QLORA, BETWEEN = "xxl_lora", "xxl_qlora", "xxl_lora act_ckpt=True"

_weights = ratio(held(QLORA, "parameters"), held(LORA, "parameters"))


def _not_quantized(runs: Runs) -> list[str]:
    found = runs[QLORA].record.model
    if found.quantized_bytes is None:
        return ["which layers stay: not available when planned"]
    rest = "; ".join(f"{name.replace('_', ' ')} {size(n)}" for name, n in (found.unquantized_bytes or {}).items())
    return [f"In 4 bits with their scales: {size(found.quantized_bytes)}.", f"Not quantized: {rest}."]


def _packed(runs: Runs) -> list[Case]:
    """Of several blocks; the course's is 64."""
    return [Case(inputs={"block": block, "scale_bytes": 4}, truth=packed_bytes(block)) for block in (64, 128, 256)]


LESSON = Lesson(
    questions=(
        Question(
            id="weights_in_4_bits", unit="times", about=(LORA, QLORA), within=0.25, truth=_weights,
            usual=(
                Usual(
                    low=0, high=0.45,
                    says=(
                        "An eighth is for the weights that are quantized; not all of them are, and blocks have "
                        "scales."
                    ),
                ),
                Usual(
                    low=0.45, high=0.74,
                    says="More stays as it was than you think: embeddings, the output layer and the connector.",
                ),
                Usual(low=1.26, says="Most weights are in 4 bits: what stays is less than that."),
            ),
            text="4 bits in place of 32 would be an eighth. How many times the weights of LoRA does QLoRA hold?",
            because=lambda runs: (
                f"{times(_weights(runs))}: {size(held(QLORA, 'parameters')(runs))} of "
                f"{size(held(LORA, 'parameters')(runs))}. Embeddings, the output layer, the connector and each layer "
                "that the method leaves out stay as they were, and every block of 4-bit numbers has a scale."
            ),
        ),
        Question(
            id="why_activations_fall", unit="choice", choices=("4-bit weights", "checkpointing"),
            usual=(
                Usual(
                    choice="4-bit weights",
                    says=(
                        "Weights in 4 bits are computed with in 16 or 32; what layers keep for backward is as large "
                        "as before."
                    ),
                ),
            ),
            about=(LORA, BETWEEN), text="QLoRA changes two things. Which of them makes the activations small?",
            truth=lambda runs: (
                None if (share := ratio(held(BETWEEN, "activations"), held(LORA, "activations"))(runs)) is None
                else "checkpointing" if share < 0.5 else "4-bit weights"
            ),
            because=lambda runs: (
                f"LoRA with checkpointing alone keeps {size(held(BETWEEN, 'activations')(runs))} of activations, and "
                f"{size(held(LORA, 'activations')(runs))} without, at the same batch."
            ),
        ),
    ),
    checks=(
        Check(
            id="weights_are_smaller", about=(LORA, QLORA), relation="below", factor=0.5,
            claim="The base is less than half as large", left=held(QLORA, "parameters"),
            right=held(LORA, "parameters"), names=("xxl_qlora holds", "xxl_lora's,"),
            why="Most weights are in 4 bits.", hint="Is use_qlora true?",
        ),
        Check(
            id="adapters_are_the_same", about=(LORA, QLORA), relation="equal",
            claim="Adapters, and so gradients, are the same", left=held(QLORA, "gradients"),
            right=held(LORA, "gradients"), names=("gradients take", "xxl_lora's,"),
            why="The base is what is quantized.", hint="Both must have the same lora_r and targets.",
        ),
        Check(
            id="checkpointing_frees_activations", about=(LORA, BETWEEN), relation="below", factor=0.5,
            claim="Checkpointing is what makes the activations small", left=held(BETWEEN, "activations"),
            right=held(LORA, "activations"), names=("with act_ckpt they take", "without,"),
            why="One change at a time shows which one it was.", hint="Change act_ckpt and nothing else.",
        ),
        Check(
            id="yours_holds_less", about=(QLORA, "?yours"), relation="below", factor=0.999,
            claim="Your setting makes the weights of xxl_qlora smaller",
            left=chosen(held("?yours", "parameters"), "?yours", QLORA, "double_quant"),
            right=held(QLORA, "parameters"), names=("your parameters take", "those of xxl_qlora,"),
            why="The scales are numbers in 32 bits; quantized they take a quarter of that.",
            hint="Which of the two values quantizes the scales as well?",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_in_4_bits", unit="count", about=(), within=0.03,
            text="Bytes of one number in 4 bits, when every block of so many numbers has a scale of so many bytes",
            cases=_packed,
            because="Half a byte for the number, and its share of the scale: 0.5 + scale_bytes / block.",
            usual=(
                Usual(low=0, high=0.79, says="4 bits are half a byte, and the part of the scale comes on top."),
                Usual(low=0.8, high=0.95, says="Each block has a scale, and each number carries a part of it."),
                Usual(low=6, high=9, says="These are bits: eight of them are a byte."),
                Usual(low=1.6, high=1.99, says="Two numbers of 4 bits share a byte."),
                Usual(low=2, high=5.9, says="A scale is there once for each block, not once for each number."),
            ),
        ),
    ),
    topics=(Topic(id="what_stays", about=(QLORA,), say=_not_quantized),),
)  # fmt: skip
