"""Decoding one line of the ledger."""

import msgspec

from mailer.maillog.ledger import Line

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of decoding damaged bytes; the last two are msgspec's for bad UTF-8 and deep nesting."""

_START = b'{"at":'
_decoder = msgspec.json.Decoder(Line)


def whole(raw: bytes) -> bytes:
    """Return the part of a line, whole or damaged, that counts.

    A crash may leave a torn line, and the next line is then appended to it: the last one that starts counts.
    """
    return raw[max(0, raw.rfind(_START)) :]


def decode(raw: bytes) -> Line | None:
    """Decode one line; return None if it is not a ledger line."""
    try:
        return _decoder.decode(whole(raw))
    except UNREADABLE:
        return None
