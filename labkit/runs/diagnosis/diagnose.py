"""Diagnose: why a run died, the evidence for it, and what to do."""

import re
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from labkit.memory.units import human_bytes
from labkit.runs.diagnosis.log_text import clean, last_lines, lines_of
from labkit.runs.diagnosis.next_steps import Blanks, NextSteps
from labkit.runs.diagnosis.out_of_memory import NOTICED, CudaMessage, held_lines, place, read_cuda_message
from labkit.runs.diagnosis.symptoms import SYMPTOMS, Symptom
from labkit.runs.host import OomKills
from labkit.runs.records import Record

GPU_MEMORY = ("gpu_other_process", "gpu_fragmented", "gpu_full", "virtual_gpu_full")
"""Kinds that are about a GPU's memory, for which ``labkit advise`` has proposals."""

_BY_KERNEL = ("host_out_of_memory", "loader_worker")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a run died. ``kind`` is a short identifier, ``happened`` says it in one to three sentences.

    ``evidence`` has quoted lines and numbers, ``next_steps`` commands to type, with the reason behind a ``#``.
    """

    kind: str
    happened: str
    evidence: list[str]
    next_steps: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``Diagnosis(**...)`` reads them."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people: what happened, the evidence, what to do."""
        parts = {"What happened": [self.happened], "Evidence": self.evidence, "What to do": self.next_steps}
        return [line for title, lines in parts.items() for line in (title, *(f"  {line}" for line in lines))]


def diagnose(record: Record, log: str, host: OomKills | None = None) -> Diagnosis | None:
    """Why the run of ``record`` did not end well; None where it did, was skipped, or goes on.

    ``log`` is what it printed, or the end of that. ``host``, from two readings of ``HostMemory``, tells whether the
    kernel has killed for want of memory in between. A run that ended ``ok`` with a loss that is not a number is
    diagnosed too. Never raises for what is in a log.
    """
    if record.status in ("skipped", "running"):
        return None
    case = _Case(record, log, host)
    if record.status == "ok":
        return case.nan_loss() if None in record.losses else None
    if record.status == "oom":
        return case.gpu_memory()
    if record.status == "timeout" and record.exit_code != 124:
        return case.timeout()
    reason = record.reason or ""
    if record.exit_code in (130, -signal.SIGINT) or (record.status == "killed" and "Ctrl-C" in reason):
        return case.of("interrupted", "Somebody stopped the run with Ctrl-C.", last_lines(reason), case.steps.again())
    if record.status == "killed" and "watche" in reason:  # as the runner and the ledger say it
        happened = "The process that watched the run (the command, or the notebook's kernel) ended first, and the run "
        return case.of("watcher_killed", happened + "with it.", last_lines(reason), case.steps.again())
    if record.exit_code in (137, -signal.SIGKILL):
        return case.killed()
    return case.from_text() or case.from_exit_code() or case.rest()


def diagnose_log(log: str) -> Diagnosis:
    """Why a run died of which there is a log and nothing else, be it labkit's or another program's."""
    case = _Case(None, log, None)
    return case.from_text() or case.rest()


class _Case:
    """One dead run: its texts, and the commands that name it."""

    def __init__(self, record: Record | None, log: str, host: OomKills | None) -> None:
        self.record, self.host = record, host
        self.log, self.reason = clean(log), clean((record.reason if record else None) or "")
        self.text = f"{self.log}\n{self.reason}"
        self.exit_code = record.exit_code if record else None
        self.steps = NextSteps(record)

    def of(self, kind: str, happened: str, evidence: Iterable[str], steps: list[str]) -> Diagnosis:
        """A diagnosis; where nothing is to be seen, it says so."""
        shown = list(evidence) or ["nothing was printed"]
        return Diagnosis(kind=kind, happened=happened, evidence=shown, next_steps=steps)

    # -- by what the record says

    def gpu_memory(self) -> Diagnosis:
        """The GPU's memory, real or virtual."""
        if (message := read_cuda_message(self.text)) is not None:
            return self.cuda(message)
        oom = self.record.out_of_memory or {}
        virtual = self.record.config.get("device") == "virtual"
        kind, name = ("virtual_gpu_full", "virtual GPU") if virtual else ("gpu_full", "GPU")
        asked, capacity = oom.get("requested_bytes"), oom.get("capacity_bytes")
        happened = f"The {name}'s memory ran out in {place(self.record.died_in)}."
        if asked is not None and capacity:
            free = human_bytes(max(0, capacity - oom["allocated_bytes"]))
            happened += f" {human_bytes(asked)} more were asked for, and {free} of {human_bytes(capacity)} were free."
        return self.of(kind, happened, held_lines(self.record) or last_lines(self.reason), self.steps.fit())

    def cuda(self, message: CudaMessage) -> Diagnosis:
        """CUDA's message: who holds the memory decides what to do."""
        asked, kind, steps = human_bytes(message.tried_bytes), f"gpu_{message.finding}", self.steps.fit()
        if self.record is None:
            steps = [f"labkit advise EXPERIMENT --gpu {message.capacity_bytes / 2**30:.2f}GiB  # what would fit there"]
        if message.finding == "other_process":
            large = NOTICED * message.capacity_bytes
            pids = [str(pid) for pid, held in message.others.items() if held > large] or ["PID"]
            happened = f"Somebody else holds {human_bytes(message.others_bytes)} of the GPU. Without that the {asked} "
            happened += "that were asked for would have been there."
            steps = [
                "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv  # who holds the GPU",
                f"ps -o pid,user,etime,cmd -p {','.join(pids)}  # whose it is; look outside of a container",
                f"kill {' '.join(pids)}  # only what is yours: an old run, or a notebook that is still open",
                f"{self.steps.run()}  # again, on a GPU of its own",
            ]
        elif message.finding == "fragmented":
            happened = f"The memory is there, but in pieces: {asked} more were asked for, and of what PyTorch has "
            happened += f"reserved {human_bytes(message.unallocated_bytes)} lie in holes, each too small."
            why = "segments that grow leave no such holes"
            steps = [f"{message.setting}=expandable_segments:True {self.steps.run()}  # {why}", *steps]
        else:
            happened = (
                f"The GPU is really full: {asked} more were asked for, and {human_bytes(message.free_bytes)} were "
            )
            happened += "free. Neither other processes nor holes between tensors make the difference."
            if message.tried_bytes > message.capacity_bytes:
                happened += " This one tensor is larger than the GPU."
            elif message.allowed_bytes is not None:
                happened += f" The run may use {human_bytes(message.allowed_bytes)} (capacity_gib)."
        return self.of(kind, happened, [*message.lines(), *held_lines(self.record)], steps)

    def timeout(self) -> Diagnosis:
        """The time that the run was given."""
        wall_s, done = self.record.wall_seconds, len(self.record.losses)
        steps = [f"{self.steps.run()} --timeout-s {max(60, round(3 * wall_s))}  # more time"]
        if not done:
            steps.append(f"{self.steps.doctor}  # no step was done: does it hang, or load for long?")
        evidence = [*last_lines(self.reason), f"{done} optimizer steps were done in {wall_s:.0f} s"]
        happened = "The run had not ended when its time was up, and was stopped."
        return self.of("timeout", happened, [*evidence, *last_lines(self.log, 3)], [*steps, *self.steps.again()])

    def killed(self) -> Diagnosis:
        """Exit code -9: by the kernel for want of memory, or by somebody."""
        evidence = [f"exit code {self.exit_code} (SIGKILL)", *self.kills(), *last_lines(self.log, 3)]
        counted = (self.host.group, self.host.machine) if self.host else (None, None)
        if any(counted):
            happened = "The kernel killed the run: the host's memory (not the GPU's) was used up. Its counter confirms "
            return self.of("host_out_of_memory", f"{happened}it.", evidence, self.steps.host())
        if counted[1] == 0:
            happened = "Somebody killed the run: kill -9, a scheduler, or a container that was stopped. It was not the "
            happened += "kernel for want of memory, whose counter has not moved."
            return self.of("killed", happened, evidence, self.steps.again())
        happened = "The run was killed, likely by the kernel since the host's memory (not the GPU's) was used up. No "
        happened += "counter could be read that would confirm it."
        return self.of("host_out_of_memory", happened, evidence, self.steps.host())

    def nan_loss(self) -> Diagnosis:
        """A loss that is not a number."""
        losses, first = self.record.losses, self.record.losses.index(None)
        before = f"; the step before it had {losses[first - 1]:.3f}" if first else ""
        config = self.record.config
        evidence = [
            f"first at optimizer step {first} of {len(losses)} (counted from 0){before}",
            f"{losses.count(None)} of {len(losses)} losses are not a finite number",
            ", ".join(f"{key}={config.get(key)}" for key in ("lr", "warmup_steps", "precision", "optim")),
        ]
        happened = "The loss became NaN or infinite. The run went on, but what it trained from there on is of no use."
        return self.of("nan_loss", happened, evidence, self.steps.nan())

    def from_exit_code(self) -> Diagnosis | None:
        """What is known when a process has left nothing but its exit code."""
        if self.exit_code == 124:
            return self.by(next(s for s in SYMPTOMS if s.pattern.search("exit code 124")), [])
        if self.exit_code is None or self.exit_code >= 0:
            return None
        number = -self.exit_code
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        evidence = [f"exit code {self.exit_code} ({name})", *last_lines(self.log)]
        if number in (signal.SIGTERM, signal.SIGHUP):
            happened = f"Somebody ended the run with {name}: a scheduler, a shell that was closed, or kill."
            return self.of("killed", happened, evidence, self.steps.again())
        happened = f"The process crashed below Python ({name}), so there is no trace."
        steps = [f"PYTHONFAULTHANDLER=1 {self.steps.run()}  # prints where", f"{self.steps.doctor}  # versions, driver"]
        return self.of("crashed", happened, evidence, steps)

    # -- by what was printed

    def from_text(self) -> Diagnosis | None:
        """The first symptom whose text is there."""
        if (message := read_cuda_message(self.text)) is not None:
            return self.cuda(message)
        for symptom in SYMPTOMS:
            if found := list(symptom.pattern.finditer(self.text)):
                return self.by(symptom, found)
        return None

    def by(self, symptom: Symptom, found: list[re.Match[str]]) -> Diagnosis:
        """A symptom, with the last lines that show it."""
        groups = {name: value for match in found for name, value in match.groupdict().items() if value}
        quoted = dict.fromkeys(line for match in found[-3:] for line in last_lines(lines_of(self.text, match)))
        evidence = [*quoted, *([] if self.exit_code is None else [f"exit code {self.exit_code}"])]
        evidence += self.kills() if symptom.kind in _BY_KERNEL else []
        happened = symptom.happened.format_map(Blanks(groups))
        return self.of(symptom.kind, happened, evidence, self.steps.fill(symptom.next_steps, groups))

    def rest(self) -> Diagnosis:
        """What labkit itself has refused, and what nobody has foreseen."""
        if self.reason and not self.exit_code and "Traceback (most recent call last)" not in self.log:
            steps = [f"{self.steps.run()}  # again, when that is mended"]
            return self.of(
                "refused", "labkit cannot use what it was given, and says why.", last_lines(self.reason), steps
            )
        happened = "Unknown: labkit does not recognise this end. The last lines of the log may say more."
        evidence = dict.fromkeys([*last_lines(self.log), *last_lines(self.reason)])
        steps = [f"{self.steps.doctor}  # is the machine as the run needs it?"]
        return self.of("unknown", happened, evidence, steps)

    def kills(self) -> list[str]:
        """The kernel's counters, where they could be read."""
        counted = {"group": self.host.group, "machine": self.host.machine} if self.host else {}
        where = {"group": "this control group", "machine": "the whole machine"}
        return [
            f"the kernel's count of kills for want of memory rose by {n} during the run ({where[name]})"
            for name, n in counted.items() if n is not None
        ]  # fmt: skip
