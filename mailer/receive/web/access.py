"""Access control for submission over HTTP: requires a user's token, and refuses requests from web pages.

A page can make a browser send requests to any server. So a request must name this server in its Host field
(against DNS rebinding to 127.0.0.1), must not come from a page, and must carry a token, which a browser never
adds by itself; there are no cookies.
"""

import asyncio
import ipaddress
import re
from http import HTTPStatus

from mailer.mail.host_name import is_loopback
from mailer.receive.context import ReceiverContext
from mailer.receive.peers import is_local
from mailer.receive.replies import TOO_MANY_LOGINS
from mailer.receive.settings import Settings
from mailer.receive.users.auth import Identity
from mailer.receive.users.failures import WINDOW, Failures
from mailer.receive.web.exchange import Asked, Problem

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}")
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,512})", re.IGNORECASE)
"""A bearer token (RFC 6750 2.1)."""
_UNKNOWN_USER = "(bearer token)"
"""The user name under which failures are counted and logged, because a token names no user."""


def check(asked: Asked, settings: Settings) -> None:
    """Refuse a request from a web page, for another host, or with ambiguous framing.

    Raises:
        Problem: 400 or 403.
    """
    _check_framing(asked)
    hosts = asked.headers.get("host", ())
    if len(hosts) != 1 or not hosts[0]:
        raise Problem(HTTPStatus.BAD_REQUEST, "one Host field is needed", close=True)
    if not _names_us(hosts[0], asked, settings):
        words = "the Host field names another server; localhost, our hostname and submitHttp.names are ours"
        raise Problem(HTTPStatus.FORBIDDEN, words, close=True)
    if "origin" in asked.headers or asked.header("sec-fetch-site") not in {"", "none"}:
        raise Problem(HTTPStatus.FORBIDDEN, "requests from web pages in a browser are refused", close=True)


def _check_framing(asked: Asked) -> None:
    """Refuse a request whose end a proxy might see elsewhere: request smuggling (RFC 9112 11.2)."""
    lengths, codings = asked.headers.get("content-length", ()), asked.headers.get("transfer-encoding", ())
    clear = not (lengths and codings) and len(lengths) <= 1 and len(codings) <= 1
    clear = clear and all(map(_NUMBER.fullmatch, lengths))
    clear = clear and all(each.lower() == "chunked" and asked.version >= (1, 1) for each in codings)
    if not clear:
        words = "the request's length is not clear: one Content-Length, or Transfer-Encoding: chunked alone"
        raise Problem(HTTPStatus.BAD_REQUEST, words, close=True)
    if not asked.path.startswith("/"):
        raise Problem(HTTPStatus.BAD_REQUEST, "the request's target must be a path", close=True)


def _names_us(host: str, asked: Asked, settings: Settings) -> bool:
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return False
    name = found[1].strip("[]").removesuffix(".")
    # The port may differ, as for a client that connects through a tunnel.
    if name in {settings.hostname.lower(), *(each.lower() for each in settings.http_names)}:
        return True
    if is_local(asked.local_address):
        return is_loopback(name)
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(asked.local_address.partition("%")[0])
    except ValueError:
        return False


async def identify(asked: Asked, context: ReceiverContext, failures: Failures) -> Identity:
    """Return the identity of the request's token; wrong tokens are counted and delayed like failed logins.

    Raises:
        Problem: 401, or 429 for a host that has guessed too often.
    """
    local = is_local(asked.peer)
    if failures.is_blocked(asked.peer, local=local):
        raise Problem.of(TOO_MANY_LOGINS, retry_after=int(WINDOW))
    values = asked.headers.get("authorization", ())
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        raise _unauthorised("a token is needed: Authorization: Bearer TOKEN, from mailer user token NAME")
    assert context.authenticator is not None
    identity = context.authenticator.bearer(found[1])
    if identity is None:
        failures.log(context.store.log, asked.peer, _UNKNOWN_USER)
        await asyncio.sleep(failures.count(asked.peer, _UNKNOWN_USER))
        raise _unauthorised("the token is not valid; mailer user token NAME makes a new one")
    return identity


def _unauthorised(words: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, words, ("WWW-Authenticate", 'Bearer realm="mailer"'))
