"""Out of memory on a GPU: what the numbers and the place say, what held it, and the levers that help there."""

import re

from labkit.help.diagnosis.cuda_message import CudaMessage
from labkit.help.diagnosis.frameworks import Levers
from labkit.help.diagnosis.place import Place
from labkit.ledger.parts import DiedIn
from labkit.ledger.records import Record
from labkit.memory.units import human_bytes

_HELPS = {
    "loading": ("quantize", "shard"),
    "forward": ("batch", "checkpointing", "sequence"),
    "backward": ("checkpointing", "batch", "sequence"),
    "optimizer": ("optimizer", "lora", "offload", "shard"),
    "saving": ("saving",),
    "evaluating": ("evaluation",),
    None: ("batch", "checkpointing", "sequence", "optimizer"),
}
"""Which levers make less of what a phase needs."""

_ADAPTERS = re.compile(r"lora|peft", re.IGNORECASE)


def said_of_full(message: CudaMessage, where: Place, log: str) -> str:
    """What happened, where neither others nor holes make the difference."""
    asked, free = human_bytes(message.tried_bytes), human_bytes(message.free_bytes)
    capacity = human_bytes(message.capacity_bytes)
    if message.finding == "larger_than_gpu":
        return (
            f"One tensor of {asked} was asked for on a GPU of {capacity}: no GPU of this kind could give it, so a "
            "shape "
            f"or an index is wrong, or one sample is far too long. {ran_out(where)}"
        )
    if message.finding == "blocked":
        return (
            f"Memory is not what is short: {asked} were asked for, {free} are said to be free, and PyTorch has "
            f"{human_bytes(message.allocated_bytes)} in tensors. Something else refuses: a limit on this process (MPS, "
            "vGPU, a container), another process that has ended since, memory of the host that cannot be locked "
            "(ulimit -l), or another GPU than the one meant."
        )
    if message.is_one_request:
        share = f"{message.tried_bytes / message.capacity_bytes:.0%}"
        return (
            f"The GPU is full for one request: a single tensor of {asked} ({share} of the GPU) was asked for, and "
            f"{free} "
            f"were free. {ran_out(where)}"
            + " Attention grows with the square of the image tokens: too many pixels in one image, most likely."
            * (where.part == "attention" and where.vision)
        )
    adapters = where.phase in ("forward", "backward") and _ADAPTERS.search(log)
    return (
        f"The GPU is really full: {asked} more were asked for, and {free} of {capacity} were free. Neither other "
        "processes nor holes "
        f"between tensors make the difference. {ran_out(where)}"
        + " LoRA makes gradients and optimizer states small, not the activations."
        * bool(adapters)
    )


def ran_out(where: Place) -> str:
    """Where the memory ran out, and what follows from that; empty where the log does not tell."""
    if where.phase is None and where.part is None:
        return ""
    why = {
        "loading": " No batch was there yet, so a smaller one cannot help.",
        "saving": " The batch does not matter there.",
        "evaluating": " The evaluation has a batch size of its own.",
    }.get(where.phase or "", "")
    if where.phase == "loading" and where.replicated:
        why += " DDP keeps the whole model on each GPU."
    if where.phase == "saving" and where.sharded:
        why += " FSDP gathers the whole state dict on the GPU for it."
    return f"The memory ran out {where.words}.{why}"


def levers_for(where: Place, message: CudaMessage | None, levers: Levers, *, batch: bool = True) -> list[str]:
    """What helps at a place, in the words of the program's frameworks; without ``batch``, not by a smaller one."""
    names = list(_HELPS[where.phase])
    if where.phase in ("forward", "backward", None):
        one = message is not None and message.is_one_request
        by_part = {"attention": ["sequence", "attention"], "loss": ["loss", "sequence"]}.get(where.part or "", [])
        by_part = ["pixels"] * where.vision + by_part
        # one tensor grows with the length or the pixels of a sample; many small ones with the number of samples
        names = [*by_part, *names] if one or where.part == "loss" else [*names, *by_part]
        if where.vision and not one:
            names.remove("sequence")
        if not batch or (one and where.part == "attention"):
            names.remove("batch")
    return [levers[name] for name in dict.fromkeys(names)]


_SHRINKS = {
    "parameters": "fewer bits (precision=bf16-true, use_qlora=true) or a smaller model",
    "gradients": "less that is trained (use_lora=true, freeze_vision=true) or precision=bf16-true",
    "optimizer_gpu": "optim=adam_8bit, optim=sgd, use_lora=true, or offload",
    "activations": "a smaller batch_size with more accumulate_grad_batches, act_ckpt=true, or a shorter max_length",
    "temporaries": "a smaller batch_size; in the optimizer step optim_impl=for-loop",
    "inputs": "a smaller batch_size",
}
"""What makes each category smaller."""


def held_lines(record: Record | None) -> list[str]:
    """Where a run ran out of memory and what held it, the largest part first; nothing for another end."""
    if record is None or record.status != "oom":
        return []
    held = record.out_of_memory.held if record.out_of_memory else {}
    on_device = sorted(((n, c) for c, n in held.items() if n >= 2**10 and not c.endswith("_cpu")), reverse=True)
    lines = [f"died in                    {place(record.died_in)}"]
    lines += [f"held by {c.removesuffix('_gpu').replace('_', ' '):18} {human_bytes(n)}" for n, c in on_device]
    if on_device and on_device[0][1] in _SHRINKS:
        lines.append(f"the largest part shrinks with {_SHRINKS[on_device[0][1]]}")
    return lines


def place(died_in: DiedIn | None) -> str:
    """Where a run died, in words."""
    if died_in is None:
        return "the run"
    if died_in.phase == "load_model":
        return "loading the model"
    return f"the {died_in.phase.replace('_', ' ')} of step {died_in.step}, micro step {died_in.micro_step}"
