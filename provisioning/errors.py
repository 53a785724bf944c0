"""What can go wrong. Each message is one line: the thing, the value, and what to do next."""

import difflib
from collections.abc import Iterable


class ProvisioningError(RuntimeError):
    """Anything that stops a step; nothing was deleted because of it."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback: the one line that says what to do."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(ProvisioningError):
    """A value that cannot be used."""


class CredentialsError(ProvisioningError):
    """The site does not accept the credentials."""


class QuotaError(ProvisioningError):
    """The project has used up what it may have."""


class RuleError(ProvisioningError):
    """A rule of the site does not allow it, now or at all."""


class NoSlotError(ProvisioningError):
    """No node is free at that time."""


class UnknownNameError(ProvisioningError):
    """The site has no image, flavor, node type or network of that name."""


class NoAddressError(ProvisioningError):
    """The site has no public address left."""


class LeaseOverError(ProvisioningError):
    """There is no lease, or it is over."""


class NotOursError(ProvisioningError):
    """Something has our name but not our tag; it is left alone."""


class TooSlowError(ProvisioningError):
    """A wait has reached its bound; running the step again keeps waiting."""


class FailedError(ProvisioningError):
    """The site made something, and it ended in ERROR twice."""


class ServiceError(ProvisioningError):
    """A service refused, for a reason that has no class of its own here."""


class GoneError(ServiceError):
    """The service does not have it, or not any more."""


class UnansweredError(ServiceError):
    """The service is away, or its answer was lost; what was asked for may have been done."""


class SshError(ProvisioningError):
    """The node cannot be logged into."""


class RemoteError(ProvisioningError):
    """A step on the node failed."""


class DriverError(RemoteError):
    """The node's driver does not run torch's CUDA, and an upgrade with a reboot did not help."""


class DiskFullError(RemoteError):
    """A disk of the node is full."""


class LabRunsError(ProvisioningError):
    """A lab runs on the node, and what was asked for would stop it."""


class UncollectedWorkError(ProvisioningError):
    """There is work on the node that was not brought home."""


def known(word: str, names: Iterable[str]) -> str:
    """``'Known: a, b.'`` with the closest first; part of an error's next step."""
    names = sorted(set(names))
    near = difflib.get_close_matches(word, names, n=len(names) or 1, cutoff=0.0)
    return f"Known: {', '.join((near or names)[:8])}." if names else "There is none at all."


AGAIN = " Run this again: it reads what there is."


def refusal(doing: str, code: int | None, text: str) -> ProvisioningError:
    """The named error for what a service answered: its HTTP status and message."""
    text = " ".join(str(text).split())[:300]
    low = text.lower()
    if code == 401 or "could not find default role" in low or "expired" in low and "token" in low:
        return CredentialsError(
            f"{doing}: the site does not accept your credentials ({text}). Log in again, or source a fresh openrc file."
        )
    if "no more ip addresses" in low:
        return NoAddressError(f"{doing}: no public address is left. Release one that is not in use, or ask the site.")
    if code == 413 or "quota" in low or "exceeded for" in low:
        return QuotaError(f"{doing}: over the project's quota ({text}). Delete what is not used, or ask for more.")
    if code == 404:
        return GoneError(f"{doing}: the site does not have it ({text}).{AGAIN}")
    if code is not None and code >= 500:
        return UnansweredError(f"{doing}: refused ({code}: {text}).{AGAIN}")
    return ServiceError(f"{doing}: refused ({code if code else 'no code'}: {text}).")
