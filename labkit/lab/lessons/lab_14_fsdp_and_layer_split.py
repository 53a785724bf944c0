"""Lesson of 14_fsdp_and_layer_split: two ways in which no device has all of the model."""

from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import STATES, held, kept, last_loss, of_ranks, over_ranks, ratio, size

DDP, FSDP = "multi_ddp", "multi_fsdp"
FULL, SPLIT = "six_full dropout=0.0 max_steps=4", "six_full_split dropout=0.0 max_steps=4"

_activations = ratio(held(FSDP, "activations"), held(DDP, "activations"))


def _the_same(runs: Runs) -> str | None:
    share = _activations(runs)
    return None if share is None else "the same" if 0.8 < share < 1.25 else "less" if share < 1 else "more"


LESSON = Lesson(
    questions=(
        Question(
            id="fsdp_states", unit="times", about=(DDP, FSDP), truth=ratio(kept(DDP, *STATES), kept(FSDP, *STATES)),
            text="Between two steps: how many times less parameters, gradients and state does a device keep with FSDP?",
            because=lambda runs: (
                f"{size(kept(FSDP, *STATES)(runs))} against {size(kept(DDP, *STATES)(runs))} with DDP: a share for "
                f"each of {runs[FSDP].config['devices']} devices."
            ),
        ),
        Question(
            id="fsdp_activations", unit="choice", choices=("less", "the same", "more"), about=(DDP, FSDP),
            text="And its activations?", truth=_the_same,
            because=lambda runs: (
                f"{size(held(FSDP, 'activations')(runs))} against {size(held(DDP, 'activations')(runs))}. They follow "
                "the batch of a device, and that is what it was. FSDP does not replace checkpointing."
            ),
        ),
    ),
    checks=(
        Check(
            id="shares_not_copies", about=(DDP, FSDP), relation="below", factor=0.6,
            claim="With FSDP a device keeps a share of the states", left=kept(FSDP, *STATES), right=kept(DDP, *STATES),
            names=("a device keeps", "what it keeps with DDP,"), why="Each parameter is cut in as many parts as ranks.",
            hint="Between steps nothing is gathered.",
        ),
        Check(
            id="layers_come_and_go", about=(FSDP,), relation="above", factor=1.1,
            claim="While it computes, a device holds more parameters than its share", left=held(FSDP, "parameters"),
            right=kept(FSDP, "parameters"), names=("at most it holds", "its share,"),
            why="A layer is gathered from all ranks for its turn, and given back.", hint="Look inside the phases.",
        ),
        Check(
            id="parts_make_the_whole", about=(FULL, SPLIT), relation="equal", within=0.15,
            claim="The parts of all devices are one model", left=over_ranks(SPLIT, "parameters"),
            right=kept(FULL, "parameters"), names=("all ranks together hold", "the whole model,"),
            why="Each layer is on one device. The text's embedding is on two, the first and the last that use it.",
            hint="Count every rank.",
        ),
        Check(
            id="split_learns_the_same", about=(FULL, SPLIT), relation="equal", within=0.02, quantity="loss",
            claim="Where a layer is computed changes nothing that is learnt", left=last_loss(SPLIT),
            right=last_loss(FULL), names=("last loss in parts:", "that on one device,"),
            why="Hidden states go one way and gradients the other, back into the vision tower.",
            hint="Without dropout, which draws other numbers on every rank.",
        ),
    ),
    topics=(
        Topic(id="shares", about=(FSDP,), say=lambda runs: of_ranks(runs[FSDP])),
        Topic(id="parts", about=(SPLIT,), say=lambda runs: of_ranks(runs[SPLIT])),
    ),
)  # fmt: skip
