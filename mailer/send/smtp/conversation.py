"""What both sides of a session said last, kept in memory in case the session fails.

Nothing is formatted while it is kept: a transaction adds four or five tuples. Each transaction replaces the
one before it, so what is kept is the opening of the session and its last transaction.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from mailer.send.smtp.concealment import Concealment

KEPT = 64
"""The most pieces to keep of an opening or a transaction, the last ones, each of at most 16 KiB (a read)."""


class Kind(StrEnum):
    """What a piece is."""

    RECEIVED = "received"
    """Octets of the server, cut anywhere."""
    SENT = "sent"
    """Commands, already without what is secret in them."""
    MESSAGE = "message"
    """A part of the message, of which only the number of octets is kept."""
    END = "end"
    """The last part of the message, with its dot."""
    REMARK = "remark"
    """A text of ours, in UTF-8, that neither side said."""


Piece = tuple[float, Kind, bytes, int]
"""When it was said, by the monotonic clock; what it is; its octets; and for the message, their number."""


class Conversation(msgspec.Struct, frozen=True):
    """The opening of a session and its last transaction."""

    hop: str
    """The next hop, as in `Outcome.hop`."""
    began: float
    """When it was connected, by the monotonic clock."""
    opening: Sequence[Piece]
    last: Sequence[Piece]
    earlier: int = 0
    """The number of transactions between the two."""
    conceal: Concealment | None = None
    """Hides the login wherever the server quotes it."""

    def lines(self) -> Iterator[tuple[float, str]]:
        """Yield the lines of a transcript that is fit to be kept, each with the seconds since the connect.

        It has no password, token or challenge, and nothing of the message but its size.
        """
        from mailer.send.smtp.transcript import Transcript  # noqa: PLC0415 - only for a session that failed

        said: list[str] = []
        transcript = Transcript(said.append, self.conceal, challenges=False)
        at = 0.0
        for part in (self.opening, self.last):
            if len(part) == KEPT:
                transcript.note("(what was said before this is left out)")
                transcript.skip_reply()  # Its rest may be the end of a password.
            elif part is self.last and self.earlier:
                transcript.note(f"({self.earlier} earlier transactions of this session are left out)")
            for moment, kind, data, octets in part:
                at = moment - self.began
                if kind is Kind.RECEIVED:
                    transcript.received(data)
                elif kind is Kind.SENT:
                    transcript.sent(data, secret=False)
                elif kind is Kind.REMARK:
                    transcript.note(data.decode())
                else:
                    transcript.sent_message(octets, whole=kind is Kind.END)
                    transcript.end_message()
                yield from ((at, line) for line in said)
                said.clear()
        transcript.end()
        yield from ((at, line) for line in said)
