"""Plan: what an experiment will need of a GPU, predicted before it is run and without a GPU."""
