"""A run that is interrupted in a notebook: the kernel lives, the run is recorded, and nothing is left running."""

import pytest
from support.wait import wait_for

from labkit.ledger.ledger import Ledger
from labkit.runs.processes import processes_of

LONG = """
import signal
from labkit import run
# a shell that starts the tests in the background lets them ignore Ctrl-C, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
run("reduced_batch", {"max_epochs": 200, "report_every": 999})
"""
NEXT = 'print(run("reduced_batch", {"max_steps": 1, "num_train_samples": 32}).status)'


@pytest.mark.slow
def test_an_interrupted_cell_stops_the_run_and_the_kernel_runs_on(tmp_path, monkeypatch):
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    ledger = Ledger(tmp_path)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        # The kernel aborts what is asked in the moment after an error, as "Run all cells" needs it. A student asks
        # seconds later, this test at once: so it asks the kernel not to.
        asked = client.execute(LONG, stop_on_error=False)
        wait_for(lambda: any("progress" in f.events.read_text() for f in ledger.folders() if f.events.exists()))
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=120)
        while reply["parent_header"].get("msg_id") != asked:  # of a busy machine: who the kernel is, once more
            reply = client.get_shell_msg(timeout=120)
        assert reply["content"].get("ename") == "KeyboardInterrupt", reply["content"]
        (folder,) = ledger.folders()
        record = folder.read()
        assert (record.status, record.diagnosis.kind) == ("killed", "interrupted")
        assert not folder.is_watched  # no process of the run holds its lock
        assert processes_of(folder.path) == []
        printed = []
        reply = client.execute_interactive(
            NEXT, timeout=120, output_hook=lambda message: printed.append(message["content"].get("text", ""))
        )
        assert reply["content"]["status"] == "ok"
        assert "ok" in "".join(printed)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
