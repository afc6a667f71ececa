"""An HTTP interface's answer: its status, error code and text, as one line for the journal.

    HTTP 403 ErrorSendAsDenied: The user account which was used to submit ... (Retry-After: 30 s)

`send/replies/http.py` reads such lines.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from mailer.config.hops import Api
from mailer.mail.reply import printable

_MAX_TEXT = 600
"""The most characters of its code and text that are kept."""
_GENERIC = frozenset({"invalid", "badRequest", "error", "UnknownError"})
"""Codes that are left out, since they say less than the text that comes with them."""
# Gmail writes the time into its text.
_RETRY_AFTER = re.compile(r"Retry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    """By name, in any case."""
    data: bytes
    """The body, or its beginning."""

    @property
    def positive(self) -> bool:
        """Whether the answer is 2yz; it may come from a gateway in between: see `taken`."""
        return 200 <= self.status < 300

    def taken(self, api: Api) -> bool:
        """Tell whether the interface has accepted responsibility for the message, in its documented way.

        Graph answers 202, the others the id of the message that they took. Another 2yz may come from a web
        page at a wrong `apiUrl`, from a gateway, or state an error; the message may have been taken or not.
        """
        if api is Api.GRAPH:
            return self.status == 202
        found = self._object()
        return self.positive and any(isinstance(found.get(name), str) for name in ("id", "MessageId"))

    @property
    def failed(self) -> bool:
        """Whether the interface, or a gateway in front of it, failed; the message may have been taken."""
        return self.status >= 500

    def line(self, recipients: int = 1, hide: Callable[[str], str] = str) -> str:
        """Return the answer as one line.

        Args:
            recipients: number of recipients of the request; the line states it if there are several, since a
                refusal may be about any of them.
            hide: removes the login, which the answer may quote; it is called before the text is shortened.
        """
        code, words = self._said()
        said = ": ".join(filter(None, (code, words))) or _EMPTY.get(self.status, "no reason is given")
        line = f"HTTP {self.status} {printable(hide(said), _MAX_TEXT)}"
        if self.positive and (theirs := self._id()):
            line += f" id={printable(hide(theirs), 200)}"
        if (pause := self.pause) is not None:
            line += f" (Retry-After: {pause:.0f} s)"
        if recipients > 1 and not self.positive:
            line += f" (one of {recipients} recipients)"
        return line

    @property
    def pause(self) -> float | None:
        """Seconds to wait before the next request, as the answer asks; None: it does not say.

        If the answer gives a time instead, it is compared with the server's own clock and not with ours.
        """
        value = self.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        then = _moment(value)
        if then is None and (found := _RETRY_AFTER.search(self._said()[1])):
            with suppress(ValueError):
                then = datetime.fromisoformat(f"{found[1]}+00:00")
        now = _moment(self.headers.get("Date", ""))
        return max(0.0, (then - now).total_seconds()) if then and now else None

    def _said(self) -> tuple[str, str]:
        """Return the error code, such as `ErrorInvalidRecipients`, and the text; empty if there is none."""
        found = self._object()
        if not found and _is_text(self.headers):
            return "", self.data.decode("utf-8", "replace").strip()
        error = found.get("error")
        inner = error if isinstance(error, dict) else found
        words = _first(iter([inner.get("message"), inner.get("Message")]))
        # Amazon's services put the code into a header field, followed by a URL.
        named = self.headers.get("x-amzn-ErrorType", "").partition(":")[0]
        return named or _first(_codes(inner)), words

    def _id(self) -> str:
        """Return the id by which the provider's support can find the message: its own, or the request's."""
        found = self._object()
        return _first(iter([found.get("id"), found.get("MessageId"), self.headers.get("request-id")]))

    def _object(self) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(self.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


_EMPTY = {202: "Accepted", 200: "OK", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}


def _codes(error: dict[str, Any]) -> Iterator[object]:
    """Yield the codes of an error, the most specific first."""
    details = error.get("errors")
    if isinstance(details, list):
        yield from (each.get("reason") for each in details if isinstance(each, dict))
    yield error.get("code")
    yield error.get("status")


def _first(values: Iterator[object]) -> str:
    return next((value for value in values if isinstance(value, str) and value not in {"", *_GENERIC}), "")


def _is_text(headers: Mapping[str, str]) -> bool:
    """Tell whether the body is plain text for people, and not HTML."""
    return headers.get("Content-Type", "").lower().startswith("text/plain")


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else None
