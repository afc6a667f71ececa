"""Which mail needs SMTPUTF8 (RFC 6531). There is no downgrade: a hop without it gets none of such mail."""

from collections.abc import Sequence
from typing import Protocol

from mailer.mail.envelope import Envelope, Recipient

_BLOCK = 64 * 1024


class Readable(Protocol):
    @property
    def envelope(self) -> Envelope: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


def wanted(envelope: Envelope, recipients: Sequence[Recipient]) -> bool:
    """Say SMTPUTF8 to a hop that offers it: the client did, or an address is not ASCII."""
    return envelope.smtputf8 or not all(
        address.isascii() for address in (envelope.sender, *(recipient.address for recipient in recipients))
    )


def indispensable(message: Readable) -> bool:
    """Whether no recipient whatever can get it from a hop without SMTPUTF8.

    The sender is not ASCII, or the client declared SMTPUTF8 and the header makes use of it. A declaration
    alone is not taken at its word: clients that declare it for every message would make all their mail
    undeliverable at such a hop. Nor are 8-bit bytes in a header alone: real mail has them, undeclared, and it
    passes.
    """
    envelope = message.envelope
    return not envelope.sender.isascii() or (envelope.smtputf8 and not _ascii_header(message))


def _ascii_header(message: Readable) -> bool:
    tail = b""
    for offset in range(0, message.size, _BLOCK):
        block = tail + message.read(offset, _BLOCK)
        header, end, _ = block.partition(b"\r\n\r\n")
        if not header.isascii():
            return False
        if end:
            break
        tail = block[-3:]
    return True
