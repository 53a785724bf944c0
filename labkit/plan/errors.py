"""Errors of planning."""


class PredictionError(Exception):
    """A run that cannot be predicted; one line: which key or operation, its value, and what to do next."""
