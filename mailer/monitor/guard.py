"""Access control of the monitor: allow programs on this host, but not web pages of other sites.

A browser sends requests to any host that a page names, with the page's origin. Therefore a request must have
this server as its Host (which prevents DNS rebinding to 127.0.0.1), must not come from another origin, and
must present the token if its route requires it.
"""

import re
from http import HTTPStatus

from mailer.config.secrets import Secret
from mailer.mail.host_name import is_loopback
from mailer.monitor.exchange import Asked, Refusal

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.ASCII)
_READING = {"GET", "HEAD"}


def check(asked: Asked) -> None:
    """Refuse requests from other hosts and other origins.

    Raises:
        Refusal: 400 without exactly one Host field; 403 for a foreign peer, Host or origin.
    """
    if not is_loopback(asked.peer):
        raise Refusal(HTTPStatus.FORBIDDEN, "only clients on this host are allowed")
    hosts = asked.headers.get("host", ())
    if len(hosts) != 1 or not hosts[0]:
        raise Refusal(HTTPStatus.BAD_REQUEST, "one Host field is needed")
    if not _names_us(hosts[0]):
        raise Refusal(HTTPStatus.FORBIDDEN, "the Host field must be localhost or a loopback address")
    if any(origin != f"http://{hosts[0]}" for origin in asked.headers.get("origin", ())):
        raise Refusal(HTTPStatus.FORBIDDEN, "requests from other sites are refused")
    if not _same_site(asked):
        raise Refusal(HTTPStatus.FORBIDDEN, "requests from other sites are refused")


def authorise(asked: Asked, token: Secret) -> None:
    """Require the token, which is compared in constant time.

    Raises:
        Refusal: 401 if the token is missing or wrong.
    """
    if not is_authorised(asked, token):
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "a token is needed: Authorization: Bearer TOKEN, with adminToken or what "
            "`mailer monitor --link` prints",
            ("WWW-Authenticate", 'Bearer realm="mailer"'),
        )


def is_authorised(asked: Asked, token: Secret) -> bool:
    """Return whether the request presents the token; raises SecretError."""
    scheme, _, presented = asked.header("authorization").partition(" ")
    return scheme.lower() == "bearer" and token.matches(presented.strip())


def _names_us(host: str) -> bool:
    found = _HOST.fullmatch(host.lower())
    name = found.group(1).strip("[]") if found else ""
    # The port is not compared: it may be that of an ssh tunnel.
    return is_loopback(name)


def _same_site(asked: Asked) -> bool:
    """Check the origin by Fetch Metadata, which browsers send and other programs do not.

    `same-site` is not enough, since it includes other applications on other ports of localhost. Following a
    link to the monitor is allowed: it only reads, and the page with the link cannot see the answer.
    """
    site = asked.header("sec-fetch-site")
    if site in {"", "none", "same-origin"}:
        return True
    followed = asked.header("sec-fetch-mode") == "navigate" and asked.header("sec-fetch-dest") == "document"
    return followed and asked.method in _READING
