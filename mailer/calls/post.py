"""The HTTP client for everything but mail: one POST request, with limits on time and size, and no redirects.

Mail is streamed by `send/http/exchange`. This module imports aiohttp only when a request is made.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mailer.ground.shortage import SHORTAGES
from mailer.mail.reply import printable

if TYPE_CHECKING:
    from aiohttp import BasicAuth

JSON = "application/json"
_MAX_RESPONSE = 256 * 1024
"""Bytes of a response; an access token that lists many groups has some ten thousand."""


class CallError(OSError):
    """A call failed without a usable response. The text never contains the URL, which may be a secret."""

    def __init__(self, text: str, *, local: bool = False) -> None:
        """Args: local: the cause is on this host, such as a lack of descriptors."""
        super().__init__(text)
        self.local = local


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response, of any status."""

    status: int
    headers: Mapping[str, str]
    """Header fields, by name without regard to case."""
    body: bytes

    def __repr__(self) -> str:
        return f"Response(status={self.status})"

    @property
    def taken(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def redirects_to(self) -> str:
        """The host named by a redirect, which is never followed; empty: the response is not a redirect."""
        if not HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST:
            return ""
        try:
            host = urlsplit(self.headers.get("Location", "")).netloc
        except ValueError:
            host = ""
        return printable(host, 255) or "another address"


async def post(
    url: str,
    data: bytes | Mapping[str, str],
    *,
    timeout: float,  # noqa: ASYNC109 - passed to aiohttp, for the whole exchange
    headers: Mapping[str, str],
) -> Response:
    """Send bytes, or a form, and return the response.

    The server's certificate is verified. The proxy of HTTPS_PROXY is used, except for hosts in NO_PROXY and
    for `http` URLs. Redirects are not followed, because the data may be secret.

    Args:
        url: the URL; the caller must have checked the host if its scheme is `http`.
        data: the body, or the fields of a form.
        timeout: seconds for the whole exchange.
        headers: header fields in addition to those that HTTP needs.

    Raises:
        TimeoutError: the exchange took too long.
        CallError: there is no response.
    """
    from aiohttp import ClientError, ClientSession, ClientTimeout  # noqa: PLC0415 - takes 0.2 s, for few runs

    try:
        proxy, login = proxied(url)
        async with (
            ClientSession(timeout=ClientTimeout(total=timeout)) as session,
            session.post(
                url,
                data=data if isinstance(data, bytes) else dict(data),
                headers=headers,
                allow_redirects=False,
                ssl=ssl.create_default_context(),
                proxy=proxy,
                proxy_auth=login,
            ) as response,
        ):
            return Response(response.status, response.headers.copy(), await _bounded(response.content))
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} seconds") from None  # aiohttp's text has the URL
    except CallError:
        raise
    except (ClientError, OSError, ValueError) as error:
        raise CallError(words_of(error), local=is_local(error)) from None
    finally:
        await asyncio.sleep(0)  # aiohttp closes its connection in the next iteration of the event loop


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment sets for a URL; None: connect directly."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - slow to import, as aiohttp is

    parts, proxies = urlsplit(url), getproxies()
    if parts.scheme != "https" or proxy_bypass(parts.netloc, proxies):
        return None
    return proxies.get("https")


def proxied(url: str) -> "tuple[str | None, BasicAuth | None]":
    """Return the proxy for a URL without its login, and the login; raises ValueError.

    aiohttp's `trust_env` is not used, because it would also send the login that ~/.netrc has for the host.
    """
    from aiohttp import BasicAuth  # noqa: PLC0415 - as above

    proxy = proxy_for(url)
    if proxy is None:
        return None, None
    parts = urlsplit(proxy)
    login = BasicAuth(unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), login


async def _bounded(content: Any) -> bytes:  # noqa: ANN401 - aiohttp's reader
    data = b""
    async for piece in content.iter_chunked(16 * 1024):
        data += piece
        if len(data) > _MAX_RESPONSE:
            raise CallError(f"its answer is larger than {_MAX_RESPONSE // 1024} KiB")
    return data


def is_local(error: Exception) -> bool:
    """Return whether a call failed because this host lacks something."""
    return getattr(_wrapped(error), "errno", None) in SHORTAGES


def _wrapped(error: Exception) -> Any:  # noqa: ANN401 - any error
    """Return the system's error that aiohttp wraps; any other one as it is."""
    return getattr(error, "os_error", None) or error


def words_of(error: Exception) -> str:
    """Return the reason why there was no response, if possible in the system's words, which aiohttp wraps."""
    wrapped = _wrapped(error)
    certificate = getattr(error, "certificate_error", None) or wrapped
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return printable(f"its certificate is not trusted: {certificate.verify_message}", 300)
    if ours := _in_our_words(error):
        return ours
    number = getattr(wrapped, "errno", None)
    if isinstance(number, int) and number > 0:  # those of getaddrinfo are negative
        return os.strerror(number)
    text = getattr(wrapped, "strerror", None) or str(wrapped) or type(wrapped).__name__
    return printable(str(text), 300)


def _in_our_words(error: Exception) -> str:
    """Return our own text for an error whose text in aiohttp may contain a secret: the URL or the response.

    It is empty for other errors.
    """
    from aiohttp import (  # noqa: PLC0415 - as above
        ClientHttpProxyError,
        ClientPayloadError,
        ClientResponseError,
        ConnectionTimeoutError,
        ServerDisconnectedError,
    )

    if isinstance(error, ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    words = {
        ClientResponseError: "its answer is not HTTP",
        ClientPayloadError: "its answer broke off",
        ConnectionTimeoutError: "no connection in time",
        ServerDisconnectedError: "the server closed the connection",
        ValueError: "the address cannot be used",
    }
    return next((said for kind, said in words.items() if isinstance(error, kind)), "")
