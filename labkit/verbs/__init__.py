"""What the command does, a module a verb: its help, its arguments, and ``main``, which gives the exit code."""
