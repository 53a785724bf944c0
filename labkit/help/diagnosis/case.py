"""A case: one dead run, or the log of a program that died, and the diagnosis for each kind of end."""

import re
import signal
from collections.abc import Iterable

import msgspec

from labkit.config.device import is_simulated
from labkit.help.diagnosis.cuda_message import NOTICED, CudaMessage, read_cuda_message, tried_bytes
from labkit.help.diagnosis.log_text import around, clean, last_lines
from labkit.help.diagnosis.next_steps import NextSteps, filled
from labkit.help.diagnosis.out_of_memory import held_lines, levers_for, place, ran_out, said_of_full
from labkit.help.diagnosis.place import Place, place_of
from labkit.help.diagnosis.sequence import End, find_end, went_well
from labkit.help.diagnosis.symptoms import SYMPTOMS
from labkit.help.diagnosis.symptoms.symptom import Symptom
from labkit.ledger.parts import Diagnosis
from labkit.ledger.records import Record
from labkit.memory.host import OomKills
from labkit.memory.units import human_bytes

_WHO_HOLDS = {"HIP": "rocm-smi", "XPU": "xpu-smi ps", "NPU": "npu-smi info", "MPS": "top -o mem"}
"""What lists the processes on a GPU that is not NVIDIA's."""

_BY_KERNEL = ("host_out_of_memory", "loader_worker")


class Case:
    """One dead run: its texts, and the commands that name it."""

    def __init__(self, record: Record | None, log: str, host: OomKills | None) -> None:
        self.record, self.host = record, host
        self.log, self.reason = clean(log), clean((record.reason if record else None) or "")
        self.text = f"{self.log}\n{self.reason}"
        self.exit_code = record.exit_code if record else None
        self.steps = NextSteps(record, self.text)

    def of(self, kind: str, happened: str, evidence: Iterable[str], steps: list[str]) -> Diagnosis:
        """A diagnosis; where nothing is to be seen, it says so."""
        shown = list(evidence) or ["nothing was printed"]
        return Diagnosis(kind=kind, happened=happened, evidence=shown, next_steps=steps)

    # -- by what the record says

    def gpu_memory(self, record: Record) -> Diagnosis:
        """The GPU's memory, real or simulated."""
        if (message := read_cuda_message(self.text)) is not None:
            return self.cuda(message, place_of(self.text, len(self.log)))
        oom = record.out_of_memory
        simulated = is_simulated(record.config.get("device"))
        kind, name = ("simulated_gpu_full", "simulated GPU") if simulated else ("gpu_full", "GPU")
        happened = f"The {name}'s memory ran out in {place(record.died_in)}."
        if oom and oom.requested_bytes is not None and oom.capacity_bytes:
            asked, capacity = human_bytes(oom.requested_bytes), human_bytes(oom.capacity_bytes)
            free = human_bytes(max(0, oom.capacity_bytes - oom.allocated_bytes))
            happened += f" {asked} more were asked for, and {free} of {capacity} were free."
        return self.of(kind, happened, held_lines(record) or last_lines(self.reason), self.steps.fit())

    def cuda(self, message: CudaMessage, where: Place) -> Diagnosis:
        """CUDA's message: who holds the memory and where the program was decide what to do."""
        asked, kind = human_bytes(message.tried_bytes), f"gpu_{message.finding}"
        if where.phase == "saving" and message.finding == "fragmented":
            kind = "gpu_full"  # a whole state dict is gathered: holes are not what is missing
        steps = self.fit(where, message)
        if message.finding == "other_process":
            large = NOTICED * message.capacity_bytes
            pids = [str(pid) for pid, held in message.others.items() if held > large] or ["PID"]
            who = f" (process {', '.join(pids)})" if pids != ["PID"] else ""
            happened = (
                f"Somebody else{who} holds {human_bytes(message.others_bytes)} of the GPU. Without that the {asked} "
            )
            happened += "that were asked for would have been there."
            steps = [
                "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv  # who holds the GPU",
                f"ps -o pid,user,etime,cmd -p {','.join(pids)}  # whose it is; look outside of a container",
                f"kill {' '.join(pids)}  # end what is yours: an old run, a server, an open notebook",
                f"{self.steps.run()}  # again, on a GPU of its own" if self.steps.is_ours else
                "export CUDA_VISIBLE_DEVICES=...  # or take another GPU, one that is free",
            ]  # fmt: skip
        elif message.finding == "fragmented" and where.phase != "saving":
            happened = f"The memory is there, but in pieces: {asked} more were asked for, and of what PyTorch has "
            happened += (
                f"reserved {human_bytes(message.unallocated_bytes)} lie in holes, each too small. {ran_out(where)}"
            )
            why = "segments that grow leave no such holes"
            command = self.steps.run() if self.steps.is_ours else "python ..."
            steps = [f"{message.setting}=expandable_segments:True {command}  # {why}", *steps]
        else:
            happened = said_of_full(message, where, self.text)
            if message.allowed_bytes is not None:
                happened += f" The run may use {human_bytes(message.allowed_bytes)} (capacity_gib)."
        at = [f"at                         {where.frame}"] if where.frame else []
        return self.of(kind, happened.strip(), [*message.lines(), *at, *held_lines(self.record)], steps)

    def fit(self, where: Place, message: CudaMessage | None, *, batch: bool = True) -> list[str]:
        """What makes less of what ran out: labkit's own proposals, or the levers of the program at that place."""
        if message is not None and message.finding == "blocked":
            return [
                "nvidia-smi  # which GPU is free, who else is on it, and whether it is shared (MPS, vGPU, MIG)",
                "python -c 'import torch; print(torch.ones(1).cuda(), torch.cuda.mem_get_info())'  # does this fail "
                "too?",
                "ulimit -l -v  # limits on locked and on virtual memory",
            ]
        if self.record is not None:
            return self.steps.fit()
        larger = message is not None and message.finding == "larger_than_gpu"
        odd = [
            "print the shapes and lengths of the batch at that line  # one of them is wrong, or far too long"
        ] * larger
        if larger and not self.steps.is_ours:
            return [*odd, self.steps.levers["sequence"]]
        if self.steps.is_ours and message is not None:
            return [
                *odd,
                f"labkit advise EXPERIMENT --gpu {message.capacity_bytes / 2**30:.2f}GiB  # what would fit there",
            ]
        if self.steps.is_ours:
            return [*odd, *self.steps.fit()]
        return [*odd, *levers_for(where, message, self.steps.levers, batch=batch)]

    def timeout(self, record: Record) -> Diagnosis:
        """The time that the run was given."""
        wall_s, done = record.wall_seconds, len(record.losses)
        steps = [f"{self.steps.run()} --timeout-s {max(60, round(3 * wall_s))}  # more time"]
        if not done:
            steps.append(f"{self.steps.doctor}  # no step was done: does it hang, or load for long?")
        evidence = [*last_lines(self.reason), f"{done} optimizer steps were done in {wall_s:.0f} s"]
        happened = "The run had not ended when its time was up, and was stopped."
        return self.of("timeout", happened, [*evidence, *last_lines(self.log, 3)], [*steps, *self.steps.again()])

    def killed(self) -> Diagnosis:
        """Exit code -9: killed by the kernel for lack of memory, or by another process."""
        evidence = [f"exit code {self.exit_code} (SIGKILL)", *self.kills(), *last_lines(self.log, 3)]
        counted = (self.host.group, self.host.machine) if self.host else (None, None)
        if any(counted):
            happened = "The kernel killed the run: the host's memory (not the GPU's) was used up. Its counter confirms "
            return self.of("host_out_of_memory", f"{happened}it.", evidence, self.steps.host())
        if counted[1] == 0:
            happened = "Somebody killed the run: kill -9, a scheduler, or a container that was stopped. It was not the "
            happened += "kernel for lack of memory, whose counter has not moved."
            return self.of("killed", happened, evidence, self.steps.again())
        happened = "The run was killed, likely by the kernel since the host's memory (not the GPU's) was used up. No "
        happened += "counter could be read that would confirm it."
        return self.of("host_out_of_memory", happened, evidence, self.steps.host())

    def nan_loss(self, record: Record) -> Diagnosis:
        """A loss that is not a number."""
        losses, first = record.losses, record.losses.index(None)
        before = f"; the step before it had {losses[first - 1]:.3f}" if first else ""
        config = record.config
        evidence = [
            f"first at optimizer step {first} of {len(losses)} (counted from 0){before}",
            f"{losses.count(None)} of {len(losses)} losses are not a finite number",
            ", ".join(f"{key}={config.get(key)}" for key in ("lr", "warmup_steps", "precision", "optim")),
        ]
        happened = "The loss became NaN or infinite. The run continued, but what it trained from there on is of no use."
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
        """What the log, read as a sequence, says ended the program."""
        end = find_end(self.text)
        if end is None:
            return None
        found = self.out_of_memory(end) if end.event.symptom.kind == "gpu_memory" else self.by(
            end.event.symptom, end.matches, place_of(self.text, end.event.match.start())
        )  # fmt: skip
        shown = [f"beside it: {line}" for e in end.beside[:2] for line in around(self.text, e.match)[-1:]]
        shown += [
            f"before that, and survived: {line}" for e in end.survived[-1:] for line in around(self.text, e.match)[:1]
        ]
        return msgspec.structs.replace(found, evidence=[*found.evidence, *shown])

    def out_of_memory(self, end: End) -> Diagnosis:
        """PyTorch's own message, with all of its numbers or without."""
        match = end.event.match
        where = place_of(self.text, match.start())
        if (message := read_cuda_message(self.text[match.start() : match.start() + 6000])) is not None:
            return self.cuda(message, where)
        # the numbers may stand in another rank's copy of the message
        if (message := read_cuda_message(self.text)) is not None and len(end.matches) > 1:
            return self.cuda(message, where)
        asked = tried_bytes(self.text[match.start() : match.start() + 400])
        happened = "The GPU ran out of memory"
        happened += f" when {human_bytes(asked)} were asked for" if asked is not None else ""
        happened += "; the message does not have all of its numbers."
        if where.phase or where.part:
            happened += f" That was {where.words}."
        tool = next(
            (tool for name, tool in _WHO_HOLDS.items() if name in " ".join(around(self.text, match))), "nvidia-smi"
        )
        steps = [f"{tool}  # whether somebody else holds the GPU", *self.fit(where, None)]
        return self.of("gpu_full", happened, around(self.text, match), steps)

    def by(self, symptom: Symptom, found: list[re.Match[str]], where: Place | None = None) -> Diagnosis:
        """A symptom, with the last lines that show it."""
        groups = {name: value for match in found for name, value in match.groupdict().items() if value}
        quoted = dict.fromkeys(line for match in found[-3:] for line in around(self.text, match))
        evidence = [*quoted, *([] if self.exit_code is None else [f"exit code {self.exit_code}"])]
        evidence += self.kills() if symptom.kind in _BY_KERNEL else []
        happened = filled(symptom.happened, groups)
        steps: list[str] = []
        for template in symptom.next_steps:
            if template in ("{fit}", "{fit:no-batch}"):
                place = where or Place()
                steps += self.fit(place, None, batch=template == "{fit}")
            else:
                steps += self.steps.fill([template], groups)
        return self.of(symptom.kind, happened, evidence, steps)

    def rest(self) -> Diagnosis:
        """What labkit itself has refused, and ends that no symptom fits."""
        if self.reason and not self.exit_code and "Traceback (most recent call last)" not in self.log:
            steps = [f"{self.steps.run()}  # again, when that is fixed"]
            return self.of(
                "refused", "labkit cannot use what it was given, and says why.", last_lines(self.reason), steps
            )
        if self.record is None and went_well(self.text):
            happened = (
                "Nothing here says that the program failed: it ended well, or its log stops while it was at work."
            )
            steps = [
                "echo $?  # right after the program: its exit code; under Slurm: sacct -j JOB --format=State,ExitCode"
            ]
            return self.of("no_failure", happened, last_lines(self.log, 3), steps)
        happened = "Unknown: labkit does not recognise this end. The last lines of the log may say more."
        evidence = dict.fromkeys([*last_lines(self.log), *last_lines(self.reason)])
        steps = [
            f"{self.steps.doctor}  # is the machine as the run needs it?" if self.steps.is_ours else
            "search for the last line, without paths and numbers of your own, in the library's issues"
        ]  # fmt: skip
        return self.of("unknown", happened, evidence, steps)

    def kills(self) -> list[str]:
        """The kernel's counters, where they could be read."""
        counted = {"group": self.host.group, "machine": self.host.machine} if self.host else {}
        where = {"group": "this control group", "machine": "the whole machine"}
        return [
            f"the kernel's count of kills for lack of memory rose by {n} during the run ({where[name]})"
            for name, n in counted.items() if n is not None
        ]  # fmt: skip
