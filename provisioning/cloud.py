"""The clients of a site, logged in through python-chi, and their refusals as named errors."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from provisioning.errors import CredentialsError, GoneError, ServiceError, UnansweredError, refusal
from provisioning.sites import Site
from provisioning.transport import ANSWER_S, Transport

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
    transport: Transport

    @classmethod
    def connect(cls, site: Site, say: Callable[[str], None] = print) -> "Cloud":
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
                    transport = _carry(session.session, say)
                    session.get_token()
                except AttributeError:  # what python-chi makes of an environment without credentials
                    raise _no_credentials(site) from None
                makers = (chi.nova, chi.cinder, chi.neutron, chi.glance, chi.blazar)
                return cls(session, *(make(session) for make in makers), transport)


def _carry(session: Any, say: Callable[[str], None]) -> Transport:
    """Let all requests of a session of keystoneauth go through a transport of ours."""
    transport = Transport(say)
    for scheme in ("http://", "https://"):
        session.session.mount(scheme, transport)
    session.timeout = ANSWER_S
    return transport


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
    # it prints what it does. Its own module alone is silenced: standard output is that of all threads, and a line that
    # another student's thread says meanwhile would be lost
    chi.context.print = lambda *_, **__: None
    try:
        chi.use_site(site.name)
    finally:
        del chi.context.print
    if chi.get("region_name") != site.name:  # use_site only prints when it cannot read the list of sites
        raise CredentialsError(f"python-chi cannot reach the list of sites. Source the openrc file of {site.name}.")


def _no_credentials(site: Site) -> CredentialsError:
    return CredentialsError(
        f"there are no credentials for {site.name} in the environment. Source its openrc file, or run this on "
        "Chameleon's Jupyter hub."
    )


@contextlib.contextmanager
def asking(doing: str) -> Iterator[None]:
    """Turn what any client raises into one of our errors; ``doing`` says what was tried.

    ``UnansweredError`` when it is unknown whether the service did it.
    """
    import blazarclient.exception
    import cinderclient.exceptions
    import glanceclient.exc
    import keystoneauth1.exceptions
    import neutronclient.common.exceptions
    import novaclient.exceptions
    import requests

    silent = (
        keystoneauth1.exceptions.ConnectionError, glanceclient.exc.CommunicationError,
        neutronclient.common.exceptions.ConnectionFailed, requests.RequestException,
    )  # fmt: skip
    refusals = (
        blazarclient.exception.BlazarClientException, cinderclient.exceptions.ClientException,
        glanceclient.exc.ClientException, glanceclient.exc.BaseException, glanceclient.exc.EndpointNotFound,
        keystoneauth1.exceptions.ClientException, neutronclient.common.exceptions.NeutronException,
        novaclient.exceptions.ClientException,
    )  # fmt: skip
    try:
        yield
    except silent as error:
        text = f"{doing}: no answer ({' '.join(str(error).split())[:200]}). Check the network, then run this again."
        raise CredentialsError(text) if "logging in" in doing else UnansweredError(text) from None
    except (keystoneauth1.exceptions.MissingRequiredOptions, keystoneauth1.exceptions.AuthPluginException) as error:
        raise CredentialsError(f"{doing}: {error}. Source the site's openrc file.") from None
    except keystoneauth1.exceptions.CatalogException as error:
        raise ServiceError(
            f"{doing}: the site's catalogue does not have that service ({error}). Is the openrc file that site's?"
        ) from None
    except refusals as error:
        code = _code(error)
        if "logging in" in doing and code is not None and code < 500:  # Keystone answers 404 to a token that is over
            code = 401
        raise refusal(doing, code, str(error)) from None


@contextlib.contextmanager
def deleting(what: str, state: Callable[[], str] = lambda: "") -> Iterator[None]:
    """``asking`` for a deletion of a thing that may vanish in between: the site or another process deletes it too.

    A thing that is gone is no error. Any other refusal is, unless ``state`` then says that the thing is being deleted.
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
