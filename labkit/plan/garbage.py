"""Garbage: how often Python looks for cycles in the process of a command, which is over before they add up."""

import atexit
import gc

NEW_OBJECTS = 100_000
"""So many more than were freed, and Python looks through them; its own 700 are reached a thousand times while torch
and transformers load, and each look through all that they have made takes a tenth of a second."""


def collect_seldom() -> None:
    """Look for cycles seldom, and at the end of the process not at all: a quarter of a prediction's time."""
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)  # what is left the system takes back with the process
