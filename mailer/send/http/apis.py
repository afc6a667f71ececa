"""Build the requests that post a message to each HTTP interface, without I/O.

Sources: Microsoft, "user: sendMail" (MIME format), "Microsoft Graph service-specific throttling limits";
Google, "Method: users.messages.send", "Uploading attachments"; Mailgun, "Send an email in MIME format"; AWS,
"SendEmail" (SES API v2), "Service quotas in Amazon SES".
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote

import msgspec

from mailer.config.hops import Api
from mailer.send.smtp.hop import Hop

_BLOCK = 48 * 1024
"""Octets read in one call: a multiple of three, so that base64 has no padding in between."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """The documented limits of an interface."""

    largest: int
    """The most octets of a message."""
    recipients: int
    """The most recipients of a message."""
    sessions: int = 0
    """The most concurrent requests for one account; 0: no limit is documented."""


LIMITS = {
    # A request may have 4 MB and carries the message in base64, which leaves 3 MiB.
    Api.GRAPH: ApiLimits(largest=3 * _MIB, recipients=500, sessions=4),
    Api.GMAIL: ApiLimits(largest=35 * _MIB, recipients=500),
    Api.MAILGUN: ApiLimits(largest=25 * _MIB, recipients=1000),
    Api.SES: ApiLimits(largest=40 * _MIB, recipients=50),
}


class Source(Protocol):
    """A message."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: a message, unchanged or in base64, with a prefix and a suffix; read in pieces."""

    message: Source
    before: bytes = b""
    after: bytes = b""
    base64: bool = False

    @property
    def size(self) -> int:
        octets = self.message.size
        return len(self.before) + ((octets + 2) // 3 * 4 if self.base64 else octets) + len(self.after)

    def digest(self) -> str:
        """Return the SHA-256 of the whole body, in hexadecimal."""
        made = sha256()
        for piece in self.pieces():
            made.update(piece)
        return made.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Yield the whole body in pieces; raises EOFError if the message is shorter than its size."""
        if self.before:
            yield self.before
        offset, size = 0, self.message.size
        while offset < size:
            block = b""
            # Fill the block: a short read is not the end, and base64 would put padding into the middle.
            while len(block) < min(_BLOCK, size - offset):
                more = self.message.read(offset + len(block), min(_BLOCK, size - offset) - len(block))
                if not more:
                    raise EOFError(f"the message ends at {offset + len(block)} of {size} octets")
                block += more
            offset += len(block)
            yield b64encode(block) if self.base64 else block
        if self.after:
            yield self.after


@dataclass(frozen=True, slots=True)
class Request:
    """One POST request."""

    url: str
    headers: dict[str, str] = field(repr=False)
    """Including Authorization; not shown, since it has the login."""
    body: Body


@dataclass(frozen=True, slots=True)
class Errand:
    """What to send in one request."""

    message: Source
    """The message in its final form. If `Api.by_header`, its header names the recipients."""
    recipients: Sequence[str]
    sender: str
    """The envelope's sender; empty: `<>`."""
    secret: str = field(repr=False)
    """An access token, or the password."""
    boundary: str
    """The boundary of a multipart form: letters and digits that do not occur in the message."""


def request(hop: Hop, errand: Errand) -> Request:
    """Return the request that sends a message through a hop's interface."""
    match hop.api:
        case Api.GRAPH:
            return _graph(hop, errand)
        case Api.GMAIL:
            return _gmail(hop, errand)
        case Api.MAILGUN:
            return _mailgun(hop, errand)
        case Api.SES:
            return _ses(hop, errand)
    raise ValueError(f"{hop} takes mail by SMTP")


def _graph(hop: Hop, errand: Errand) -> Request:
    url = f"{hop.api_url}/v1.0/users/{quote(hop.username, safe='@')}/sendMail"
    headers = {"Authorization": f"Bearer {errand.secret}", "Content-Type": "text/plain"}
    return Request(url, headers, Body(errand.message, base64=True))


def _gmail(hop: Hop, errand: Errand) -> Request:
    user = quote(hop.username, safe="@")
    url = f"{hop.api_url}/upload/gmail/v1/users/{user}/messages/send?uploadType=media"
    headers = {"Authorization": f"Bearer {errand.secret}", "Content-Type": "message/rfc822"}
    return Request(url, headers, Body(errand.message))


def _mailgun(hop: Hop, errand: Errand) -> Request:
    line = f"--{errand.boundary}\r\n"
    fields = "".join(
        f'{line}Content-Disposition: form-data; name="to"\r\n\r\n{address}\r\n'
        for address in errand.recipients
    )
    part = (
        f'{line}Content-Disposition: form-data; name="message"; filename="message.mime"\r\n'
        "Content-Type: message/rfc822\r\n\r\n"
    )
    login = b64encode(f"api:{errand.secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {login}",
        "Content-Type": f"multipart/form-data; boundary={errand.boundary}",
    }
    url = f"{hop.api_url}/v3/{quote(hop.username)}/messages.mime"
    after = f"\r\n--{errand.boundary}--\r\n"
    return Request(url, headers, Body(errand.message, (fields + part).encode(), after.encode()))


def _ses(hop: Hop, errand: Errand) -> Request:
    """Return a request that the caller has to sign (`sigv4`)."""
    rest: dict[str, object] = {"Destination": {"ToAddresses": list(errand.recipients)}}
    if errand.sender:
        # For mail from `<>` the field is left out, and the interface uses From of the header.
        rest["FromEmailAddress"] = errand.sender
    after = b'"}},' + msgspec.json.encode(rest)[1:]
    body = Body(errand.message, b'{"Content":{"Raw":{"Data":"', after, base64=True)
    return Request(f"{hop.api_url}/v2/email/outbound-emails", {"Content-Type": "application/json"}, body)
