"""Jobs in the queue, with commands that answer as Slurm's do; the real ones are in tests/system/test_slurm.py."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from labkit.cluster import queue
from labkit.cluster.queue import SlurmError, follow, look, run_of, submit
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.runs.runner import run

SHOWN = "JobId=7 JobName=x JobState={state} Reason={reason} StdIn=/dev/null StdOut={output} TresPerNode=gres:gpu:2"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands by name and body, the only ones on the PATH."""

    def install(**bodies: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/bash\n{body}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if bodies else str(folder))
        monkeypatch.setattr(queue, "POLL_S", 0.01)
        return tmp_path

    return install


def test_a_machine_without_slurm_is_told(slurm):
    slurm()
    with pytest.raises(SlurmError, match="no sbatch here.*login node"):
        submit(Path("x.sbatch"))


@pytest.mark.slow
def test_the_job_id_is_read_with_a_cluster_after_it(slurm):
    slurm(sbatch="echo '7;north'")
    assert submit(Path("x.sbatch")) == "7"


@pytest.mark.slow
def test_what_sbatch_says_against_a_script_is_the_error(slurm):
    slurm(sbatch="echo 'sbatch: error: first' >&2; echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(SlurmError, match="^sbatch: Invalid account$"):
        submit(Path("x.sbatch"))


@pytest.mark.slow
def test_a_controller_that_does_not_answer_is_no_reason_to_wait_for_ever(slurm, monkeypatch):
    monkeypatch.setattr(queue, "COMMAND_S", 0.2)
    slurm(sbatch="exec sleep 5")
    with pytest.raises(SlurmError, match="has not answered for 0.2 s"):
        submit(Path("x.sbatch"))
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    slurm(scontrol=away)
    with pytest.raises(SlurmError, match="Unable to contact"):  # at once
        follow("7", print)


@pytest.mark.slow
def test_a_controller_that_is_away_for_a_while_is_waited_for(slurm, monkeypatch, tmp_path):
    monkeypatch.setattr(queue, "COMMAND_S", 5)
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    count = tmp_path / "count"
    shown = SHOWN.format(state="$S", reason="None", output="/nowhere")
    counted = f"n=$(cat {count} 2> /dev/null || echo 0); echo $((n + 1)) > {count}"
    slurm(scontrol=f'{counted}\ncase $n in 0) S=RUNNING;; 1|2) {away};; *) S=COMPLETED;; esac; echo "{shown}"')
    assert follow("7", lambda line: None).state == "COMPLETED"
    count.unlink()
    monkeypatch.setattr(queue, "LOST_S", 0.1)
    slurm(scontrol=f'{counted}\ncase $n in 0) S=RUNNING;; *) {away};; esac; echo "{shown}"')
    with pytest.raises(SlurmError, match="Unable to contact"):
        follow("7", lambda line: None)


@pytest.mark.slow
def test_a_job_is_looked_at(slurm):
    slurm(scontrol=f"echo '{SHOWN.format(state='PENDING', reason='Resources', output='/a b/x-7.out')}'")
    found = look("7")
    assert (found.state, found.reason, found.output, found.is_over) == (
        "PENDING",
        "Resources",
        Path("/a b/x-7.out"),
        False,
    )


@pytest.mark.slow
def test_a_job_is_followed_with_what_it_prints_through_a_second_start(slurm, tmp_path):
    output = tmp_path / "x.out"
    states = ["PENDING", "RUNNING", "REQUEUED", "RUNNING", "RUNNING", "COMPLETED"]
    count = tmp_path / "count"
    cases = " ".join(
        f"{i}) printf 'line {i}\\nhalf' >> {output}; S={state};;" if state == "RUNNING" else f"{i}) S={state};;"
        for i, state in enumerate(states)
    )
    shown = SHOWN.format(state="$S", reason="None", output=output)
    slurm(scontrol=f"n=$(cat {count} 2> /dev/null || echo 0); echo $((n + 1)) > {count}\ncase $n in {cases} esac\n"
          f'echo "{shown}"')  # fmt: skip
    said: list[str] = []
    assert follow("7", said.append).state == "COMPLETED"
    assert said == ["job 7: pending", "  line 1", "job 7: running", "job 7: requeued", "  halfline 3", "job 7: running",
                    "  halfline 4", "job 7: completed"]  # fmt: skip


@pytest.mark.slow
def test_a_job_that_slurm_forgets_while_it_is_followed_is_over(slurm, tmp_path):
    shown = SHOWN.format(state="RUNNING", reason="None", output="/nowhere")
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    slurm(scontrol=f"[ -e {tmp_path}/seen ] && {{ {gone}; }}\ntouch {tmp_path}/seen; echo '{shown}'")
    assert follow("7", lambda line: None).state == "GONE"


@pytest.mark.slow
def test_a_job_that_never_was_is_an_error(slurm):
    slurm(scontrol="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    with pytest.raises(SlurmError, match="Slurm knows no job 7"):
        follow("7", print)


@pytest.mark.slow
def test_the_run_of_a_job_is_found_by_its_record(ledger, monkeypatch):
    with pytest.raises(LedgerError, match="no run of job 7"):
        run_of("7", ledger)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    record = run("reduced_batch", {"max_steps": 1})
    monkeypatch.delenv("SLURM_JOB_ID")
    assert (record.job, run_of("7", ledger).path.name) == ("7", record.id)
    damaged = ledger.root / "tiny" / "reduced_batch" / "29991231-000000-x"
    damaged.mkdir()
    assert run_of("7", Ledger(ledger.root)).path.name == record.id
    assert replace(record, job=None) != record
