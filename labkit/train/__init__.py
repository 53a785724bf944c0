"""Training: models, data, optimizers, the step, and what runs inside the child process."""
