"""Command lines that a page shows: whether the command takes them, by its own parser and without carrying them out."""

import re
from pathlib import Path

from labkit.cli import TAKE_VALUES, command_line
from labkit.config.catalogue.models import ARCHITECTURES
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.verbs import diagnose
from labkit.verbs.options import find_machines, pairs
from labkit.verbs.parser import as_options

OF_A_READER = re.compile(r"\d{8}-\d{4}|\d{3,}")
"""Ids of runs and jobs, which each reader has others of."""


def taken_by_labkit(words: list[str]) -> bool:
    """Whether ``labkit`` takes these words; what it refuses raises or exits.

    Experiments, keys, values, profiles, GPUs and models must be there. Files and ids are the reader's own.
    """
    try:
        args = command_line().parse_args(as_options(words))
    except SystemExit as end:
        if end.code:
            raise
        return True  # of --help and --version
    find_machines(args)
    workspace = Workspace.find()
    machine = getattr(args, "gpu", None) or getattr(args, "profile", None) or "tiny"
    load_profile(workspace, machine)
    if args.verb.__name__.endswith("profiles") and args.name not in (None, "make"):
        load_profile(workspace, args.name)
    experiment = getattr(args, "experiment", None) or getattr(args, "run", None)
    typed = getattr(args, "overrides", [])
    if getattr(args, "all", False):
        experiment, typed = "baseline", [*([experiment] if experiment else []), *typed]
    if args.verb is diagnose and Path(experiment).suffix:
        return True
    if experiment is not None and not OF_A_READER.fullmatch(experiment):
        resolve(workspace, experiment, pairs(typed) if args.verb in TAKE_VALUES else {}, machine)
    return getattr(args, "model", None) in (None, *ARCHITECTURES)
