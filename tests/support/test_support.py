"""What the tests themselves stand on: the quick selection, waiting, and kernels that are forked."""

from pathlib import Path

import pytest

from support import quick
from support.wait import wait_for

ROOT = Path(__file__).parents[2]


def test_a_quick_test_that_starts_a_process_fails_and_is_named(monkeypatch):
    monkeypatch.setattr(quick, "_running", [])
    quick.refuse("subprocess.Popen", ())  # pytest's own
    quick._running.append("test_it.py::test_it")
    quick.refuse("open", ())
    for event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        with pytest.raises(RuntimeError, match="test_it.py::test_it starts a process: mark it"):
            quick.refuse(event, ())


@pytest.mark.parametrize(
    ("changed", "is_first"),
    [("labkit/plan/cache.py", True), ("tests/plan/test_cache.py", True), ("labkit/plan/predict.py", False),
     ("docs/cache.py", False)],
)  # fmt: skip
def test_tests_of_what_has_changed_come_first(changed, is_first):
    assert quick.first(ROOT / "tests" / "plan" / "test_cache.py", {changed}) is is_first


def test_waiting_ends_with_what_was_found_or_with_what_there_is_instead():
    answers = iter([0, [], "found"])
    assert wait_for(lambda: next(answers)) == "found"
    with pytest.raises(AssertionError, match="nothing but this"):
        wait_for(lambda: False, 0.1, lambda: "nothing but this")


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_a_kernel_is_forked_by_the_shared_server_and_else_a_plain_one(shared, warm_kernels, monkeypatch):
    from jupyter_client.manager import start_new_kernel

    if not shared:
        monkeypatch.delenv("LABKIT_FORK_SERVER")
    printed = []
    code = "import os, sys; print(open(f'/proc/{os.getppid()}/cmdline').read()); print('torch' in sys.modules)"
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(
            code, timeout=60, output_hook=lambda message: printed.append(message["content"].get("text", ""))
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    parent, has_torch = "".join(printed).split("\n")[:2]
    assert ("labkit.runs.serving" in parent, has_torch) == (shared, str(shared))
