"""The header fields of a message that is sent again to other addresses (RFC 5322 3.6.6)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

_MAX_LISTED = 100
"""Recipients up to which Resent-To, which RFC 5322 3.6.6 does not require, lists them. More would make it too
long for servers that limit headers."""


def resent_block(*, sender: str, to: Sequence[str], at: float, message_id: str) -> bytes:
    """Return the block of Resent- fields that is put on top of a message, whose own bytes do not change.

    Args:
        sender: the address that sends the copy.
        to: the recipients of the copy; they are left out if they are very many.
        at: now, in seconds since the epoch.
        message_id: the id of the copy, with its brackets; the message keeps its own Message-ID.
    """
    # One address in a line, because RFC 5322 2.1.1 allows 998 octets in a line.
    recipients = ",\r\n\t".join(f"<{address}>" for address in to)
    resent_to = f"Resent-To: {recipients}\r\n" if len(to) <= _MAX_LISTED else ""
    return (
        f"Resent-Date: {format_datetime(datetime.fromtimestamp(int(at), UTC))}\r\n"
        f"Resent-From: <{sender}>\r\n"
        f"{resent_to}"
        f"Resent-Message-ID: {message_id}\r\n"
    ).encode()
