"""What an interface answered: a status, its code and its words, in one line as the journal has it.

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

from mailer.mail.reply import printable

_LONGEST = 600
"""Characters of its words that are kept."""
_GENERIC = frozenset({"invalid", "badRequest", "error", "UnknownError"})
"""Reasons that say less than the words beside them, and are left out."""
# Gmail writes the moment into its words.
_RETRY_AFTER = re.compile(r"Retry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    """By name, whatever its case."""
    data: bytes
    """The body, or its beginning."""

    @property
    def taken(self) -> bool:
        """The interface took responsibility for the message."""
        return 200 <= self.status < 300

    @property
    def failed(self) -> bool:
        """It, or a gateway in front of it, did not come to an end; nobody knows how far it came."""
        return self.status >= 500

    def line(self, recipients: int = 1, hide: Callable[[str], str] = str) -> str:
        """Return it as one line.

        Args:
            recipients: of the request; more than one are named, for a refusal may be about any of them.
            hide: returns words without the login that they may quote, before any of them are cut off.
        """
        code, words = self._said()
        said = ": ".join(filter(None, (code, words))) or _EMPTY.get(self.status, "no reason is given")
        line = f"HTTP {self.status} {printable(hide(said), _LONGEST)}"
        if self.taken and (theirs := self._id()):
            line += f" id={printable(hide(theirs), 200)}"
        if (pause := self.pause) is not None:
            line += f" (Retry-After: {pause:.0f} s)"
        if recipients > 1 and not self.taken:
            line += f" (one of {recipients} recipients)"
        return line

    @property
    def pause(self) -> float | None:
        """Seconds after which it wants to be asked again; None: it does not say.

        A moment is compared with the server's own clock, whatever ours says.
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
        """Return its code, such as `ErrorInvalidRecipients`, and its words; empty where it has none."""
        found = self._object()
        if not found and _is_text(self.headers):
            return "", self.data.decode("utf-8", "replace").strip()
        error = found.get("error")
        inner = error if isinstance(error, dict) else found
        words = _first(iter([inner.get("message"), inner.get("Message")]))
        # Amazon's services put the name into a field, with an address behind it.
        named = self.headers.get("x-amzn-ErrorType", "").partition(":")[0]
        return named or _first(_codes(inner)), words

    def _id(self) -> str:
        """Return what the provider's support finds the message by: its id, or that of the request."""
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
    """Yield the names that an error goes by, the most telling first."""
    details = error.get("errors")
    if isinstance(details, list):
        yield from (each.get("reason") for each in details if isinstance(each, dict))
    yield error.get("code")
    yield error.get("status")


def _first(values: Iterator[object]) -> str:
    return next((value for value in values if isinstance(value, str) and value not in {"", *_GENERIC}), "")


def _is_text(headers: Mapping[str, str]) -> bool:
    """Tell whether the body is words for people, and not a page."""
    return headers.get("Content-Type", "").lower().startswith("text/plain")


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else None
