"""The errors of data and checkpoints, in a module that imports nothing: the command catches them at no cost."""


class DataError(Exception):
    """The data cannot be used; one line: which file, what is wrong with it, what to do next."""


class CheckpointError(Exception):
    """A checkpoint that cannot be used; one line: which model or file, what is wrong with it, what to do next."""
