"""Diagnose: why a run died, the evidence for it, and what to do."""

import signal

from labkit.help.diagnosis.case import Case
from labkit.help.diagnosis.log_text import last_lines
from labkit.help.diagnosis.symptoms import SYMPTOMS
from labkit.ledger.parts import Diagnosis
from labkit.ledger.records import Record
from labkit.memory.host import OomKills

GPU_MEMORY = ("gpu_other_process", "gpu_fragmented", "gpu_larger_than_gpu", "gpu_full", "simulated_gpu_full")
"""Kinds that are about a GPU's memory, for which ``labkit advise`` has proposals."""


def diagnose(record: Record, log: str, host: OomKills | None = None) -> Diagnosis | None:
    """Why the run of ``record`` did not end well; None where it did, was skipped, or still runs.

    ``log`` is what it printed, or the end of that. ``host``, from two readings of ``HostMemory``, tells whether the
    kernel has killed for lack of memory in between. A run that ended ``ok`` with a loss that is not a number is
    diagnosed too. Never raises for what is in a log.
    """
    if record.status in ("skipped", "running"):
        return None
    case = Case(record, log, host)
    if record.status == "ok":
        return case.nan_loss(record) if None in record.losses else None
    if record.status == "oom":
        return case.gpu_memory(record)
    if record.status == "timeout" and record.exit_code != 124:
        return case.timeout(record)
    reason = record.reason or ""
    if record.exit_code in (130, -signal.SIGINT) or (record.status == "killed" and "Ctrl-C" in reason):
        return case.of("interrupted", "Somebody stopped the run with Ctrl-C.", last_lines(reason), case.steps.again())
    if record.status == "killed" and "a stop was requested" in reason:  # as the runner says it
        happened = "Somebody requested a stop of the run, as with the button of its panel."
        return case.of("interrupted", happened, last_lines(reason), case.steps.again())
    if record.status == "killed" and "watche" in reason:  # as the runner and the ledger say it
        happened = "The process that watched the run (the command, or the notebook's kernel) ended first, and the run "
        return case.of("watcher_killed", happened + "with it.", last_lines(reason), case.steps.again())
    if record.exit_code in (137, -signal.SIGKILL):
        return case.killed()
    return case.from_text() or case.from_exit_code() or case.rest()


def with_cause(found: Diagnosis, reason: str) -> str:
    """``reason``, which is a run's last error, after the line of its log that is the cause, where that is another."""
    kinds = {symptom.kind for symptom in SYMPTOMS}
    line = found.evidence[0].strip().removeprefix("... ").removesuffix(" ...")  # where it was cut to be shown
    if found.kind not in kinds or line.startswith("exit code") or line in reason or _bare(line) in reason:
        return reason
    return f"{line} (last error: {reason})" if reason else line


def _bare(line: str) -> str:
    """A line without the class of its exception, as records have it."""
    return line.partition(": ")[2] or line


def diagnose_log(log: str) -> Diagnosis:
    """Why a run died of which there is a log and nothing else, be it labkit's or another program's."""
    case = Case(None, log, None)
    return case.from_text() or case.rest()
