"""Summary: how one run ended, in a few lines."""

from labkit.ledger.records import Record
from labkit.ledger.words import activity, loss_words, parts
from labkit.memory.units import counted, human_bytes


def summary(record: Record) -> str:
    """How a run ended, in a few lines."""
    source = record.memory.source if record.memory else "nothing measured"
    fullest = record.fullest
    against = {None: "", True: " (as expected)", False: " (not as expected)"}[record.as_expected]
    typed = "".join(f" {key}={value}" for key, value in record.overrides.items())
    status = "out of memory" if record.status == "oom" else record.status
    lines = [f"{record.experiment}{typed} on {record.profile}: {status}{against}"]
    if record.died_in:
        died = record.died_in
        place = f"the {died.phase.replace('_', ' ')} of step {died.step}"
        several = record.config.get("accumulate_grad_batches", 1) != 1  # else a step has one, and it says nothing
        lines.append(f"  died in {place}" + (f", micro step {died.micro_step}" if several else ""))
    if record.out_of_memory:
        oom = record.out_of_memory
        asked = oom.requested_bytes
        of = f" of {human_bytes(oom.capacity_bytes)}" if oom.capacity_bytes else ""
        lines += [f"  {record.reason}"] if asked is None else []
        lines.append(
            ("  " if asked is None else f"  asked for {human_bytes(asked)} with ")
            + f"{human_bytes(oom.allocated_bytes)}{of} in use: {parts(oom.held)}"
        )
    elif record.reason:
        lines.append(f"  {record.reason}")
    elif (memory := fullest.memory) and memory.peak_phase:
        phase = memory.peak_phase
        capacity = memory.capacity_bytes
        of = f" of {human_bytes(capacity)}" if capacity else ""
        where = f"in {activity(phase.phase)} of step {phase.step}: {parts(phase.peak)}"
        if fullest.peak_bytes > 1.01 * phase.peak_bytes:  # while the model was made, say; not a few blocks more
            where = f"outside the reported phases; in these {human_bytes(phase.peak_bytes)}, {where}"
        whose = f" on rank {fullest.rank}" if fullest.rank else ""
        lines.append(f"  peak {human_bytes(fullest.peak_bytes)}{of} ({source}){whose}, {where}")
    if record.model.quantized_bytes is not None:
        lines.append(
            f"  weights in 4 bits with their scales {human_bytes(record.model.quantized_bytes)}, not quantized: "
            + parts(record.model.unquantized_bytes or {})
        )
    for attempt in record.attempts:
        lines.append(f"  resumed after step {attempt.resumed_at_step}, after it had ended {attempt.status}")
    if record.others_bytes:
        lines.append(f"  {human_bytes(record.others_bytes)} of the GPU were in use before it started")
    if record.losses:
        lines.append(
            f"  loss {loss_words(record.losses[0])} to {loss_words(record.losses[-1])} in "
            f"{counted(len(record.losses), 'optimizer step')}, {counted(record.samples, 'sample')}, "
            f"{record.train_seconds:.1f} s"
        )
    if record.validation_losses:
        lines.append("  validation loss " + ", ".join(map(loss_words, record.validation_losses)))
    return "\n".join(lines)
