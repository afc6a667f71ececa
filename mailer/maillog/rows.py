"""The few fields of a ledger line that are needed for counting, decoded fast."""

from collections.abc import Iterator, Sequence

import msgspec

from mailer.maillog.lines import UNREADABLE, whole


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


_decoder = msgspec.json.Decoder(Row)


def rows(block: bytes) -> Sequence[Row]:
    """Decode a block of whole lines; anything else is skipped (see `lines.whole`)."""
    try:
        return _decoder.decode_lines(block)
    except UNREADABLE:
        return list(_one_by_one(block))


def _one_by_one(block: bytes) -> Iterator[Row]:
    for raw in block.split(b"\n"):
        try:
            yield _decoder.decode(whole(raw))
        except UNREADABLE:
            continue
