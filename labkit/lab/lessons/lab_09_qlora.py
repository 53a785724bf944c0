"""Lesson of 09_qlora: base weights in 4 bits, and the second change that comes with it."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import held, ratio, size, times

LORA, QLORA, BETWEEN = "xxl_lora", "xxl_qlora", "xxl_lora act_ckpt=True"

_weights = ratio(held(QLORA, "parameters"), held(LORA, "parameters"))


def _not_quantized(runs: Runs) -> list[str]:
    found = runs[QLORA].record.model
    if found.quantized_bytes is None:
        return ["which layers stay: not available when planned"]
    rest = "; ".join(f"{name.replace('_', ' ')} {size(n)}" for name, n in (found.unquantized_bytes or {}).items())
    return [f"In 4 bits with their scales: {size(found.quantized_bytes)}.", f"Not quantized: {rest}."]


LESSON = Lesson(
    questions=(
        Question(
            id="weights_in_4_bits", unit="times", about=(LORA, QLORA), within=0.25, truth=_weights,
            text="4 bits in place of 32 would be an eighth. How many times the weights of LoRA does QLoRA hold?",
            because=lambda runs: (
                f"{times(_weights(runs))}: {size(held(QLORA, 'parameters')(runs))} of "
                f"{size(held(LORA, 'parameters')(runs))}. Embeddings, the output layer, the connector and each layer "
                "that the method leaves out stay as they were, and every block of 4-bit numbers has a scale."
            ),
        ),
        Question(
            id="why_activations_fall", unit="choice", choices=("4-bit weights", "checkpointing"),
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
    ),
    topics=(Topic(id="what_stays", about=(QLORA,), say=_not_quantized),),
)  # fmt: skip
