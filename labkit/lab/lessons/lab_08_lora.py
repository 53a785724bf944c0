"""Lesson of 08_lora: adapters in place of the weights, what they learn and what is forgotten."""

from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import STATES, chosen, held, predicted, ratio, size

XXL, LORA, FOOD = "xxl", "xxl_lora", "food_lora max_epochs=20"

_trained = ratio(held(LORA, "gradients"), held(LORA, "parameters"))


def _forgets(runs: Runs) -> str | None:
    rest = runs["?rest"]
    return None if rest.base_share is None else "yes" if rest.share < 0.5 * rest.base_share else "no"


def _lora_of(runs: Runs, name: str) -> Case:
    trained = held(name, "gradients")(runs) // 4
    inputs = {"frozen": held(name, "parameters")(runs) // 4 - trained, "trained": trained}
    return Case(inputs=inputs, truth=held(name, *STATES)(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="trained_share", unit="choice", choices=("all", "about a tenth", "less than a twentieth"), about=(LORA,),
            usual=(
                Usual(
                    choice="all",
                    says=(
                        "Every weight of the model is frozen; only the two narrow matrices of some layers are "
                        "trained."
                    ),
                ),
                Usual(
                    choice="about a tenth",
                    says="A rank of 16 is narrow against the width, and only queries and values get adapters.",
                ),
            ),
            text="LoRA of rank 16 on queries and values: which share of the numbers gets a gradient?",
            truth=lambda runs: (
                None if (share := _trained(runs)) is None
                else "less than a twentieth" if share < 0.05 else "about a tenth" if share < 0.5 else "all"
            ),
            because=lambda runs: (
                f"{size(held(LORA, 'gradients')(runs))} of gradients for {size(held(LORA, 'parameters')(runs))} of "
                "parameters. The smaller the model, the larger the share: a rank of 16 is much for a narrow layer."
            ),
        ),
        Question(
            id="forgets", unit="choice", choices=("yes", "no"), about=("?rest",), truth=_forgets,
            usual=(
                Usual(
                    choice="no",
                    says="It saw nothing but food: nothing in the data kept the other names where they were.",
                ),
            ),
            told_by="captions fluent_emoji_rest",
            text="After it has learnt the food: with the adapter on, does it forget the names of other things?",
            because=lambda runs: (
                f"{runs['?rest'].base_share:.0%} of them were named exactly before, {runs['?rest'].share:.0%} with the "
                "adapter. The base itself is as it was: with the adapter off it says what it said before."
            ),
        ),
    ),
    checks=(
        Check(
            id="few_gradients", about=(LORA,), relation="below", factor=0.05, claim="Only adapters have gradients",
            left=held(LORA, "gradients"), right=held(LORA, "parameters"), names=("gradients take", "the parameters,"),
            why="The base is frozen; a frozen weight needs no gradient and no state.", hint="Is use_lora true?",
        ),
        Check(
            id="states_are_smaller", about=(XXL, LORA), relation="below", factor=0.7,
            claim="Although its weights are in 32 bits, LoRA holds less than xxl would in 16",
            left=held(LORA, *STATES), right=predicted(XXL, *STATES), names=("xxl_lora holds", "predicted for xxl,"),
            why="Parameters double, gradients and optimizer state are nearly gone.", hint="Both train the same model.",
        ),
        Check(
            id="food_is_learnt", about=("?food",), relation="above", quantity="share",
            claim="The adapter names more food than the base", left=lambda runs: runs["?food"].share,
            right=lambda runs: runs["?food"].base_share, names=("share with the adapter", "without,"),
            why="These captions are what it was trained on.", hint="Is this the run food_lora?",
        ),
        Check(
            id="others_are_forgotten", about=("?rest",), relation="below", quantity="share",
            claim="It names fewer other things", left=lambda runs: runs["?rest"].share,
            right=lambda runs: runs["?rest"].base_share, names=("share with the adapter", "without,"),
            why="Nothing in the training data said that there are other things.", hint="Is this another data set?",
        ),
        Check(
            id="yours_trains_twice_as_many", about=(LORA, "?yours"), relation="equal", factor=2, within=0.05,
            claim="Your adapters train twice as many numbers as those of rank 16",
            left=chosen(held("?yours", "gradients"), "?yours", LORA, "lora_r"),
            right=held(LORA, "gradients"), names=("your gradients take", "those of xxl_lora,"),
            why="B A has rank times (rows and columns) numbers: they grow with the rank.",
            hint="How does the number of trained numbers depend on the rank?",
        ),
    ),
    derivations=(
        Derivation(
            id="bytes_of_lora", about=(LORA, FOOD), within=0.03,
            text="Bytes of parameters, gradients and AdamW's state with LoRA in 32 bits",
            cases=lambda runs: [_lora_of(runs, name) for name in (LORA, FOOD)],
            because="Four bytes for each frozen number; for each trained one 4 of weight, 4 of gradient, 8 of state.",
            usual=(
                Usual(low=2.5, high=4.5, says="Frozen numbers have no gradient and no state."),
                Usual(low=0, high=0.2, says="The frozen numbers are still in memory: four bytes each."),
                Usual(low=0.45, high=0.55, says="In 32 bits a number takes four bytes."),
                Usual(
                    low=1.9, high=2.1, says="In 32 bits a number takes four bytes, and frozen ones have nothing else.",
                ),
                Usual(
                    low=0.75, high=0.97, says="Trained numbers take their weight, a gradient and two numbers of state.",
                ),
            ),
        ),
    ),
    topics=(
        Topic(
            id="two_changes", about=(XXL, LORA),
            say=lambda runs: [
                f"xxl would hold {size(predicted(XXL, *STATES)(runs))} of parameters, gradients and state (predicted), "
                f"in {runs[XXL].config['precision']}.",
                f"xxl_lora holds {size(held(LORA, *STATES)(runs))}, in {runs[LORA].config['precision']}.",
            ],
        ),
    ),
)  # fmt: skip
