"""One request to a token server: a form out, an object back, bounded in time and size.

The one module of the room that imports aiohttp, and only when a server is asked.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from mailer.mail.reply import printable
from mailer.oauth.trouble import from_server

TIMEOUT = 30.0
"""Seconds for all of it."""
_LARGEST = 256 * 1024
"""Bytes of an answer; a token with many groups in it has some ten thousand."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said."""

    status: int
    fields: dict[str, Any]
    """The object; empty: it was none."""
    date: float | None = None
    """The server's clock, in seconds since the epoch."""

    def __repr__(self) -> str:
        return f"Answer(status={self.status})"

    def text(self, name: str) -> str:
        """Return a field that is a string; empty: it is missing, or something else."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """Return a field that is a number, or a string of digits, as some servers write it."""
        value = self.fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            return float(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if 0 <= value < 1e11 else None


async def post(url: str, form: Mapping[str, str]) -> Answer:
    """Send a form by POST and return the answer, whatever its status.

    The certificate is verified, the proxy that HTTPS_PROXY names is used (not where NO_PROXY names the host,
    nor for an address of this host in clear), and no redirect is followed: the form holds secrets.

    Raises:
        TokenTrouble: there is none, or one that cannot be used.
    """
    # Imported here: it takes 0.2 s, which no run pays that finds its token kept.
    from aiohttp import BasicAuth, ClientError, ClientSession, ClientTimeout  # noqa: PLC0415

    host = urlsplit(url).netloc
    # Not by aiohttp's trust_env: it would send what ~/.netrc has for the host as well.
    try:
        proxy = proxy_for(url)
        user = urlsplit(proxy).username if proxy else None
        login = BasicAuth(unquote(user), unquote(urlsplit(proxy).password or "")) if proxy and user else None
        async with (
            ClientSession(timeout=ClientTimeout(total=TIMEOUT)) as session,
            session.post(
                url,
                data=dict(form),
                headers={"Accept": "application/json"},
                allow_redirects=False,
                ssl=ssl.create_default_context(),
                proxy=_without_login(proxy) if proxy else None,
                proxy_auth=login,
            ) as response,
        ):
            if 300 <= response.status < 400:
                to = urlsplit(response.headers.get("Location", "")).netloc or "another address"
                raise from_server(host, f"it redirects to {printable(to, 255)}, which is not followed")
            data = await _bounded(response.content, host)
            return Answer(
                status=response.status, fields=_fields(data), date=_moment(response.headers.get("Date", ""))
            )
    except TimeoutError:
        raise from_server(host, f"it has not answered in time ({TIMEOUT:.0f} s)", temporary=True) from None
    except (ClientError, OSError, ValueError) as error:
        raise from_server(host, _words(error), temporary=True) from None
    finally:
        await asyncio.sleep(0)  # aiohttp closes its connection in the next round of the loop


def proxy_for(url: str) -> str | None:
    """Return the proxy of the environment for an address; None: it is asked directly."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - as aiohttp

    parts, proxies = urlsplit(url), getproxies()
    if parts.scheme != "https" or proxy_bypass(parts.netloc, proxies):
        return None
    return proxies.get("https")


def _without_login(proxy: str) -> str:
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _bounded(content: Any, host: str) -> bytes:  # noqa: ANN401 - aiohttp's reader
    data = b""
    async for piece in content.iter_chunked(16 * 1024):
        data += piece
        if len(data) > _LARGEST:
            raise from_server(host, f"its answer is larger than {_LARGEST // 1024} KiB", temporary=True)
    return data


def _fields(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _moment(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return moment.timestamp() if moment.tzinfo else None


def _words(error: Exception) -> str:
    """Say in the system's words why there was no answer; aiohttp wraps them."""
    wrapped: Any = getattr(error, "os_error", None) or error
    certificate = getattr(error, "certificate_error", None) or wrapped
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return printable(f"its certificate is not trusted: {certificate.verify_message}", 300)
    number = getattr(wrapped, "errno", None)
    if isinstance(number, int) and number > 0:  # those of getaddrinfo are negative
        return os.strerror(number)
    text = getattr(wrapped, "strerror", None) or str(wrapped) or type(wrapped).__name__
    return printable(str(text), 300)
