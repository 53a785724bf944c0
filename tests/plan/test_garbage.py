"""How often Python looks for cycles in the process of a command."""

import gc
import subprocess
import sys

import pytest

from labkit.cli import main
from labkit.plan.garbage import NEW_OBJECTS

IN_A_PROCESS = """
import atexit, gc, sys
from labkit.cli import main
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count(), file=sys.stderr))
main()
"""


@pytest.mark.slow
def test_the_process_of_a_command_looks_seldom_and_not_when_it_ends():
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, "configs"], capture_output=True, text=True, check=True)
    every, left_out = map(int, done.stderr.split())
    assert every == NEW_OBJECTS
    assert left_out > 10_000


def test_the_process_of_another_program_is_left_as_it_is(capsys):
    before = gc.get_threshold()
    assert main(["configs"]) == 0
    assert gc.get_threshold() == before
