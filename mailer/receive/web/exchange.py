"""HTTP requests, responses and errors as plain values, for the rest of this package.

Only `server` uses the HTTP library.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from mailer.mail.reply import Reply, printable, printable_json

JSON = "application/json"
PROBLEM = "application/problem+json"
SOON = 60
"""Seconds in Retry-After if no better value is known."""

Pieces = AsyncIterator[bytes]


async def _nothing() -> Pieces:
    empty: tuple[bytes, ...] = ()
    for piece in empty:
        yield piece


async def _no_need() -> None:
    return


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, whose body has not been read yet."""

    method: str
    path: str
    """The path, beginning with a slash. It is not decoded, because no valid path has an escape in it."""
    peer: str
    """The client's IP address, as the kernel writes it."""
    local_address: str
    """The address of this server that it connected to."""
    version: tuple[int, int]
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values of each field in order, by its name in lower case."""
    query: tuple[tuple[str, str], ...] = ()
    pieces: Callable[[], Pieces] = _nothing
    """Reads the body, some 64 KiB at a time; raises `Problem` if it arrives too slowly, and `Gone`."""
    go_ahead: Callable[[], Awaitable[None]] = _no_need
    """Sends 100 Continue if the client waits for it before it sends the body (RFC 9110 10.1.1)."""
    on_known: Callable[[str], None] = lambda _user: None
    """Called with the user of a valid token: the connection is then no longer closed to make room for others.
    Raises `Problem` if that user has too many connections."""

    def header(self, name: str) -> str:
        """Return a field's first value; empty if there is none."""
        return next(iter(self.headers.get(name, ())), "")

    @property
    def length(self) -> int | None:
        """Octets of the body; None: it is chunked, and its length is not known before its end."""
        if "transfer-encoding" in self.headers:
            return None
        return int(self.header("content-length") or 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    body: bytes
    status: int = HTTPStatus.OK
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Gone(ConnectionError):
    """The client disconnected before its request was complete; nothing is queued, and no response is sent."""


_BY_ENHANCED = {
    "5.3.4": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "5.7.1": HTTPStatus.FORBIDDEN,
    "4.7.1": HTTPStatus.TOO_MANY_REQUESTS,
    # draft-ietf-httpapi-idempotency-key-header 2.7: the first request is still being worked on.
    "4.5.0": HTTPStatus.CONFLICT,
    # Too many recipients: temporary in SMTP, but an HTTP client that only repeats the request never succeeds.
    "4.5.3": HTTPStatus.UNPROCESSABLE_ENTITY,
}


def status_of(reply: Reply) -> HTTPStatus:
    """Return the HTTP status that corresponds to an SMTP refusal."""
    if (found := _BY_ENHANCED.get(reply.enhanced)) is not None:
        return found
    return HTTPStatus.UNPROCESSABLE_ENTITY if reply.permanent else HTTPStatus.SERVICE_UNAVAILABLE


class Problem(Exception):
    """A refused request; the response is a problem document (RFC 9457)."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *headers: tuple[str, str],
        reply: Reply | None = None,
        refused: Mapping[str, Reply] | None = None,
        close: bool = False,
    ) -> None:
        """Describe the refusal.

        Args:
            status: the HTTP status.
            detail: what is wrong, and what to do.
            headers: additional header fields of the response.
            reply: the SMTP reply, if the session refused the message.
            refused: the refused recipients, each with its SMTP reply.
            close: close the connection, because further input cannot be trusted or is not worth reading.
        """
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.reply = reply
        self.refused = refused or {}
        self.close = close

    @classmethod
    def of(
        cls, reply: Reply, *, refused: Mapping[str, Reply] | None = None, retry_after: int = SOON
    ) -> "Problem":
        """Convert a session's refusal; a temporary one gets a Retry-After field."""
        status, words = status_of(reply), " ".join(reply.lines).removeprefix(f"{reply.enhanced} ")
        again = (("Retry-After", str(retry_after)),) if reply.temporary and status != 422 else ()
        return cls(status, printable(words), *again, reply=reply, refused=refused)

    def answer(self) -> Answer:
        told: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": str(self),
        }
        if self.reply is not None:
            told["smtp"] = _told(self.reply)
        if self.refused:
            told["recipients"] = [
                {"address": printable(address), "smtp": _told(reply)}
                for address, reply in self.refused.items()
            ]
        return json(told, self.status, *self.headers, kind=PROBLEM)


def _told(reply: Reply) -> dict[str, object]:
    return {"code": reply.code, "enhanced": reply.enhanced, "reply": str(reply)}


def json(value: object, status: int = HTTPStatus.OK, *headers: tuple[str, str], kind: str = JSON) -> Answer:
    """Return a response with a value as JSON; strings from clients must be printable UTF-8 already."""
    text = printable_json(msgspec.json.encode(value).decode())
    return Answer(text.encode(), status, kind, headers)
