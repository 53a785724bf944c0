"""Lesson of 12_compare: all runs at once, and two savings together."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Usual
from labkit.lab.lessons.quantities import STATES, chosen, held, peak, size

BF16, LORA, QLORA, BOTH = "bf16_true", "xxl_lora", "xxl_qlora", "xxl_lora act_ckpt=True precision=bf16-true"
QUANTIZED, HALVED = "QLoRA", "LoRA in 16 bits"


def _least(runs: Runs) -> str:
    return HALVED if runs[BOTH].peak_bytes < runs[QLORA].peak_bytes else QUANTIZED


def _why_least(runs: Runs) -> str:
    held_by = ", ".join(
        f"{name} {size(runs[name].peak_bytes)}, of it parameters {size(held(name, 'parameters')(runs))} and "
        f"temporaries {size(held(name, 'temporaries')(runs))} at most"
        for name in (BOTH, QLORA)
    )
    return (
        f"{held_by}. Weights in 4 bits are the smallest, and they are computed with as copies that come and go. In a "
        "small model such a copy is a large part of the peak; in a large one it is a small part."
    )


LESSON = Lesson(
    questions=(
        Question(
            id="least_memory", unit="choice", choices=(HALVED.lower(), QUANTIZED.lower()), about=(BOTH, QLORA),
            usual=(
                Usual(choice=QUANTIZED.lower(), says="Its weights are smaller; look at its temporaries in this model."),
                Usual(choice=HALVED.lower(), says="Its temporaries are smaller; look at the weights of this model."),
            ),
            text="LoRA in bf16-true with checkpointing, or QLoRA as in lab 09: which takes less memory on this device?",
            truth=lambda runs: _least(runs).lower(), because=_why_least,
        ),
    ),
    checks=(
        Check(
            id="qlora_holds_less_than_lora", about=(LORA, QLORA), relation="below", claim="QLoRA holds less than LoRA",
            left=peak(QLORA), right=peak(LORA), names=("xxl_qlora peaks at", "xxl_lora,"),
            why="Its base is in 4 bits, and layers are computed again.", hint="Run labs 08 and 09 first.",
        ),
        Check(
            id="bf16_holds_less_than_fp32", about=("grad_accumulation_lr4x", BF16), relation="below", factor=0.6,
            claim="bf16-true holds little more than half of 32-true", left=peak(BF16),
            right=peak("grad_accumulation_lr4x"), names=("bf16_true peaks at", "grad_accumulation_lr4x,"),
            why="Half of nearly everything.", hint="Run labs 02 and 03 first.",
        ),
        Check(
            id="yours_is_smaller_with_a_larger_model", about=(BF16, "?yours"), relation="below", fitting="?yours",
            claim="The larger model with your changes takes less memory than bf16_true with its smaller one",
            left=chosen(peak("?yours"), "?yours", "larger_model"),
            right=peak(BF16), names=("yours peaks at", "bf16_true,"),
            why="What was trained with states of its own is now frozen, or its states are smaller.",
            hint="Which part is largest in larger_model? One change of labs 05 to 09 removes most of it.",
        ),
    ),
    derivations=(
        Derivation(
            id="share_of_states", unit="count", about=(BF16,), within=0.06,
            text="How many percent of bf16_true's peak are parameters, gradients and optimizer state?",
            cases=lambda runs: [
                Case(inputs={}, truth=100 * held(BF16, *STATES)(runs) / runs[BF16].peak_bytes),
            ],
            because="All three together over the peak; the rest are activations and what comes and goes.",
            usual=(
                Usual(low=0, high=0.013, says="In percent: a hundred times the share."),
                Usual(low=0.2, high=0.3, says="That is one of the three; the state counts for two of them."),
                Usual(low=0.45, high=0.55, says="AdamW's state is as large as parameters and gradients together."),
                Usual(low=0.7, high=0.8, says="AdamW keeps two numbers for each parameter, not one."),
                Usual(low=1.3, high=2, says="Over the peak of the whole run: activations are in it too."),
            ),
        ),
    ),
)  # fmt: skip
