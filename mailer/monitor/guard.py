"""Access to the monitor: for programs of this host, and for no other site's page in a browser on it.

A browser sends requests wherever a page tells it to, with the page's own origin beside it. So a request must
name this server as its host (else a name that was rebound to 127.0.0.1 would do), must come from no other
origin, and, when it acts, must present `adminToken` where there is one.
"""

import re
from http import HTTPStatus

from mailer.config.secrets import Secret
from mailer.mail.host_name import is_loopback
from mailer.monitor.exchange import Asked, Refusal

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.ASCII)
_READING = {"GET", "HEAD"}


def check(asked: Asked) -> None:
    """Refuse what comes from elsewhere.

    Raises:
        Refusal: 400 for a request without one clear Host, 403 for one that is not ours to answer.
    """
    if not is_loopback(asked.peer):
        raise Refusal(HTTPStatus.FORBIDDEN, "only this host may ask")
    hosts = asked.headers.get("host", ())
    if len(hosts) != 1 or not hosts[0]:
        raise Refusal(HTTPStatus.BAD_REQUEST, "one Host field is needed")
    if not _names_us(hosts[0]):
        raise Refusal(HTTPStatus.FORBIDDEN, "this host is called localhost here")
    if any(origin != f"http://{hosts[0]}" for origin in asked.headers.get("origin", ())):
        raise Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are not answered")
    if not _same_site(asked):
        raise Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are not answered")


def authorise(asked: Asked, token: Secret) -> None:
    """Demand the token; the comparison takes the same time for every wrong one.

    Raises:
        Refusal: 401.
    """
    if not is_authorised(asked, token):
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "a token is needed: Authorization: Bearer TOKEN, with adminToken or what "
            "`mailer monitor --link` prints",
            ("WWW-Authenticate", 'Bearer realm="mailer"'),
        )


def is_authorised(asked: Asked, token: Secret) -> bool:
    """Tell whether the token is presented; raises SecretError."""
    scheme, _, presented = asked.header("authorization").partition(" ")
    return scheme.lower() == "bearer" and token.matches(presented.strip())


def _names_us(host: str) -> bool:
    found = _HOST.fullmatch(host.lower())
    name = found.group(1).strip("[]") if found else ""
    # The port may be another one: the end of an ssh tunnel.
    return is_loopback(name)


def _same_site(asked: Asked) -> bool:
    """Judge by what browsers say of a request's origin (Fetch Metadata); other programs say nothing.

    Another port of localhost is the `same-site`, and another application's. A link that somebody follows to
    here is let through: it only reads, and the page with the link sees nothing of the answer.
    """
    site = asked.header("sec-fetch-site")
    if site in {"", "none", "same-origin"}:
        return True
    followed = asked.header("sec-fetch-mode") == "navigate" and asked.header("sec-fetch-dest") == "document"
    return followed and asked.method in _READING
