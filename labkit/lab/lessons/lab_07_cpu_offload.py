"""Lesson of 07_cpu_offload: the optimizer in host memory."""

from labkit.config.device import SIMULATED_GPU
from labkit.lab.lesson import Check, Lesson, Question, Runs, Topic
from labkit.lab.lessons.quantities import held, on_host, peak, predicted, predicted_peak, ratio, size, times

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
        if result.source == SIMULATED_GPU else "Every step moves gradients down and weights up, over the bus.",
    ]  # fmt: skip


LESSON = Lesson(
    questions=(
        Question(
            id="state_on_the_device", about=(XXL, OFFLOAD), truth=held(OFFLOAD, "optimizer_gpu"), within=0.1,
            text="How much optimizer state is left on the device?",
            because=lambda runs: (
                f"{size(held(OFFLOAD, 'optimizer_gpu')(runs))}; xxl would have "
                f"{size(predicted(XXL, 'optimizer_gpu')(runs))} there (predicted). The step itself is done by the CPU."
            ),
        ),
        Question(
            id="host_memory", unit="times", about=(OFFLOAD,), within=0.3, truth=_host,
            text="How many times the parameters on the device does offload take of host memory?",
            because=lambda runs: (
                f"{times(_host(runs))}: {size(on_host(OFFLOAD)(runs))} for {size(held(OFFLOAD, 'parameters')(runs))} "
                "of 16-bit parameters. There lie a copy of the weights in 32 bits, two numbers of state each in 32 "
                "bits, and gradients on their way."
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
    ),
    topics=(Topic(id="time", about=(OFFLOAD,), say=_speed),),
)  # fmt: skip
