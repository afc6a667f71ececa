"""Decode lines of the ledger: whole, or fast the few fields that are counted."""

from collections.abc import Iterator, Sequence

import msgspec

from mailer.maillog.ledger import Line

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of decoding damaged bytes; the last two are msgspec's for bad UTF-8 and deep nesting."""

_START = b'{"at":'


class Row(msgspec.Struct, frozen=True, gc=False):
    """The counted fields of a line. Measured: 0.3 us to decode, against 1.6 us for the whole `Line`."""

    at: str
    event: str
    id: str = ""
    to: tuple[str, ...] = ()
    size: int = 0
    delay: float = 0.0
    delays: tuple[float, ...] = ()
    attempt: int = 0
    message: str = ""
    again: bool = False
    about: str = ""
    more: int = 0


_line_decoder, _row_decoder = msgspec.json.Decoder(Line), msgspec.json.Decoder(Row)


def whole(raw: bytes) -> bytes:
    """Return the part of a line, whole or damaged, that counts.

    A crash may leave a torn line, and the next line is then appended to it: the last one that starts counts.
    """
    return raw[max(0, raw.rfind(_START)) :]


def decode(raw: bytes) -> Line | None:
    """Decode one line; return None if it is not a ledger line."""
    try:
        return _line_decoder.decode(whole(raw))
    except UNREADABLE:
        return None


def rows(block: bytes) -> Sequence[Row]:
    """Decode a block of whole lines; anything else is skipped (see `whole`)."""
    try:
        return _row_decoder.decode_lines(block)
    except UNREADABLE:
        return list(_one_by_one(block))


def _one_by_one(block: bytes) -> Iterator[Row]:
    for raw in block.split(b"\n"):
        try:
            yield _row_decoder.decode(whole(raw))
        except UNREADABLE:
            continue
