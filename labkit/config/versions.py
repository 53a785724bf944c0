"""Versions of the libraries that are there."""

from importlib.metadata import PackageNotFoundError, version


def version_of(name: str) -> str:
    """The version of a distribution, or ``missing``: a run that does not need it runs without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
