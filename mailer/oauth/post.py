"""Send one request to a token server: post a form, and parse the JSON answer."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mailer.calls.post import JSON, CallError
from mailer.calls.post import post as call
from mailer.oauth.trouble import from_server, ours

TIMEOUT = 30.0
"""Seconds for the whole request and its answer."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A token server's answer."""

    status: int
    fields: dict[str, Any]
    """The JSON object; empty if the answer is not one."""
    date: float | None = None
    """The server's clock, in seconds since the epoch; None: it did not say."""

    def __repr__(self) -> str:
        return f"Answer(status={self.status})"

    def text(self, name: str) -> str:
        """Return a string field; empty if it is missing or not a string."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """Return a number field, which some servers write as a string of digits; None: it is not a number."""
        value = self.fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            return float(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if 0 <= value < 1e11 else None


async def post(url: str, form: Mapping[str, str]) -> Answer:
    """Send a form by POST, as `calls.post` does, and return the answer, whatever its status.

    Raises:
        TokenTrouble: there is no answer, or a redirect.
    """
    host = urlsplit(url).netloc
    try:
        response = await call(url, form, timeout=TIMEOUT, headers={"Accept": JSON})
    except TimeoutError:
        raise from_server(host, f"it has not answered in time ({TIMEOUT:.0f} s)", temporary=True) from None
    except CallError as trouble:
        if trouble.local:
            raise ours(f"no request can be made: {trouble}", temporary=True, local=True) from None
        raise from_server(host, str(trouble), temporary=True) from None
    if to := response.redirects_to:
        raise from_server(host, f"it redirects to {to}, which is not followed")
    return Answer(
        status=response.status,
        fields=_fields(response.body),
        date=_moment(response.headers.get("Date", "")),
    )


def _fields(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _moment(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment.timestamp() if moment.tzinfo else None
