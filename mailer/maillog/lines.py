"""Reading one line of the ledger."""

import msgspec

from mailer.maillog.ledger import Line

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding damaged bytes raises; the last two are msgspec's for bad UTF-8 and deep nesting."""

_START = b'{"at":'
_decoder = msgspec.json.Decoder(Line)


def whole(raw: bytes) -> bytes:
    """Return what counts of a line, or of what is none.

    A crash may leave a line torn, with the next one behind it on the same line: what starts last counts.
    """
    return raw[max(0, raw.rfind(_START)) :]


def decode(raw: bytes) -> Line | None:
    """Read one line; None for what is none."""
    try:
        return _decoder.decode(whole(raw))
    except UNREADABLE:
        return None
