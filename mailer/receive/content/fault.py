"""The faults for which the content of a message is refused; `receive/replies` has the reply to each."""

from enum import Enum

import msgspec

from mailer.mail.patterns import AddressPatterns


class Fault(Enum):
    """A reason to refuse a message after its end that needs no details."""

    BARE_LINE_END = "bare line end"
    NUL = "nul"
    TOO_BIG = "too big"
    LONG_LINE = "long line"
    HEADER_TOO_LARGE = "header too large"
    TWO_FROMS = "two From fields"
    LOOP = "mail loop"
    BAD_KEY = "bad Idempotency-Key"
    BAD_LATEST = "bad Latest-Delivery-Time"
    TOO_LATE = "Latest-Delivery-Time has passed"


class UnclearAuthor(msgspec.Struct, frozen=True):
    """A user with limited senders sends a message that does not say clearly who its author is."""

    user: str
    what: str
    """The field, line or message whose author is unclear, in words for the reply."""


class ForbiddenAuthor(msgspec.Struct, frozen=True):
    """A field of the header names an author that the user may not send as."""

    user: str
    allowed: AddressPatterns
    """The addresses that the user may send as."""
    address: str
    """The author's address, which is not among them."""
    field: str
    """The name of the field."""


ContentFault = Fault | UnclearAuthor | ForbiddenAuthor
