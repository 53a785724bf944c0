"""Run a service's program several times and import it once, which takes longer than most of what it then does.

``several.py PROGRAM together|in-turn [ARGUMENTS] [-- ARGUMENTS]...`` ends with the first exit code that is not 0.
"""

import importlib.metadata
import itertools
import os
import sys

program, how, *words = sys.argv[1:]
commands = [list(run) for is_end, run in itertools.groupby(words, "--".__eq__) if not is_end]
sys.argv = [program, *commands[0]]  # some read their options when they are imported
(entry,) = importlib.metadata.entry_points(group="console_scripts", name=program)
main = entry.load()
running = []
for command in commands:
    child = os.fork()
    if not child:
        sys.argv = [program, *command]
        sys.exit(main())
    running.append(child)
    if how == "in-turn" and (code := os.waitstatus_to_exitcode(os.waitpid(running.pop(), 0)[1])):
        sys.exit(code)
for child in running:
    os.waitpid(child, 0)
