"""The clients of a site, logged in through python-chi, and their refusals as named errors."""

import contextlib
import io
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from provisioning.errors import CredentialsError, GoneError, ServiceError, refusal
from provisioning.sites import Site

_context = threading.Lock()
"""python-chi keeps site and session in module variables; one thread at a time may log in."""


@dataclass
class Cloud:
    """Clients of the services of one site, as python-chi makes them."""

    session: Any
    nova: Any
    cinder: Any
    neutron: Any
    glance: Any
    blazar: Any

    @classmethod
    def connect(cls, site: Site) -> "Cloud":
        """Log in to ``site`` with what the environment holds (openrc file, application credential, Jupyter hub)."""
        import chi

        logging.getLogger("neutronclient").setLevel(logging.ERROR)  # else it says at each login that it is deprecated
        with _context:
            chi.reset()  # the environment is the truth, not what an earlier booking set
            _choose(site)
            doing = f"logging in to {site.name}"
            with asking(doing):
                try:
                    session = chi.session()
                    session.get_token()
                except AttributeError:  # what python-chi makes of an environment without credentials
                    raise _no_credentials(site) from None
            return cls(
                session, *(make(session) for make in (chi.nova, chi.cinder, chi.neutron, chi.glance, chi.blazar))
            )


def _choose(site: Site) -> None:
    """Turn python-chi to ``site``, and make sure that it did."""
    import chi

    if chi.get("region_name") == site.name:
        return
    if chi.context._auth_plugin == "v3applicationcredential":
        raise CredentialsError(
            f"your application credential is of {chi.get('region_name') or 'no site'}, and is valid there only. "
            f"Make one at {site.name} and source its openrc file."
        )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        chi.use_site(site.name)
    if chi.get("region_name") != site.name:  # use_site only prints when it cannot read the list of sites
        raise CredentialsError(f"python-chi cannot reach the list of sites. Source the openrc file of {site.name}.")


def _no_credentials(site: Site) -> CredentialsError:
    return CredentialsError(
        f"there are no credentials for {site.name} in the environment. Source its openrc file, or run this on "
        "Chameleon's Jupyter hub."
    )


@contextlib.contextmanager
def asking(doing: str) -> Iterator[None]:
    """Turn what any client raises into one of our errors; ``doing`` says what was tried."""
    import blazarclient.exception
    import cinderclient.exceptions
    import glanceclient.exc
    import keystoneauth1.exceptions
    import neutronclient.common.exceptions
    import novaclient.exceptions

    refusals = (
        blazarclient.exception.BlazarClientException, cinderclient.exceptions.ClientException,
        glanceclient.exc.HTTPException, keystoneauth1.exceptions.HttpError,
        neutronclient.common.exceptions.NeutronClientException, novaclient.exceptions.ClientException,
    )  # fmt: skip
    try:
        yield
    except keystoneauth1.exceptions.ConnectFailure as error:
        text = f"{doing}: no answer ({' '.join(str(error).split())[:200]}). Check the network, then run this again."
        raise CredentialsError(text) if "logging in" in doing else refusal(doing, None, text) from None
    except (keystoneauth1.exceptions.MissingRequiredOptions, keystoneauth1.exceptions.AuthPluginException) as error:
        raise CredentialsError(f"{doing}: {error}. Source the site's openrc file.") from None
    except refusals as error:
        if "logging in" in doing:  # Keystone answers 404 to a token that is over
            raise refusal(doing, 401, str(error)) from None
        raise refusal(doing, _code(error), str(error)) from None


@contextlib.contextmanager
def deleting(what: str, state: Callable[[], str] = lambda: "") -> Iterator[None]:
    """``asking`` for a deletion of what may vanish meanwhile: the site, or somebody else, deletes it too.

    What is gone is gone. Any other refusal counts, unless ``state`` then says that the thing is on its way out.
    """
    try:
        with asking(f"deleting {what}"):
            yield
    except GoneError:
        pass
    except ServiceError:
        if state().lower() not in ("deleting", "gone"):
            raise


def _code(error: Exception) -> int | None:
    kept = getattr(error, "kwargs", {}).get("code")  # Blazar's client keeps the real one there
    for code in (kept, getattr(error, "http_status", None), getattr(error, "status_code", None),
                 getattr(error, "code", None)):  # fmt: skip
        if isinstance(code, int):
            return code
    return None
