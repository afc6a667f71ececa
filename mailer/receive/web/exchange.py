"""HTTP as the rest of this package sees it: a request, an answer and a refusal as plain values.

`server` is the only module that knows the library which speaks the protocol.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from mailer.mail.reply import Reply, printable, printable_json

JSON = "application/json"
PROBLEM = "application/problem+json"
SOON = 60
"""Seconds after which to come again, where nobody knows better."""

Pieces = AsyncIterator[bytes]


async def _nothing() -> Pieces:
    empty: tuple[bytes, ...] = ()
    for piece in empty:
        yield piece


async def _no_need() -> None:
    return


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, its body not read yet."""

    method: str
    path: str
    """Beginning with a slash, and not decoded: no path of ours has an escape in it."""
    peer: str
    """The client's IP address, as the kernel writes it."""
    local_address: str
    """Ours, to which it connected."""
    version: tuple[int, int]
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name in lower case, each value in the order of the request."""
    query: tuple[tuple[str, str], ...] = ()
    pieces: Callable[[], Pieces] = _nothing
    """Reads the body, some 64 KiB at a time; raises `Problem` when it comes too slowly, and `Gone`."""
    go_ahead: Callable[[], Awaitable[None]] = _no_need
    """Asks a client for its body that waits to be asked (RFC 9110 10.1.1)."""
    on_known: Callable[[str], None] = lambda _user: None
    """Given whose valid token the client has shown: its connection does not give way to others' from then on.
    Raises `Problem` when that user has too many connections."""

    def header(self, name: str) -> str:
        """Return a field's only or first value; empty when there is none."""
        return next(iter(self.headers.get(name, ())), "")

    @property
    def length(self) -> int | None:
        """Octets of the body; None: it comes in chunks, and will tell by its end."""
        if "transfer-encoding" in self.headers:
            return None
        return int(self.header("content-length") or 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets."""

    body: bytes
    status: int = HTTPStatus.OK
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Gone(ConnectionError):
    """The client left before all of its request was here: nothing comes of it, and nobody is answered."""


_BY_ENHANCED = {
    "5.3.4": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "5.7.1": HTTPStatus.FORBIDDEN,
    "4.7.1": HTTPStatus.TOO_MANY_REQUESTS,
    # draft-ietf-httpapi-idempotency-key-header 2.7: the first request is still being worked on.
    "4.5.0": HTTPStatus.CONFLICT,
    # It would be refused again however often: the client is to send to fewer.
    "4.5.3": HTTPStatus.UNPROCESSABLE_ENTITY,
}


def status_of(reply: Reply) -> HTTPStatus:
    """Return the status that says in HTTP what a refusal says in SMTP."""
    if (found := _BY_ENHANCED.get(reply.enhanced)) is not None:
        return found
    return HTTPStatus.UNPROCESSABLE_ENTITY if reply.permanent else HTTPStatus.SERVICE_UNAVAILABLE


class Problem(Exception):
    """A request that is refused; the client gets it as RFC 9457 has it."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *headers: tuple[str, str],
        reply: Reply | None = None,
        refused: Mapping[str, Reply] | None = None,
        close: bool = False,
    ) -> None:
        """Say why.

        Args:
            status: of the answer.
            detail: what is wrong, and what to do.
            headers: more fields of the answer.
            reply: the session's, if it was that which refused.
            refused: recipients that were refused, each with its reply.
            close: end the connection: what else is on it cannot be trusted, or is not worth reading.
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
        """Make one of a session's refusal; a temporary one says when to come again."""
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
    """Answer with a value; what clients sent that was no UTF-8 must have been made printable."""
    text = printable_json(msgspec.json.encode(value).decode())
    return Answer(text.encode(), status, kind, headers)
