"""The course's interface in a notebook: ``Lab`` predicts, runs, shows, asks and checks."""

from labkit.lab.lab import Lab

__all__ = ["Lab"]
