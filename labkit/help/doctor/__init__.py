"""Doctor: is this machine ready for a run, and what fixes what is not."""
