"""The header fields of a message that is sent again to other addresses (RFC 5322 3.6.6)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime


def resent_block(*, sender: str, to: Sequence[str], at: float, message_id: str) -> bytes:
    """Write the block of Resent- fields that goes on top of a message, whose own bytes do not change.

    Args:
        sender: the address that sends it again.
        to: the addresses that get it now.
        at: now, in seconds since the epoch.
        message_id: of this sending alone, with its brackets; the message keeps its own Message-ID.
    """
    # One address a line: RFC 5322 2.1.1 has at most 998 octets in a line.
    recipients = ",\r\n\t".join(f"<{address}>" for address in to)
    return (
        f"Resent-Date: {format_datetime(datetime.fromtimestamp(int(at), UTC))}\r\n"
        f"Resent-From: <{sender}>\r\n"
        f"Resent-To: {recipients}\r\n"
        f"Resent-Message-ID: {message_id}\r\n"
    ).encode()
