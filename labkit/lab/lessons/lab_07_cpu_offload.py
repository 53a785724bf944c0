"""Lesson of 07_cpu_offload: the optimizer in host memory."""

from labkit.config.device import is_simulated
from labkit.lab.lesson import Case, Check, Derivation, Lesson, Question, Runs, Topic, Usual
from labkit.lab.lessons.quantities import (
    capacity,
    chosen,
    held,
    on_host,
    peak,
    predicted,
    predicted_peak,
    ratio,
    size,
    times,
)

XXL, OFFLOAD = "xxl", "xxl_cpu_offload"

_host = ratio(on_host(OFFLOAD), held(OFFLOAD, "parameters"))


def _speed(runs: Runs) -> list[str]:
    result = runs[OFFLOAD]
    if result.planned or result.report is None:
        return [f"xxl_cpu_offload: {result.record.reason or 'time is not available when planned'}"]
    return [
        f"{len(result.record.losses)} optimizer steps took {result.record.train_seconds:.1f} s, "
        f"{result.samples_per_second:.1f} samples a second.",
        "On a simulated GPU host and device are the same memory: nothing moves, so this time says nothing about a GPU."
        if is_simulated(result.config["device"]) else "Every step moves gradients down and weights up, over the bus.",
    ]  # fmt: skip


def _states_of(runs: Runs, name: str, offload: str) -> Case:
    inputs = {"numbers": predicted(name, "parameters")(runs) // 2, "offload": offload}
    return Case(inputs=inputs, truth=predicted(name, "parameters", "gradients", "optimizer_gpu")(runs))


LESSON = Lesson(
    questions=(
        Question(
            id="state_on_the_device", about=(XXL, OFFLOAD), truth=held(OFFLOAD, "optimizer_gpu"), within=0.1,
            usual=(
                Usual(
                    low=1.1,
                    says="The optimizer steps on the CPU, so all that it remembers is in host memory.",
                ),
            ),
            text="How much optimizer state is left on the device?",
            because=lambda runs: (
                f"{size(held(OFFLOAD, 'optimizer_gpu')(runs))}; xxl would have "
                f"{size(predicted(XXL, 'optimizer_gpu')(runs))} there (predicted). The step itself is done by the CPU."
            ),
        ),
        Question(
            id="host_memory", unit="times", about=(OFFLOAD,), within=0.3, truth=_host,
            usual=(
                Usual(
                    low=0, high=0.35,
                    says="The state alone is two numbers for each parameter, and on the host each number has 32 bits.",
                ),
                Usual(
                    low=0.35, high=0.69,
                    says="The host keeps more than the state: the weights in 32 bits and gradients lie there too.",
                ),
                Usual(
                    low=1.31,
                    says=(
                        "Count a copy of the weights, two numbers of state and the gradients, each of four bytes "
                        "against two."
                    ),
                ),
            ),
            text="How many times the parameters on the device does offload take of host memory?",
            because=lambda runs: (
                f"{times(_host(runs))}: {size(on_host(OFFLOAD)(runs))} for {size(held(OFFLOAD, 'parameters')(runs))} "
                "of 16-bit parameters. For each there lie a copy in 32 bits, two numbers of state and a gradient in 32 "
                "bits too, and two buffers in 16 bits for what is on its way: 20 bytes for 2."
            ),
        ),
    ),
    checks=(
        Check(
            id="state_is_on_the_host", about=(OFFLOAD,), relation="below", factor=0.01,
            claim="Optimizer state has left the device", left=held(OFFLOAD, "optimizer_gpu"), right=on_host(OFFLOAD),
            names=("on the device are", "what is on the host,"), why="That is what stage 2 with offload moves.",
            hint="Is optim=deepspeed_cpu set, with the strategy?",
        ),
        Check(
            id="few_gradients", about=(OFFLOAD,), relation="below", factor=0.2,
            claim="Gradients leave the device as they are made", left=held(OFFLOAD, "gradients"),
            right=held(OFFLOAD, "parameters"), names=("gradients take", "the parameters,"),
            why="They are summed in host memory; a bucket of them is on the device.", hint="Is the strategy stage 2?",
        ),
        Check(
            id="needs_less_than_xxl", about=(XXL, OFFLOAD), relation="below", factor=0.8,
            claim="The device needs much less than without offload", left=peak(OFFLOAD), right=predicted_peak(XXL),
            names=("xxl_cpu_offload peaks at", "what was predicted for xxl,"), why="Two of four parts have left it.",
            hint="Both must have the same batch.",
        ),
        Check(
            id="yours_uses_the_room", about=("?yours",), relation="above", factor=0.85, fitting="?yours",
            claim="Your batch fills more than 85% of the device, and fits",
            left=chosen(peak("?yours"), "?yours", OFFLOAD, "batch_size"),
            right=capacity("?yours"), names=("yours peaks at", "the capacity,"),
            why="The room that the state has left is there for activations.",
            hint="How many bytes does one more sample take? Two predictions tell.",
        ),
    ),
    derivations=(
        Derivation(
            id="states_on_the_device", within=0.06, about=(XXL, OFFLOAD),
            text="Bytes of parameters, gradients and state on the device in bf16-true, without offload and with it",
            cases=lambda runs: [_states_of(runs, XXL, "no"), _states_of(runs, OFFLOAD, "yes")],
            because="Four 16-bit numbers for each parameter without offload, one with it: only the weights stay.",
            usual=(
                Usual(low=0.45, high=0.55, says="AdamW's two numbers of state count without offload."),
                Usual(low=0.2, high=0.3, says="Without offload gradients and state are on the device as well."),
                Usual(low=0.7, high=0.8, says="AdamW keeps two numbers for each parameter, not one."),
                Usual(
                    low=1.9, high=2.1,
                    says="With offload gradients leave as they are made; in bf16-true a number has two bytes.",
                ),
                Usual(low=3.5, high=4.5, says="With offload gradients and state have left the device."),
            ),
        ),
    ),
    topics=(Topic(id="time", about=(OFFLOAD,), say=_speed),),
)  # fmt: skip
