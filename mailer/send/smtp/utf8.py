"""Decide which mail needs SMTPUTF8 (RFC 6531). Mail that does is never downgraded for a hop without it."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol

from mailer.mail.envelope import Envelope, Recipient

_BLOCK = 64 * 1024
_address = attrgetter("address")


class Readable(Protocol):
    @property
    def envelope(self) -> Envelope: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


def wanted(envelope: Envelope, recipients: Sequence[Recipient]) -> bool:
    """Tell whether to use SMTPUTF8 if it is offered: the client declared it, or an address is not ASCII."""
    return (
        envelope.smtputf8
        or not envelope.sender.isascii()
        or not all(map(str.isascii, map(_address, recipients)))
    )


def indispensable(message: Readable) -> bool:
    """Tell whether a hop without SMTPUTF8 can deliver the message to no recipient at all.

    That is so if the sender is not ASCII, or if the client declared SMTPUTF8 and the header has non-ASCII
    bytes. The declaration alone does not count: some clients declare it for every message, and all their mail
    would be undeliverable at such a hop. Non-ASCII bytes in the header alone do not count either: real mail
    has them without a declaration, and servers accept it.
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
