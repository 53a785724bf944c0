"""Plan: what an experiment will do to a GPU, said before it is run and without one."""
