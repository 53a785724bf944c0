"""Lesson of 14_fsdp_and_layer_split: two ways in which no device has all of the model."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import STATES, chosen, held, kept, last_loss, of_ranks, over_ranks, ratio, size

DDP, FSDP = "multi_ddp", "multi_fsdp"
FULL, SPLIT = "six_full dropout=0.0 max_steps=4", "six_full_split dropout=0.0 max_steps=4"

_activations = ratio(held(FSDP, "activations"), held(DDP, "activations"))


def _the_same(runs: Runs) -> str | None:
    share = _activations(runs)
    return None if share is None else "the same" if 0.8 < share < 1.25 else "less" if share < 1 else "more"


def _share_of(runs: Runs, name: str) -> Case:
    shared_by = runs[name].config["devices"] if name == FSDP else 1
    inputs = {"numbers": held(DDP, "parameters")(runs) // 2, "shared_by": shared_by}
    return Case(inputs=inputs, truth=held(name, "optimizer_gpu")(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="fsdp_states", unit="times", about=(DDP, FSDP), truth=ratio(kept(DDP, *STATES), kept(FSDP, *STATES)),
            usual=(
                Usual(
                    low=0, high=0.79,
                    says="Every parameter, gradient and state is divided among all devices, each gets one share.",
                ),
                Usual(
                    low=1.21,
                    says="It is divided by the number of devices, once: nothing else becomes smaller.",
                ),
            ),
            text="Between two steps: how many times less parameters, gradients and state does a device keep with FSDP?",
            because=lambda runs: (
                f"{size(kept(FSDP, *STATES)(runs))} against {size(kept(DDP, *STATES)(runs))} with DDP: a share for "
                f"each of {runs[FSDP].config['devices']} devices."
            ),
        ),
        Question(
            id="fsdp_activations", unit="choice", choices=("less", "the same", "more"), about=(DDP, FSDP),
            usual=(
                Usual(choice="less", says="Activations are of a device's own batch, and that is as large as it was."),
                Usual(
                    choice="more",
                    says=(
                        "The layers that are gathered are parameters; activations follow the batch, which is the "
                        "same."
                    ),
                ),
            ),
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
        Check(
            id="yours_keeps_a_fourth", about=(DDP, "?yours"), relation="below", factor=0.27,
            claim="On so many devices each keeps about a fourth of the optimizer state, or less",
            left=chosen(held("?yours", "optimizer_gpu"), "?yours", FSDP, "devices"), right=held(DDP, "optimizer_gpu"),
            names=("a device keeps", "what it keeps with DDP,"), why="The state is divided by the number of devices.",
            hint="By what is the state divided?",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_of_a_share", about=(DDP, FSDP), within=0.02,
            text="Bytes of AdamW's state that a device keeps, with numbers of two bytes, by how the run shares it",
            cases=lambda runs: [_share_of(runs, name) for name in (DDP, FSDP)],
            because="Two numbers of two bytes for each parameter, divided by the devices that share them.",
            usual=(
                Usual(low=0.45, high=0.55, says="AdamW keeps two numbers for each; and does DDP share them?"),
                Usual(low=1.9, high=2.1, says="Under FSDP each device keeps a share of the state; two bytes a number."),
                Usual(low=0.2, high=0.3, says="Two numbers of two bytes for each parameter; DDP divides nothing."),
                Usual(low=3, high=9, says="Is it divided by the devices that share it, with numbers of two bytes?"),
            ),
        ),
    ),
    topics=(
        Topic(id="shares", about=(FSDP,), say=lambda runs: of_ranks(runs[FSDP])),
        Topic(id="parts", about=(SPLIT,), say=lambda runs: of_ranks(runs[SPLIT])),
    ),
)  # fmt: skip
