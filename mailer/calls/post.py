"""One HTTP request by POST: bounded in time and size, and to the address that the operator wrote only.

The HTTP client for all but mail, which `send/http/exchange` streams. It imports aiohttp only when somebody is
asked.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mailer.mail.reply import printable

if TYPE_CHECKING:
    from aiohttp import BasicAuth

JSON = "application/json"
_LARGEST = 256 * 1024
"""Bytes of an answer that are read; an access token with many groups in it has some ten thousand."""


class CallTrouble(OSError):
    """No usable answer came. The text never has the URL, which may be a secret."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By any case of their names."""
    body: bytes

    def __repr__(self) -> str:
        return f"Response(status={self.status})"

    @property
    def taken(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def redirects_to(self) -> str:
        """The host that a redirection names, which is never followed; empty: the answer is none."""
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
    timeout: float,  # noqa: ASYNC109 - of the whole exchange, aiohttp's own
    headers: Mapping[str, str],
) -> Response:
    """Send bytes, or a form, and return the answer.

    The certificate is verified, the proxy that HTTPS_PROXY names is used (not where NO_PROXY names the host,
    nor for an address in clear), and no redirection is followed: what is sent may be secret.

    Args:
        url: where to; `http` is for hosts that the caller checked.
        data: what.
        timeout: seconds for all of it.
        headers: in addition to those that HTTP needs.

    Raises:
        TimeoutError: it took too long.
        CallTrouble: there is no answer.
    """
    # Imported here: it takes 0.2 s, which no run pays that asks nobody.
    from aiohttp import ClientError, ClientSession, ClientTimeout  # noqa: PLC0415

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
        raise TimeoutError(f"no answer within {timeout:g} seconds") from None  # aiohttp's words quote the URL
    except CallTrouble:
        raise
    except (ClientError, OSError, ValueError) as error:
        raise CallTrouble(words_of(error)) from None
    finally:
        await asyncio.sleep(0)  # aiohttp closes its connection in the next round of the loop


def proxy_for(url: str) -> str | None:
    """Return the proxy of the environment for an address; None: it is asked directly."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - as aiohttp

    parts, proxies = urlsplit(url), getproxies()
    if parts.scheme != "https" or proxy_bypass(parts.netloc, proxies):
        return None
    return proxies.get("https")


def proxied(url: str) -> "tuple[str | None, BasicAuth | None]":
    """Return the proxy for an address without its login, and the login; raises ValueError.

    Not left to aiohttp's trust_env, which would send what ~/.netrc has for the host as well.
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
        if len(data) > _LARGEST:
            raise CallTrouble(f"its answer is larger than {_LARGEST // 1024} KiB")
    return data


def words_of(error: Exception) -> str:
    """Say in the system's words why there was no answer; aiohttp wraps them."""
    wrapped: Any = getattr(error, "os_error", None) or error
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
    """Say what aiohttp says with the URL or the answer in it, where a secret may be; empty: it does not."""
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
