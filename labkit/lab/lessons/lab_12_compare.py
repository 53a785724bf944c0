"""Lesson of 12_compare: all runs at once."""

from labkit.lab.lesson import Check, Lesson, Question, Runs
from labkit.lab.lessons.quantities import peak, size

SGD, ADAM8, OFFLOAD, LORA, QLORA = "xxl_sgd", "xxl_adam8bit", "xxl_cpu_offload", "xxl_lora", "xxl_qlora"
WAYS = (SGD, ADAM8, LORA, QLORA)


def _least(runs: Runs) -> str:
    return min(WAYS, key=lambda name: runs[name].peak_bytes)


LESSON = Lesson(
    questions=(
        Question(
            id="least_memory", unit="choice", choices=WAYS, about=WAYS, truth=_least,
            text="Of these four ways to fit the xxl model into the device, which one takes the least memory?",
            because=lambda runs: (
                ", ".join(f"{name} {size(runs[name].peak_bytes)}" for name in WAYS)
                + ". QLoRA has a larger batch than the others here, and still holds least."
            ),
        ),
    ),
    checks=(
        Check(
            id="qlora_holds_less_than_lora", about=(LORA, QLORA), relation="below", claim="QLoRA holds less than LoRA",
            left=peak(QLORA), right=peak(LORA), names=("xxl_qlora peaks at", "xxl_lora,"),
            why="Its base is in 4 bits, and layers are computed again.", hint="Run labs 08 and 09 first.",
        ),
        Check(
            id="bf16_holds_less_than_fp32", about=("grad_accumulation_lr4x", "bf16_true"), relation="below", factor=0.6,
            claim="bf16-true holds little more than half of 32-true", left=peak("bf16_true"),
            right=peak("grad_accumulation_lr4x"), names=("bf16_true peaks at", "grad_accumulation_lr4x,"),
            why="Half of nearly everything.", hint="Run labs 02 and 03 first.",
        ),
    ),
)  # fmt: skip
