"""Doctor: is this machine ready for a run, and what mends what is not."""
