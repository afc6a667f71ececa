"""The header fields that the receiver adds; what the client sent follows them unchanged."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """How a message came in."""

    helo: str
    """As the client gave it, checked to be a host name or an address literal."""
    peer: str
    """The client's IP address."""
    hostname: str
    """Our own name."""
    extended: bool
    """The client said EHLO."""
    user: str
    """Who authenticated; empty: nobody did."""
    smtputf8: bool


def received_field(origin: Origin, message_id: str, at: float) -> bytes:
    """Write the trace field of RFC 5321 4.4, folded, with CRLF line ends.

    It names no recipient: a blind copy must stay blind.

    Args:
        origin: where from.
        message_id: the spool's id.
        at: the time of arrival, in seconds since the epoch.
    """
    literal = f"IPv6:{origin.peer}" if ":" in origin.peer else origin.peer
    date = format_datetime(datetime.fromtimestamp(at, UTC))
    return (
        f"Received: from {origin.helo} ([{literal}])\r\n"
        f"\tby {origin.hostname} with {_protocol(origin)} id {message_id};\r\n"
        f"\t{date}\r\n"
    ).encode()


def _protocol(origin: Origin) -> str:
    """The `with` keyword (RFC 3848, RFC 6531 4.3)."""
    if not origin.extended:
        return "SMTP"
    name = "UTF8SMTP" if origin.smtputf8 else "ESMTP"
    return name + "A" if origin.user else name
